"""Restore: the tail after a crash, nothing after a clean stop, all of it only when it must."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from millstream.log import TopicPartition, open_log
from millstream.log.interface import Log
from millstream.streams.progress import no_progress
from millstream.streams.restore import ChangelogBounds, StoreInLog, restore_stores, start_of_restore
from millstream.streams.state import Checkpoint, KeyValueStore
from millstream.streams.state.rocks import RocksBacking
from millstream.streams.state_thread import StateThread

CHANGELOG = TopicPartition("app-counts-changelog", 0)
HOUR_MS = 3_600_000
NOW_MS = 1_000 * HOUR_MS
BOUNDS = ChangelogBounds(beginning=10, end=20, topic_id="t", delete_retention_ms=24 * HOUR_MS)


@pytest.mark.parametrize(
    ("checkpoint", "expected"),
    [
        (None, (10, True)),
        (Checkpoint(20, 0, "t"), (20, False)),  # nothing to restore: its age does not matter
        (Checkpoint(15, NOW_MS - HOUR_MS, "t"), (15, False)),
        (Checkpoint(10, NOW_MS - HOUR_MS, "t"), (10, False)),
        (Checkpoint(9, NOW_MS - HOUR_MS, "t"), (10, True)),  # the changelog begins later
        (Checkpoint(15, NOW_MS - 23 * HOUR_MS, "t"), (15, False)),
        (Checkpoint(15, NOW_MS - 24 * HOUR_MS, "t"), (10, True)),  # tombstones may be gone
        (Checkpoint(21, NOW_MS - HOUR_MS, "t"), (10, True)),  # not this changelog's offset
        (Checkpoint(15, NOW_MS - HOUR_MS, "other"), (10, True)),
    ],
)
def test_where_a_restore_starts(checkpoint: Checkpoint | None, expected: tuple[int, bool]) -> None:
    """Trap 1."""
    assert start_of_restore(checkpoint, BOUNDS, NOW_MS) == expected


def test_an_uncompacted_changelog_keeps_its_tombstones() -> None:
    bounds = ChangelogBounds(beginning=0, end=20, topic_id="t", delete_retention_ms=-1)
    assert start_of_restore(Checkpoint(15, 0, "t"), bounds, NOW_MS) == (15, False)


async def write(log: Log, rows: Sequence[tuple[bytes, int | None]]) -> None:
    async with log.producer(transactional_id="writer") as producer:
        async with producer.transaction():
            await producer.send_batch(
                CHANGELOG.topic,
                [None if value is None else orjson.dumps(value) for _, value in rows],
                keys=[key for key, _ in rows],
                partition=0,
            )


def store_in(path: Path) -> KeyValueStore:
    return KeyValueStore("counts", RocksBacking(str(path)), orjson.dumps, orjson.loads)


async def restore(log: Log, store: KeyValueStore, now_ms: int | None = None) -> int:
    thread = StateThread()
    import time

    count = await restore_stores(
        log,
        [StoreInLog(store, CHANGELOG)],
        thread,
        wall_ms=lambda: now_ms or time.time_ns() // 1_000_000,
        progress=no_progress,
    )
    thread.close()
    return count


def test_only_the_tail_is_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await log.create_topic(CHANGELOG.topic, config={"cleanup.policy": "compact"})
            await write(log, [(b"a", 1), (b"b", 2)])
            store = store_in(tmp_path / "db")
            assert await restore(log, store) == 2
            assert dict(store.items()) == {b"a": 1, b"b": 2}
            assert await restore(log, store) == 0
            await write(log, [(b"a", None), (b"c", 3)])
            assert await restore(log, store) == 2
            assert dict(store.items()) == {b"b": 2, b"c": 3}
            store.backing.flush()
            store.backing.close()
            again = store_in(tmp_path / "db")
            assert await restore(log, again) == 0
            assert dict(again.items()) == {b"b": 2, b"c": 3}
            again.backing.close()

    asyncio.run(main())


def test_a_changelog_that_begins_later_rebuilds_the_store(tmp_path: Path) -> None:
    """Trap 1: `b` was deleted, and the tombstone is gone with the changelog's beginning."""

    async def main() -> None:
        async with open_log("memory:") as log:
            await log.create_topic(CHANGELOG.topic, config={"cleanup.policy": "compact"})
            await write(log, [(b"a", 1), (b"b", 2)])
            store = store_in(tmp_path / "db")
            await restore(log, store)
            await write(log, [(b"b", None), (b"a", 5)])
            end = (await log.end_offsets([CHANGELOG]))[CHANGELOG]
            await write(log, [(b"a", 6)])
            await log.delete_records({CHANGELOG: end})
            assert await restore(log, store) == 1
            assert dict(store.items()) == {b"a": 6}
            store.backing.close()

    asyncio.run(main())


def test_an_old_checkpoint_rebuilds_the_store(tmp_path: Path) -> None:
    """Trap 1: compaction may have removed tombstones a day after they were written."""

    async def main() -> None:
        async with open_log("memory:") as log:
            await log.create_topic(CHANGELOG.topic, config={"cleanup.policy": "compact"})
            await write(log, [(b"a", 1), (b"b", 2)])
            store = store_in(tmp_path / "db")
            await restore(log, store)
            checkpoint = store.backing.checkpoint(0)
            assert checkpoint is not None
            store.backing.write([b"ghost"], [b"1"], checkpoints={})
            await write(log, [(b"c", 3)])
            soon = checkpoint.written_ms + HOUR_MS
            assert await restore(log, store, now_ms=soon) == 1
            assert b"ghost" in dict(store.items())
            await write(log, [(b"d", 4)])
            assert await restore(log, store, now_ms=soon + 24 * HOUR_MS) == 4
            assert dict(store.items()) == {b"a": 1, b"b": 2, b"c": 3, b"d": 4}
            store.backing.close()

    asyncio.run(main())


def test_a_changelog_made_anew_rebuilds_the_store(tmp_path: Path) -> None:
    async def main() -> None:
        store = store_in(tmp_path / "db")
        for value in (1, 2):
            async with open_log("memory:") as log:
                await log.create_topic(CHANGELOG.topic)
                await write(log, [(b"%d" % value, value)])
                assert await restore(log, store) == 1
                assert dict(store.items()) == {b"%d" % value: value}
        store.backing.close()

    asyncio.run(main())


def test_an_aborted_changelog_write_is_not_restored(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await log.create_topic(CHANGELOG.topic)
            await write(log, [(b"a", 1)])
            async with log.producer(transactional_id="writer") as producer:
                await producer.begin_transaction()
                await producer.send_batch(CHANGELOG.topic, [b"9"], keys=[b"a"], partition=0)
                await producer.flush()
                await producer.abort_transaction()
            store = store_in(tmp_path / "db")
            assert await restore(log, store) == 1
            assert dict(store.items()) == {b"a": 1}
            store.backing.close()

    asyncio.run(main())
