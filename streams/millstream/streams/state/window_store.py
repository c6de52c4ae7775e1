"""The window store: one dict per open window over a backing in which a window is one range.

The four steps of a commit and the rules for mutable values are those of `store.py`.
Closing a window (`drop`) is part of the commit that emits it: the backing loses its range, the
changelog gets a tombstone for every key that a commit ever wrote, and a window that was opened and
closed between two commits costs neither of them anything.

    windows, _dropped             since the last commit; a drop hides the window in all layers below
    _pending, _pending_dropped    what a running commit writes down
    _clean                        a bounded cache of what is committed
    _stored                       the starts the backing has
    _complete                     starts of which _clean holds every key: a miss is no disk read

Not thread-safe, except `apply`: one task owns a store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .changelog import START_SIZE_BYTES, sortable_start, split_window_key, start_of, window_suffix
from .store import CACHE_ENTRIES_MAX, Backing, Changes, Checkpoint

__all__ = ["WindowStore"]

Window = dict[bytes, Any]


class WindowStore:
    """A store of one task, keyed by window start (milliseconds) and serialised key.

    Generated code uses `windows`, `open` and `load` directly, and binds `windows` once per batch,
    because a commit replaces it between batches:

        window = windows.get(start)
        if window is None:
            window = open(start)
        state = window.get(key)
        if state is None:
            state = load(start, key)
        window[key] = ...
    """

    __slots__ = (
        "_backing",
        "_cache_entries",
        "_cache_entries_max",
        "_clean",
        "_complete",
        "_decode",
        "_dropped",
        "_encode",
        "_pending",
        "_pending_dropped",
        "_rows",
        "_stored",
        "logged",
        "name",
        "partition",
        "windows",
    )

    def __init__(
        self,
        name: str,
        backing: Backing,
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
        *,
        partition: int = 0,
        logged: bool = True,
        cache_entries_max: int = CACHE_ENTRIES_MAX,
    ) -> None:
        self.name = name
        self.partition = partition
        self.logged = logged
        self.windows: dict[int, Window] = {}
        self._dropped: dict[int, list[bytes]] = {}
        self._pending: dict[int, Window] = {}
        self._pending_dropped: dict[int, list[bytes]] = {}
        self._rows = Changes([], [])
        self._clean: dict[int, Window] = {}
        self._complete: set[int] = set()
        self._cache_entries = 0
        self._cache_entries_max = cache_entries_max
        self._backing = backing
        self._encode = encode
        self._decode = decode
        self._stored = self._stored_starts()

    @property
    def backing(self) -> Backing:
        return self._backing

    @property
    def dirty_entries(self) -> int:
        """Entries written since the last `prepare`."""
        return sum(map(len, self.windows.values()))

    def open(self, start: int) -> Window:
        """What was written to a window since the last commit; an empty dict to write to at
        first."""
        return self.windows.setdefault(start, {})

    def load(self, start: int, key: bytes) -> Any:
        """The value of a key that the window's overlay had no value for; None when there is
        none."""
        window = self.windows.get(start)
        if (window is not None and key in window) or start in self._dropped:
            return None
        window = self._pending.get(start)
        if window is not None and key in window:
            return window[key]
        if start not in self._stored or start in self._pending_dropped:
            return None
        window = self._clean.get(start)
        if window is not None and key in window:
            return window[key]
        if start in self._complete:
            return None
        data = self._backing.get(sortable_start(start) + key)
        if data is None:
            return None
        value = self._decode(data)
        self._clean.setdefault(start, {})[key] = value
        self._cache_entries += 1
        if self._cache_entries > self._cache_entries_max:
            self._evict()
        return value

    def get(self, start: int, key: bytes) -> Any:
        """The value of a key in a window, what is not yet committed included."""
        window = self.windows.get(start)
        value = None if window is None else window.get(key)
        return self.load(start, key) if value is None else value

    def put(self, start: int, key: bytes, value: Any) -> None:
        """Set a key of a window; None deletes it."""
        self.open(start)[key] = value

    def starts(self) -> list[int]:
        """The starts of all live windows, in order."""
        live = self._stored.difference(self._pending_dropped)
        live.update(self._pending)
        live.difference_update(self._dropped)
        live.update(self.windows)
        return sorted(live)

    def items(self, start: int) -> list[tuple[bytes, Any]]:
        """All keys of a window with their values, in byte order of the keys."""
        merged: Window = {}
        if start not in self._dropped:
            if start in self._stored and start not in self._pending_dropped:
                merged.update(self._committed(start))
            merged.update(self._pending.get(start, ()))
        merged.update(self.windows.get(start, ()))
        return [(key, value) for key in sorted(merged) if (value := merged[key]) is not None]

    def fetch(self, key: bytes, first: int, last: int) -> list[tuple[int, Any]]:
        """The values of a key in windows that start from `first` to `last` (both inclusive)."""
        found = ((start, self.get(start, key)) for start in self.starts() if first <= start <= last)
        return [(start, value) for start, value in found if value is not None]

    def drop(self, start: int) -> None:
        """Delete a window with all its keys, as part of the next commit."""
        self.windows.pop(start, None)
        if start in self._dropped:
            return
        written = set(self._pending.get(start, ()))
        if start in self._stored and start not in self._pending_dropped:
            written.update(self._committed_keys(start))
        if written:
            self._dropped[start] = sorted(written)

    def prepare(self) -> Changes:
        """Begin a commit: tombstones of dropped windows, then what was written, serialised.

        Raises:
            RuntimeError: the previous commit was neither settled nor rolled back.
        """
        if self._pending or self._pending_dropped:
            raise RuntimeError(f"store {self.name!r}: prepare() while a commit is under way")
        encode = self._encode
        changes = Changes([], [])
        rows = Changes([], [])
        for start, keys in self._dropped.items():
            suffix = window_suffix(start)
            changes.keys.extend([key + suffix for key in keys])
            changes.values.extend([None] * len(keys))
        for start, window in self.windows.items():
            suffix = window_suffix(start)
            prefix = sortable_start(start)
            values = [None if value is None else encode(value) for value in window.values()]
            changes.keys.extend([key + suffix for key in window])
            changes.values.extend(values)
            rows.keys.extend([prefix + key for key in window])
            rows.values.extend(values)
        self._rows = rows
        self._pending = {start: window for start, window in self.windows.items() if window}
        self.windows = {}
        self._pending_dropped, self._dropped = self._dropped, {}
        return changes

    def apply(self, checkpoint: Checkpoint | None) -> None:
        """Write the prepared changes and how far they reach to the backing. Blocks.

        `checkpoint` is None for a store without a changelog.

        Raises:
            StateStoreError: the backing failed; it still holds the previous commit.
        """
        ranges = [
            (sortable_start(start), sortable_start(start + 1)) for start in self._pending_dropped
        ]
        checkpoints = {} if checkpoint is None else {self.partition: checkpoint}
        self._backing.write(*self._rows, ranges=ranges, checkpoints=checkpoints)

    def settle(self) -> None:
        """End a commit whose changes were applied."""
        for start in self._pending_dropped:
            self._cache_entries -= len(self._clean.pop(start, ()))
            self._stored.discard(start)
            self._complete.discard(start)
        for start, window in self._pending.items():
            if start not in self._stored:
                self._stored.add(start)
                self._complete.add(start)
            cached = self._clean.setdefault(start, {})
            self._cache_entries -= len(cached)
            cached.update(window)
            self._cache_entries += len(cached)
        self._end_commit()
        if self._cache_entries > self._cache_entries_max:
            self._evict()

    def restore(
        self,
        keys: Sequence[bytes],
        values: Sequence[bytes | None],
        checkpoints: Mapping[int, Checkpoint],
    ) -> None:
        """Write changelog records straight to the backing. Blocks; call `restored` afterwards."""
        rows = []
        for changelog_key in keys:
            key, start = split_window_key(changelog_key)
            rows.append(sortable_start(start) + key)
        self._backing.write(rows, values, checkpoints=checkpoints)

    def restored(self) -> None:
        """Forget what was cached before a `restore`."""
        self._clean = {}
        self._cache_entries = 0
        self._complete = set()
        self._stored = self._stored_starts()

    def _end_commit(self) -> None:
        self._pending = {}
        self._pending_dropped = {}
        self._rows = Changes([], [])

    def _committed(self, start: int) -> Window:
        cached = self._clean.get(start, {})
        if start in self._complete:
            return cached
        rows = self._backing.scan(sortable_start(start), sortable_start(start + 1))
        stored = ((row[START_SIZE_BYTES:], data) for row, data in rows)
        return {key: cached[key] if key in cached else self._decode(data) for key, data in stored}

    def _committed_keys(self, start: int) -> list[bytes]:
        if start in self._complete:
            return list(self._clean.get(start, ()))
        rows = self._backing.scan(sortable_start(start), sortable_start(start + 1))
        return [row[START_SIZE_BYTES:] for row, _ in rows]

    def _evict(self) -> None:
        """Drop the oldest windows from the cache: the newest are written to most."""
        for start in sorted(self._clean):
            if self._cache_entries <= self._cache_entries_max:
                return
            self._cache_entries -= len(self._clean.pop(start))
            self._complete.discard(start)

    def _stored_starts(self) -> set[int]:
        starts: set[int] = set()
        first = b""
        while (row := next(iter(self._backing.scan(first)), None)) is not None:
            start = start_of(row[0])
            starts.add(start)
            first = sortable_start(start + 1)
        return starts
