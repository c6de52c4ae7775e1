"""Stores against a model: overlay, running commit, cache and backing together are one dict."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from millstream.streams.state import (
    Backing,
    Checkpoint,
    KeyValueStore,
    MemoryBacking,
    StateStoreError,
    WindowStore,
    split_window_key,
    window_key,
)
from millstream.streams.state.changelog import sortable_start, start_of
from millstream.streams.state.rocks import RocksBacking

KEYS = st.sampled_from([b"", b"a", b"b", b"bb", b"c", b"\xff", b"\xff\xff\xff\xff\xff"])
VALUES = st.integers(0, 9)
STARTS = st.sampled_from([-(1 << 40), -1, 0, 60_000, 120_000])


def at(offset: int) -> Checkpoint:
    return Checkpoint(offset, 1_000, "id")


def kv(backing: Backing, cache: int = 4) -> KeyValueStore:
    return KeyValueStore("s", backing, orjson.dumps, orjson.loads, cache_entries_max=cache)


def windowed(backing: Backing, cache: int = 4) -> WindowStore:
    return WindowStore("w", backing, orjson.dumps, orjson.loads, cache_entries_max=cache)


class StoreMachine(RuleBasedStateMachine):
    """`working` is what a task sees, `committing` what a running commit holds, `committed` what is
    down.

    `changelog` is what the commits sent; replaying it into an empty store must give `committed`.
    """

    store: Any
    make: Callable[[Backing], Any]
    content: Callable[[Any], dict[Any, int]]

    @initialize(rocks=st.booleans())
    def start(self, rocks: bool) -> None:
        self.directory = tempfile.TemporaryDirectory() if rocks else None
        self.backing: Backing = (
            RocksBacking(f"{self.directory.name}/db") if self.directory else MemoryBacking()
        )
        self.store = self.make(self.backing)
        self.working: dict[Any, int] = {}
        self.committing: dict[Any, int] | None = None
        self.committed: dict[Any, int] = {}
        self.changelog: list[tuple[bytes, bytes | None]] = []
        self.sent: list[tuple[bytes, bytes | None]] = []

    @precondition(lambda self: self.committing is None)
    @rule()
    def prepare(self) -> None:
        changes = self.store.prepare()
        self.sent = list(zip(*changes, strict=True))
        self.committing = dict(self.working)

    @precondition(lambda self: self.committing is not None)
    @rule()
    def commit(self) -> None:
        assert self.committing is not None
        self.changelog += self.sent
        self.store.apply(at(len(self.changelog)))
        self.store.settle()
        self.committed, self.committing = self.committing, None

    @rule()
    def fail(self) -> None:
        """A commit failed: a new store over the same backing."""
        self.store = self.make(self.backing)
        self.working = dict(self.committed)
        self.committing = None

    @rule(crash=st.booleans())
    def reopen(self, crash: bool) -> None:
        if self.directory is None:
            self.store = self.make(self.backing)
        else:
            if not crash:
                self.backing.flush()
            self.backing.close()
            self.backing = RocksBacking(f"{self.directory.name}/db")
            self.store = self.make(self.backing)
            offset = self.backing.checkpoint(0)
            rest = self.changelog[offset.offset if offset else 0 :]
            self.store.restore(
                [k for k, _ in rest], [v for _, v in rest], {0: at(len(self.changelog))}
            )
            self.store.restored()
        self.working = dict(self.committed)
        self.committing = None

    @rule()
    def rebuild(self) -> None:
        copy = self.make(MemoryBacking())
        copy.restore([k for k, _ in self.changelog], [v for _, v in self.changelog], {0: at(1)})
        copy.restored()
        assert self.content(copy) == self.committed

    @invariant()
    def reads_what_was_written(self) -> None:
        if hasattr(self, "working"):
            assert self.content(self.store) == self.working

    def teardown(self) -> None:
        if getattr(self, "directory", None) is not None:
            assert self.directory
            self.backing.close()
            self.directory.cleanup()


def content_of_kv(store: KeyValueStore) -> dict[Any, int]:
    return dict(store.items())


def content_of_windows(store: WindowStore) -> dict[Any, int]:
    starts = store.starts()
    assert starts == sorted(starts)
    return {(start, key): value for start in starts for key, value in store.items(start)}


class KeyValueMachine(StoreMachine):
    make = staticmethod(kv)
    content = staticmethod(content_of_kv)

    @rule(key=KEYS, value=VALUES)
    def put(self, key: bytes, value: int) -> None:
        self.store.put(key, value)
        self.working[key] = value

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        self.store.delete(key)
        self.working.pop(key, None)

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert self.store.get(key) == self.working.get(key)

    @rule(first=KEYS, end=KEYS | st.none())
    def scan(self, first: bytes, end: bytes | None) -> None:
        expected = sorted(
            (k, v) for k, v in self.working.items() if first <= k and (end is None or k < end)
        )
        assert list(self.store.items(first, end)) == expected


class WindowMachine(StoreMachine):
    make = staticmethod(windowed)
    content = staticmethod(content_of_windows)

    @rule(start=STARTS, key=KEYS, value=VALUES)
    def put(self, start: int, key: bytes, value: int) -> None:
        self.store.put(start, key, value)
        self.working[start, key] = value

    @rule(start=STARTS, key=KEYS)
    def delete(self, start: int, key: bytes) -> None:
        self.store.put(start, key, None)
        self.working.pop((start, key), None)

    @rule(start=STARTS)
    def drop(self, start: int) -> None:
        self.store.drop(start)
        self.working = {at: v for at, v in self.working.items() if at[0] != start}
        assert start not in self.store.starts()

    @rule(start=STARTS, key=KEYS)
    def get(self, start: int, key: bytes) -> None:
        assert self.store.get(start, key) == self.working.get((start, key))

    @rule(key=KEYS, first=STARTS, last=STARTS)
    def fetch(self, key: bytes, first: int, last: int) -> None:
        expected = sorted(
            (s, v) for (s, k), v in self.working.items() if k == key and first <= s <= last
        )
        assert self.store.fetch(key, first, last) == expected

    @rule(start=STARTS)
    def scan(self, start: int) -> None:
        expected = sorted((k, v) for (s, k), v in self.working.items() if s == start)
        assert self.store.items(start) == expected


_settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestKeyValueStore = KeyValueMachine.TestCase
TestKeyValueStore.settings = _settings
TestWindowStore = WindowMachine.TestCase
TestWindowStore.settings = _settings


@pytest.fixture(params=["memory", "rocks"])
def backing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backing]:
    made: Backing = (
        MemoryBacking() if request.param == "memory" else RocksBacking(str(tmp_path / "a" / "db"))
    )
    yield made
    made.close()


def test_generated_code_may_read_the_overlay_first(backing: Backing) -> None:
    store = kv(backing)
    for turn in range(3):
        overlay, load = store.overlay, store.load
        for _ in range(5):
            state = overlay.get(b"k")
            if state is None:
                state = load(b"k")
            overlay[b"k"] = (state or 0) + 1
        store.prepare()
        store.apply(at(turn))
        store.settle()
    assert store.get(b"k") == 15


def test_values_are_serialised_at_the_commit(backing: Backing) -> None:
    """Trap 15: what a function keeps and changes before the commit counts, what it changes later
    not."""
    store = kv(backing)
    value = ["a"]
    store.put(b"k", value)
    value.append("b")
    changes = store.prepare()
    value.append("c")
    store.apply(at(1))
    store.settle()
    assert changes.values == [b'["a","b"]']
    assert backing.get(b"k") == b'["a","b"]'
    assert kv(backing).get(b"k") == ["a", "b"]


def test_a_window_opened_and_closed_between_commits_writes_nothing(backing: Backing) -> None:
    store = windowed(backing)
    store.put(0, b"k", 1)
    store.put(60_000, b"k", 1)
    store.drop(0)
    assert store.prepare() == ([window_key(b"k", 60_000)], [b"1"])
    store.apply(at(1))
    store.settle()
    store.drop(60_000)
    assert store.prepare() == ([window_key(b"k", 60_000)], [None])
    store.apply(at(2))
    store.settle()
    assert list(backing.scan()) == []
    assert backing.checkpoint(0) == at(2)


def test_a_second_prepare_is_refused(backing: Backing) -> None:
    store = kv(backing)
    store.put(b"k", 1)
    store.prepare()
    with pytest.raises(RuntimeError, match="'s'"):
        store.prepare()


def test_a_scan_reads_in_chunks_and_skips_the_offset(tmp_path: Path) -> None:
    backing = RocksBacking(str(tmp_path / "db"))
    keys = [b"%06d" % i for i in range(10_000)]
    backing.write(keys, keys, checkpoints={0: at(7), 3: at(9)})
    assert [key for key, _ in backing.scan()] == keys
    assert [key for key, _ in backing.scan(b"000005", b"000012")] == keys[5:12]
    assert [backing.checkpoint(i) for i in (0, 3, 1)] == [at(7), at(9), None]
    backing.clear()
    assert list(backing.scan()) == []
    assert backing.checkpoint(0) is None
    backing.close()


def test_offset_and_data_survive_together_or_not_at_all(tmp_path: Path) -> None:
    """Trap 2: without a WAL an unflushed write is gone, and its offset with it."""
    program = """if True:
        import os, sys
        from millstream.streams.state import Checkpoint
        from millstream.streams.state.rocks import RocksBacking
        backing = RocksBacking(sys.argv[1])
        backing.write([b"a"], [b"1"], checkpoints={0: Checkpoint(1, 1_000, 'id')})
        backing.flush()
        backing.write([b"b"], [b"2"], checkpoints={0: Checkpoint(2, 1_000, 'id')})
        os._exit(0)
    """
    command = [sys.executable, "-c", program, str(tmp_path / "db")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    backing = RocksBacking(str(tmp_path / "db"))
    assert list(backing.scan()) == [(b"a", b"1")]
    assert backing.checkpoint(0) == at(1)
    backing.close()


def test_a_clear_that_is_killed_leaves_no_half_of_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backing = RocksBacking(str(tmp_path / "db"))
    backing.write([b"k"], [b"v"], checkpoints={0: at(1)})
    backing.flush()

    def killed(path: str, *, ignore_errors: bool) -> None:
        for manifest in Path(path).glob("MANIFEST-*"):
            manifest.unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("millstream.streams.state.removing.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            backing.clear()
    again = RocksBacking(str(tmp_path / "db"))
    assert again.checkpoint(0) is None
    again.write([b"k"], [b"w"], checkpoints={0: at(2)})
    again.clear()
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_directory_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    backing = RocksBacking(str(tmp_path / "file" / "db"))
    with pytest.raises(StateStoreError, match=r"file/db cannot be opened.*state_dir"):
        backing.write([b"k"], [b"v"], checkpoints={})


def test_the_reserved_key_is_refused(tmp_path: Path) -> None:
    backing = RocksBacking(str(tmp_path / "db"))
    backing.write([], [], checkpoints={0: at(1)})
    from millstream.streams.state.rocks import _checkpoint_key

    with pytest.raises(StateStoreError, match="reserved"):
        backing.write([_checkpoint_key(0)], [b"v"], checkpoints={0: at(2)})
    assert backing.checkpoint(0) == at(1)
    backing.close()


@pytest.mark.parametrize("start", [-(1 << 62), -1, 0, 1, 1_356_998_400_000])
def test_window_keys(start: int) -> None:
    assert split_window_key(window_key(b"ab", start)) == (b"ab", start)
    assert start_of(sortable_start(start) + b"ab") == start
    assert sortable_start(start) < sortable_start(start + 1)


def test_a_short_window_key_is_refused() -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        split_window_key(b"short")
