"""The key-value store: what a commit has not yet made durable lies in dicts, the rest in a backing.

    overlay   written since the last commit, None = deleted; generated code uses it directly
    pending   the overlay a running commit is writing down (empty when no commit runs)
    clean     a bounded cache of what is committed, as Python objects
    backing   what is committed, serialised, with the changelog offset it reaches

A read looks in this order. A commit takes four steps, so that the next records can be processed
while it runs (`commit.py` has the order):

    changes = store.prepare()   overlay becomes pending; its values are serialised here
    ... the log transaction with these changes commits ...
    store.apply(checkpoint)        pending goes to the backing in one atomic write (in a thread)
    store.settle()              pending becomes clean

There is no way back: when a commit fails the store is thrown away, with all that functions may have
changed of its cached objects, and another made over the same backing sees what is committed.

Values are Python objects and may be mutable. They are serialised at the commit, so a change made to
a stored object before the commit is part of it, and one made later is lost or kept by chance: what
a function returned belongs to the store.

Not thread-safe, except `apply`: one task owns a store. A crash leaves the backing at an older
changelog offset; `restore.py` replays the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from typing import Any, Final, NamedTuple, Protocol

from millstream.log.errors import MillstreamError

__all__ = [
    "CACHE_ENTRIES_MAX",
    "Backing",
    "Changes",
    "KeyValueStore",
    "StateStoreError",
]

CACHE_ENTRIES_MAX: Final = 100_000
"""Entries of the clean cache of one store; about 20 MB of small values."""


class StateStoreError(MillstreamError):
    """A state store cannot be opened, read or written. The message names the store and the
    directory."""


class Changes(NamedTuple):
    """What a commit writes to the changelog, in columns. A value of None is a tombstone."""

    keys: list[bytes]
    values: list[bytes | None]


class Checkpoint(NamedTuple):
    """How far a backing is: written in one batch with the data it describes."""

    offset: int
    """The next changelog offset to restore from."""
    written_ms: int
    """Wall-clock time of the write: tombstones written later are still in a compacted changelog for
    `delete.retention.ms` from then on."""
    topic_id: str
    """The changelog this is an offset of; a topic of the same name made anew has another id."""


class Backing(Protocol):
    """Where committed state lies, as bytes, with the checkpoint of each partition of it."""

    blocking: bool
    """Whether a write may touch the disk, and so belongs into a thread."""

    def get(self, key: bytes) -> bytes | None: ...
    def scan(self, first: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Keys from `first` (inclusive) to `end` (exclusive; None = to the last), in byte order."""
        ...

    def write(
        self,
        keys: Sequence[bytes],
        values: Sequence[bytes | None],
        *,
        ranges: Sequence[tuple[bytes, bytes]] = (),
        checkpoints: Mapping[int, Checkpoint],
    ) -> None:
        """All or nothing: delete the ranges (end exclusive), then put or delete (None) each key in
        order, and note the checkpoints by partition."""
        ...

    def checkpoint(self, partition: int) -> Checkpoint | None:
        """What the last write noted; None when nothing was ever written."""
        ...

    def clear(self) -> None:
        """Forget everything, offsets too, for a rebuild from the beginning."""
        ...

    def flush(self) -> None:
        """Make what was written survive the process, so that a clean stop has nothing to
        restore."""
        ...

    def close(self) -> None: ...


class KeyValueStore:
    """A store of one task, keyed by serialised keys.

    Generated code uses `overlay` and `load` directly, and binds `overlay` once per batch, because a
    commit replaces it between batches:

        state = overlay.get(key)
        if state is None:
            state = load(key)
    """

    __slots__ = (
        "_backing",
        "_cache_entries_max",
        "_changes",
        "_clean",
        "_complete",
        "_decode",
        "_encode",
        "_older",
        "_pending",
        "logged",
        "name",
        "overlay",
        "partition",
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
        self.overlay: dict[bytes, Any] = {}
        self._pending: dict[bytes, Any] = {}
        self._changes = Changes([], [])
        self._clean: dict[bytes, Any] = {}
        self._older: dict[bytes, Any] = {}
        self._backing = backing
        self._encode = encode
        self._decode = decode
        self._cache_entries_max = cache_entries_max
        self._complete = self._is_empty()

    @property
    def backing(self) -> Backing:
        return self._backing

    @property
    def dirty_entries(self) -> int:
        """Entries written since the last `prepare`."""
        return len(self.overlay)

    def load(self, key: bytes) -> Any:
        """The value of a key that `overlay.get` had no value for; None when there is none."""
        if key in self.overlay:
            return None
        if key in self._pending:
            return self._pending[key]
        if key in self._clean:
            return self._clean[key]
        value = self._older.get(key)
        if value is None and not self._complete:
            data = self._backing.get(key)
            if data is not None:
                value = self._decode(data)
        if value is not None:
            self._remember(key, value)
        return value

    def get(self, key: bytes) -> Any:
        """The value of a key, what is not yet committed included; None when there is none."""
        value = self.overlay.get(key)
        return self.load(key) if value is None else value

    def put(self, key: bytes, value: Any) -> None:
        """Set a key; None deletes it."""
        self.overlay[key] = value

    def delete(self, key: bytes) -> None:
        self.overlay[key] = None

    def items(self, first: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, Any]]:
        """Keys from `first` (inclusive) to `end` (exclusive) with their values, in byte order.

        Overlay and backing are merged; later changes may or may not be seen.
        """
        newest = {**self._pending, **self.overlay}
        ours = sorted(_within(newest.items(), first, end), key=_first)
        stored = (
            (key, self._decode(data))
            for key, data in self._backing.scan(first, end)
            if key not in newest
        )
        return (item for item in merge(ours, stored, key=_first) if item[1] is not None)

    def prepare(self) -> Changes:
        """Begin a commit: what was written so far, serialised, in the order of first writing.

        Raises:
            RuntimeError: the previous commit was neither settled nor rolled back.
        """
        if self._pending:
            raise RuntimeError(f"store {self.name!r}: prepare() while a commit is under way")
        overlay = self.overlay
        encode = self._encode
        self._changes = Changes(
            list(overlay),
            [None if value is None else encode(value) for value in overlay.values()],
        )
        self._pending = overlay
        self.overlay = {}
        return self._changes

    def apply(self, checkpoint: Checkpoint | None) -> None:
        """Write the prepared changes and how far they reach to the backing. Blocks.

        `checkpoint` is None for a store without a changelog.

        Raises:
            StateStoreError: the backing failed; it still holds the previous commit.
        """
        checkpoints = {} if checkpoint is None else {self.partition: checkpoint}
        self._backing.write(*self._changes, checkpoints=checkpoints)

    def settle(self) -> None:
        """End a commit whose changes were applied."""
        if len(self._clean) + len(self._pending) > self._cache_entries_max // 2:
            self._age()
        self._clean.update(self._pending)
        self._end_commit()

    def restore(
        self,
        keys: Sequence[bytes],
        values: Sequence[bytes | None],
        checkpoints: Mapping[int, Checkpoint],
    ) -> None:
        """Write changelog records straight to the backing. Blocks; call `restored` afterwards."""
        self._backing.write(keys, values, checkpoints=checkpoints)

    def restored(self) -> None:
        """Forget what was cached before a `restore`."""
        self._clean = {}
        self._older = {}
        self._complete = self._is_empty()

    def _end_commit(self) -> None:
        self._pending = {}
        self._changes = Changes([], [])

    def _remember(self, key: bytes, value: Any) -> None:
        if len(self._clean) >= self._cache_entries_max // 2:
            self._age()
        self._clean[key] = value

    def _age(self) -> None:
        """Drop the older half of the cache: two dicts swapped cost nothing per read."""
        if self._older:
            self._complete = False
        self._older = self._clean
        self._clean = {}

    def _is_empty(self) -> bool:
        return next(iter(self._backing.scan()), None) is None


def _first(item: tuple[bytes, Any]) -> bytes:
    return item[0]


def _within(
    items: Iterable[tuple[bytes, Any]], first: bytes, end: bytes | None
) -> Iterator[tuple[bytes, Any]]:
    return (item for item in items if first <= item[0] and (end is None or item[0] < end))
