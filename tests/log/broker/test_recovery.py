"""What opening a log does with transactions that were cut off, scene by scene.

The sweep (tests/crash/test_log_sweep.py) meets all of these by accident; here each is made on
purpose, with the reason why it is dangerous.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from millstream.log import OffsetAndMetadata, ProducerFencedError, StorageError, TopicPartition
from millstream.log.broker.transactions import EPOCH_MAX
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.format.codec import encode_batch
from millstream.log.open import open_log_on
from millstream.log.storage.partition import Partition
from millstream.log.testing.sim_files import Operation, SimFiles, disk_error
from shared.logs import values

T0, U0 = TopicPartition("t", 0), TopicPartition("u", 0)
STATE = TopicPartition("__transaction_state", 0)

Body = Callable[[EmbeddedLog], Awaitable[None]]


def run(files: SimFiles, body: Body, *, config: dict[str, str | int] | None = None) -> None:
    async def main() -> None:
        async with open_log_on(files, "log", config={"flush.threads": 0, **(config or {})}) as log:
            await body(log)

    asyncio.run(main())


def killed_after(files: SimFiles, body: Body, *, config: dict[str, int] | None = None) -> SimFiles:
    """Run `body`, then the process is gone: nothing is closed."""

    async def main() -> None:
        log = open_log_on(files, "log", config={"flush.threads": 0, **(config or {})})
        await log.__aenter__()
        await body(log)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(main())
    return files.restart()


def marker(partition: TopicPartition, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on no marker can be written to this partition."""
    original = Partition.append_marker

    def append(self: Partition, *arguments: Any, **named: Any) -> int:
        if self.topic_partition == partition:
            raise StorageError("no marker today")
        return original(self, *arguments, **named)

    monkeypatch.setattr(Partition, "append_marker", append)


@pytest.mark.parametrize("commit", [True, False])
def test_a_decided_transaction_is_finished(commit: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the commit point and the last marker: roll forward where a marker is missing."""

    async def cut_off(log: EmbeddedLog) -> None:
        producer = log.producer(transactional_id="x")
        await producer.begin_transaction()
        await producer.send_batch("t", [b"t"])
        await producer.send_batch("u", [b"u"])
        await producer.send_offsets({T0: 5}, group="g")
        marker(U0, monkeypatch)
        with pytest.raises(StorageError):
            await (producer.commit_transaction if commit else producer.abort_transaction)()
        with pytest.raises(StorageError):
            await producer.begin_transaction()
        with pytest.raises(StorageError, match="It is tried again by itself"):
            await log.producer(transactional_id="x").begin_transaction()

    async def look(log: EmbeddedLog) -> None:
        assert await values(log, T0, U0) == ([b"t", b"u"] if commit else [])
        expected = {T0: OffsetAndMetadata(5)} if commit else {}
        assert await log.group_offsets("g") == expected

    disk = killed_after(SimFiles(), cut_off)
    monkeypatch.undo()
    run(disk, look)
    run(disk, look)


def test_an_open_transaction_is_aborted_and_its_producer_goes_on() -> None:
    async def cut_off(log: EmbeddedLog) -> None:
        producer = log.producer(transactional_id="x")
        await producer.begin_transaction()
        await producer.send("t", b"never")
        await producer.send_offsets({T0: 5}, group="g")

    async def go_on(log: EmbeddedLog) -> None:
        assert await values(log, T0) == []
        assert await log.group_offsets("g") == {}
        async with log.producer(transactional_id="x") as producer, producer.transaction():
            await producer.send_batch("t", [b"next"])
            await producer.send_offsets({T0: 6}, group="g")
        assert await values(log, T0) == [b"next"]
        assert await log.group_offsets("g") == {T0: OffsetAndMetadata(6)}

    run(killed_after(SimFiles(), cut_off), go_on)


def test_a_lost_complete_record_does_not_commit_the_next_transaction() -> None:
    """COMPLETE_COMMIT is not synced on its own. When it is lost, recovery finds PREPARE_COMMIT and
    writes the markers again; the next transaction, whose data the kernel happened to write out, is
    open under the very epoch those markers carry. They must not commit it."""
    files = SimFiles()

    async def cut_off(log: EmbeddedLog) -> None:
        producer = log.producer(transactional_id="x")
        async with producer.transaction():
            await producer.send_batch("t", [b"first"])
        await producer.begin_transaction()
        await producer.send_batch("t", [b"second, never committed"])

    disk = killed_after(files, cut_off)
    log_file = "log/__transaction_state-0/00000000000000000000.log"
    handle = disk.open(log_file)
    batches = []
    position = 0
    while position < handle.size():
        length = int.from_bytes(handle.read(position + 8, 4), "big") + 12
        batches.append(position)
        position += length
    handle.truncate(batches[-2])  # COMPLETE_COMMIT, and ONGOING of the second

    async def look(log: EmbeddedLog) -> None:
        assert await values(log, T0) == [b"first"]
        assert await log.end_offsets([T0]) == await log.end_offsets([T0], "read_uncommitted")
        async with log.producer(transactional_id="x") as producer, producer.transaction():
            await producer.send_batch("t", [b"third"])
        assert await values(log, T0) == [b"first", b"third"]

    run(disk, look)


def test_a_transaction_the_coordinator_never_heard_of_is_aborted() -> None:
    """ONGOING is not synced before the data is: the data may survive alone, and would hold the last
    stable offset for ever."""

    async def cut_off(log: EmbeddedLog) -> None:
        producer = log.producer(transactional_id="x")
        await producer.begin_transaction()
        await producer.send_batch("t", [b"hangs"])

    disk = killed_after(SimFiles(), cut_off)
    disk.open("log/__transaction_state-0/00000000000000000000.log").truncate(0)

    async def look(log: EmbeddedLog) -> None:
        assert await values(log, T0) == []
        async with log.producer() as producer:
            await producer.send("t", b"behind")
        assert await values(log, T0) == [b"behind"]

    run(disk, look)


def test_a_zombie_from_before_the_restart_is_fenced() -> None:
    identity: list[tuple[int, int]] = []

    async def cut_off(log: EmbeddedLog) -> None:
        producer = log.producer(transactional_id="x")
        await producer.begin_transaction()
        await producer.send_batch("t", [b"open"])
        identity.append((producer.stats().producer_id, producer.stats().epoch))

    async def look(log: EmbeddedLog) -> None:
        with pytest.raises(ProducerFencedError):
            log._broker.transactions.add_partitions("x", *identity[0], [T0])

    run(killed_after(SimFiles(), cut_off), look)


def test_a_producer_goes_on_though_the_power_loss_took_its_newest_epochs() -> None:
    """With durability="os" each topic loses its own tail. A partition that has seen a higher epoch
    than the state knows would refuse the transactional id for ever."""
    files = SimFiles()
    state = f"log/{STATE}/00000000000000000000.log"
    kept = b""

    async def commit(log: EmbeddedLog, value: bytes) -> None:
        async with log.producer(transactional_id="app") as producer:
            async with producer.transaction():
                await producer.send("t", value)

    async def transactions(log: EmbeddedLog) -> None:
        nonlocal kept
        await log.create_topic("t")
        await commit(log, b"1")
        kept = files.read_whole(state)
        await commit(log, b"2")
        await commit(log, b"3")

    restarted = killed_after(files, transactions)
    handle = restarted.open(state)
    handle.truncate(len(kept))
    handle.close()

    async def once_more(log: EmbeddedLog) -> None:
        await commit(log, b"4")
        assert await values(log, T0) == [b"1", b"2", b"3", b"4"]

    run(restarted, once_more)


def test_producer_ids_never_come_again() -> None:
    files, seen = SimFiles(), set()

    async def use(log: EmbeddedLog) -> None:
        for _ in range(3):
            async with log.producer() as producer:
                await producer.send("t", b"")
                assert producer.stats().producer_id not in seen
                seen.add(producer.stats().producer_id)

    for _ in range(3):
        files = killed_after(files, use)
    assert len(seen) == 9


def test_a_damaged_producer_id_file_is_not_guessed_at() -> None:
    async def use(log: EmbeddedLog) -> None:
        async with log.producer() as producer:
            await producer.send("t", b"")

    disk = killed_after(SimFiles(), use)
    handle = disk.open("log/producer-id-block")
    handle.truncate(0)
    with pytest.raises(StorageError, match="producer-id-block is damaged"):
        run(disk, use)


def test_internal_topics_do_not_grow_for_ever() -> None:
    """They are compacted; nothing is forgotten, of what committed in transactions either."""
    files = SimFiles()
    config = {"offsets.topic.segment.bytes": 4096, "transaction.state.log.segment.bytes": 4096}

    async def work(log: EmbeddedLog) -> None:
        async with log.producer(transactional_id="x") as producer:
            for number in range(400):
                async with producer.transaction():
                    await producer.send_batch("t", [b"%d" % number])
                    await producer.send_offsets({T0: number + 1}, group="g")
        await log.alter_group_offsets("other", {T0: OffsetAndMetadata(3, "note")})
        async with log.producer(transactional_id="y") as producer:
            await producer.begin_transaction()
            await producer.send_offsets({T0: 999}, group="g")
            await producer.abort_transaction()
        size_bytes = (await log.describe_partitions("__consumer_offsets"))[0].size_bytes
        assert (await log._broker.cleaner.run_once()).partitions_compacted == 2
        for _ in range(2):  # the second gives the markers of what is gone a horizon
            for _ in range(150):
                await log.alter_group_offsets("other", {T0: OffsetAndMetadata(3, "n" * 500)})
            await log.alter_group_offsets("other", {T0: OffsetAndMetadata(3, "note")})
            assert (await log._broker.cleaner.run_once()).partitions_compacted == 1
        for topic in ("__consumer_offsets", "__transaction_state"):
            left = (await log.describe_partitions(topic))[0].size_bytes
            assert left < size_bytes / 6

    async def look(log: EmbeddedLog) -> None:
        assert (await log.group_offsets("g"))[T0].offset == 400
        assert (await log.group_offsets("other"))[T0] == OffsetAndMetadata(3, "note")
        async with log.producer(transactional_id="x") as producer, producer.transaction():
            await producer.send_batch("t", [b"last"])
            await producer.send_offsets({T0: 401}, group="g")
        assert len(await values(log, T0)) == 401

    async def again(log: EmbeddedLog) -> None:
        assert (await log.group_offsets("g"))[T0].offset == 401
        assert len(await values(log, T0)) == 401

    disk = killed_after(files, work, config=config)
    run(disk, look, config=config)
    run(disk, again, config=config)


def test_the_last_epoch_was_seen_and_the_log_of_transactions_lost_it() -> None:
    """There is no epoch above it: the producer goes on under another id."""

    async def cut_off(log: EmbeddedLog) -> None:
        coordinator = log._broker.transactions
        producer_id, _ = await coordinator.init_producer_id("x", 60_000)
        known = coordinator.table.get("x")
        assert known is not None
        await coordinator._log.write_durably(known._replace(epoch=EPOCH_MAX - 1))
        await log.create_topic("t")
        await coordinator._markers.write(producer_id, EPOCH_MAX, {T0}, commit=False)

    async def go_on(log: EmbeddedLog) -> None:
        async with log.producer(transactional_id="x") as producer, producer.transaction():
            await producer.send_batch("t", [b"next"])
        assert await values(log, T0) == [b"next"]

    run(killed_after(SimFiles(), cut_off), go_on)


def test_a_transaction_of_nobody_is_open_at_the_last_epoch() -> None:
    async def cut_off(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        identity = {"producer_id": 7, "producer_epoch": EPOCH_MAX, "base_sequence": 0}
        batch = encode_batch(None, [b"open"], [0], None, 0, 1, transactional=True, **identity)
        log._broker.partitions.append(T0, batch)

    async def look(log: EmbeddedLog) -> None:
        assert await values(log, T0) == []
        assert (await log.end_offsets([T0]))[T0] == 2

    run(killed_after(SimFiles(), cut_off), look)


def test_an_unwritable_directory() -> None:
    files = SimFiles()

    def refuse(operation: Operation) -> OSError | None:
        return disk_error("EIO", operation.path) if operation.kind == "make_dir" else None

    files.on_operation = refuse

    async def nothing(_log: EmbeddedLog) -> None:
        return None

    with pytest.raises(StorageError, match="log in log could not be"):
        run(files, nothing)
    files.on_operation = None
    run(files, nothing)
