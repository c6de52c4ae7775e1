"""Transactions, through the public interface: atomic, fenced, timed out, never mixed up."""

from __future__ import annotations

import asyncio

import pytest

from millstream.log import (
    ConsumerGroupMetadata,
    CorruptRecordError,
    IllegalGenerationError,
    InvalidTxnStateError,
    OffsetAndMetadata,
    ProducerFencedError,
    RecordTooLargeError,
    TopicPartition,
    UnknownMemberError,
    UnknownTopicError,
)
from millstream.log.broker import transactions
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log_on
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.testing.fake_clock import FakeClock
from shared.logs import settled, values, with_log

T0 = TopicPartition("t", 0)
U0 = TopicPartition("u", 0)
MANUAL = {"enable.auto.commit": "false"}


def test_all_or_nothing() -> None:
    async def body(log: EmbeddedLog) -> None:
        async with log.producer(transactional_id="x") as producer:
            async with producer.transaction():
                await producer.send("t", b"a")
                await producer.send_batch("u", [b"b"])
                await producer.send_offsets({T0: OffsetAndMetadata(7, "note")}, group="g")
                assert await values(log, T0) == []
                assert await log.group_offsets("g") == {}
            assert await values(log, T0, U0) == [b"a", b"b"]
            assert await log.group_offsets("g") == {T0: OffsetAndMetadata(7, "note")}
            with pytest.raises(KeyError):
                async with producer.transaction():
                    await producer.send("t", b"never")
                    await producer.send_offsets({T0: 8}, group="g")
                    raise KeyError
            assert await values(log, T0, U0) == [b"a", b"b"]
            assert await log.group_offsets("g") == {T0: OffsetAndMetadata(7, "note")}
        uncommitted = await values(log, T0, isolation="read_uncommitted")
        assert uncommitted == [b"a", b"never"]

    with_log(body)


def test_read_committed_stops_at_the_open_transaction() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        async with log.producer() as plain, log.producer(transactional_id="x") as producer:
            await plain.send("t", b"before")
            await producer.begin_transaction()
            await producer.send("t", b"inside")
            await plain.send("t", b"behind")
            assert await values(log, T0) == [b"before"]
            assert await log.end_offsets([T0]) == {T0: 1}
            assert await log.end_offsets([T0], "read_uncommitted") == {T0: 3}
            await producer.commit_transaction()
            assert await values(log, T0) == [b"before", b"inside", b"behind"]

    with_log(body)


def test_interleaved_aborted_and_committed() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        async with (
            log.producer(transactional_id="x") as first,
            log.producer(transactional_id="y") as second,
        ):
            for number in range(6):
                await first.begin_transaction()
                await second.begin_transaction()
                await first.send_batch("t", [b"1:%d" % number] * 2)
                await second.send_batch("t", [b"2:%d" % number])
                await first.send_batch("t", [b"1:%d!" % number])
                await (first.commit_transaction if number % 2 else first.abort_transaction)()
                await (second.abort_transaction if number % 3 else second.commit_transaction)()
        expected = []
        for number in range(6):
            ones = [b"1:%d" % number] * 2, [b"1:%d!" % number]
            expected += ones[0] if number % 2 else []
            expected += [] if number % 3 else [b"2:%d" % number]
            expected += ones[1] if number % 2 else []
        assert await values(log, T0) == expected
        async with log.consumer(config={"max.partition.fetch.bytes": 1}) as consumer:
            await consumer.assign([T0])  # batch by batch, so from the middle of transactions
            found = []
            while consumer.position().get(T0, 0) < (await log.end_offsets([T0]))[T0]:
                found += [record.value for record in await consumer.poll(0)]
            assert found == expected

    with_log(body)


def test_a_new_producer_fences_the_old_one() -> None:
    async def body(log: EmbeddedLog) -> None:
        old, new = log.producer(transactional_id="x"), log.producer(transactional_id="x")
        await old.begin_transaction()
        await old.send_batch("t", [b"old"])
        await old.send_offsets({T0: 1}, group="g")
        await new.begin_transaction()
        assert await log.end_offsets([T0], "read_uncommitted") == {T0: 2}  # record, marker
        await new.send_batch("t", [b"new"])
        for attempt in (
            old.send_batch("t", [b"zombie"]),
            old.send_offsets({T0: 5}, group="g"),
            old.commit_transaction(),
        ):
            with pytest.raises(ProducerFencedError, match="took over"):
                await attempt
        await new.commit_transaction()
        assert await values(log, T0) == [b"new"]
        assert await log.group_offsets("g") == {}

    with_log(body)


def test_what_is_delayed_never_lands_in_the_next_transaction() -> None:
    """Jepsen on Kafka before KIP-890: replay the bytes and the EndTxn of transaction 1."""

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        async with log.producer(transactional_id="x") as producer:
            broker = log._broker
            await producer.begin_transaction()
            await producer.send("t", b"one")
            stats = producer.stats()
            batch = broker.partitions.partition(T0).read(
                0, size_bytes_max=10_000, isolation="read_uncommitted"
            )
            await producer.commit_transaction()
            await producer.begin_transaction()
            await producer.send_batch("u", [b"two"])
            with pytest.raises(ProducerFencedError):
                broker.append(T0, batch.data, transactional_id="x")
            with pytest.raises(ProducerFencedError):
                await broker.transactions.end_txn("x", stats.producer_id, stats.epoch, commit=False)
            await producer.commit_transaction()
            assert producer.stats().epoch == stats.epoch + 2
        assert await values(log, T0, U0) == [b"one", b"two"]

    with_log(body)


def test_a_repeated_end_is_answered_and_does_nothing() -> None:
    async def body(log: EmbeddedLog) -> None:
        async with log.producer(transactional_id="x") as producer:
            await producer.begin_transaction()
            await producer.send("t", b"one")
            before = producer.stats()
            await producer.commit_transaction()
            coordinator = log._broker.transactions
            again = await coordinator.end_txn("x", before.producer_id, before.epoch, commit=True)
            assert again == (before.producer_id, before.epoch + 1)
            with pytest.raises(InvalidTxnStateError):  # but it cannot be turned round
                await coordinator.end_txn("x", before.producer_id, before.epoch, commit=False)
        assert await log.end_offsets([T0]) == {T0: 2}

    with_log(body)


@pytest.mark.parametrize("size_bytes", [0, 22, 23, 52, 60, 61])
def test_what_is_too_short_for_a_batch_is_refused_as_such(size_bytes: int) -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        with pytest.raises(CorruptRecordError):
            log._broker.append(T0, b"\xff" * size_bytes, transactional_id="x")

    with_log(body)


def test_epochs_are_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "EPOCH_MAX", 4)

    async def body(log: EmbeddedLog) -> None:
        seen = set()
        async with log.producer(transactional_id="x") as producer:
            for number in range(12):
                async with producer.transaction():
                    await producer.send("t", b"%d" % number)
                stats = producer.stats()
                assert (stats.producer_id, stats.epoch) not in seen
                assert stats.epoch < 4
                seen.add((stats.producer_id, stats.epoch))
            assert len({producer_id for producer_id, _ in seen}) > 2
        assert await values(log, T0) == [b"%d" % number for number in range(12)]

    with_log(body)


def test_time_out_aborts_and_fences() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        producer = log.producer(
            transactional_id="x", config={"transaction.timeout.ms": 5000, "linger.ms": 0}
        )
        await producer.begin_transaction()
        await producer.send_batch("t", [b"slow"])
        await settled()
        clock.advance(4999)
        await settled()
        assert log.stats().open_transactions == 1
        clock.advance(1)
        await settled()
        assert log.stats().open_transactions == 0
        assert await log.end_offsets([T0]) == {T0: 2}
        with pytest.raises(ProducerFencedError, match="timed out"):
            await producer.commit_transaction()
        assert await values(log, T0) == []
        async with log.producer(transactional_id="x") as successor, successor.transaction():
            await successor.send_batch("t", [b"next"])
        assert await values(log, T0) == [b"next"]

    with_log(body, clock=clock)


def test_a_failed_send_cannot_be_committed() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", config={"max.message.bytes": 1000})
        async with log.producer(transactional_id="x") as producer:
            await producer.begin_transaction()
            await producer.send_batch("t", [b"small"])
            with pytest.raises(RecordTooLargeError):
                await producer.send_batch("t", [b"." * 5000])
            for _ in range(2):
                with pytest.raises(RecordTooLargeError):
                    await producer.commit_transaction()
            await producer.abort_transaction()
            with pytest.raises(RecordTooLargeError):
                async with producer.transaction():
                    await producer.send_batch("t", [b"." * 5000])  # nothing else: nothing to abort
            async with producer.transaction():
                await producer.send_batch("t", [b"fine"])
        assert await values(log, T0) == [b"fine"]

    with_log(body)


def test_calls_in_the_wrong_state() -> None:
    async def body(log: EmbeddedLog) -> None:
        async with log.producer(transactional_id="x") as producer:
            for call in (
                producer.send("t", b""),
                producer.send_batch("t", [b""]),
                producer.commit_transaction(),
                producer.abort_transaction(),
                producer.send_offsets({T0: 1}, group="g"),
            ):
                with pytest.raises(InvalidTxnStateError, match="no transaction is open"):
                    await call
            await producer.begin_transaction()
            with pytest.raises(InvalidTxnStateError, match="open already"):
                await producer.begin_transaction()
            await producer.commit_transaction()  # nothing was sent: nothing to do
            assert "__transaction_state" in await log.topics()

    with_log(body)


def test_a_cancelled_commit_goes_on() -> None:
    async def body(log: EmbeddedLog) -> None:
        async with log.producer(transactional_id="x") as producer:
            for number in range(40):
                await producer.begin_transaction()
                await producer.send_batch("t", [b"%d" % number])
                await producer.send_offsets({T0: number}, group="g")
                committing = asyncio.ensure_future(producer.commit_transaction())
                for _ in range(number % 12):
                    await asyncio.sleep(0)
                committing.cancel()
                await asyncio.wait([committing])
                if producer.stats().in_transaction:
                    await producer._transaction.settle()
                if producer.stats().in_transaction:  # cancelled before it was under way
                    await producer.abort_transaction()
        found = [int(value) for value in await values(log, T0)]
        assert found == sorted(set(found))
        assert len(found) > 20
        assert (await log.group_offsets("g"))[T0].offset == found[-1]

    with_log(body)


def test_leaving_the_log_aborts_what_is_open() -> None:
    files = MemoryFiles()

    async def main() -> None:
        async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
            producer = log.producer(transactional_id="x")
            await producer.begin_transaction()
            await producer.send_batch("t", [b"open"])
        async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
            assert await values(log, T0) == []
            assert await log.end_offsets([T0]) == {T0: 2}

    asyncio.run(main())


def test_offsets_of_a_stale_generation_are_refused() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        async with log.producer(transactional_id="x") as producer:
            consumer = log.consumer("t", group="g", config=MANUAL)
            await consumer.poll(0)
            stale = consumer.group_metadata()
            await producer.begin_transaction()
            await producer.send_offsets({T0: 1}, group=stale)
            await producer.commit_transaction()
            await consumer.close()
            other = log.consumer("t", group="g", config=MANUAL)
            await other.poll(0)
            await producer.begin_transaction()
            with pytest.raises(UnknownMemberError):
                await producer.send_offsets({T0: 2}, group=stale)
            now = other.group_metadata()
            with pytest.raises(IllegalGenerationError):
                await producer.send_offsets(
                    {T0: 2}, group=ConsumerGroupMetadata("g", now.generation - 1, now.member_id)
                )
            await producer.abort_transaction()
        assert (await log.group_offsets("g"))[T0].offset == 1

    with_log(body)


def test_committed_waits_for_the_end_of_a_transaction() -> None:
    """Trap 8: who takes over a partition must not begin before what is being committed."""

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        await log.alter_group_offsets("g", {T0: 1})
        async with log.producer(transactional_id="x") as producer:
            for commit in (True, False):
                await producer.begin_transaction()
                await producer.send_offsets({T0: 2 if commit else 3}, group="g")
                async with log.consumer(group="g") as consumer:
                    asking = asyncio.ensure_future(consumer.committed([T0]))
                    await settled()
                    assert not asking.done()
                    await (producer.commit_transaction if commit else producer.abort_transaction)()
                    assert (await asking)[T0] == OffsetAndMetadata(2)

    with_log(body)


def test_a_topic_deleted_inside_a_transaction() -> None:
    async def body(log: EmbeddedLog) -> None:
        async with log.producer(transactional_id="x") as producer:
            with pytest.raises(UnknownTopicError, match="'t'"):
                async with producer.transaction():
                    await producer.send_batch("t", [b"gone"])
                    await producer.send_batch("u", [b"aborted"])
                    await log.delete_topic("t")
            async with producer.transaction():
                await producer.send_batch("t", [b"gone"])
                await producer.flush()
                await producer.send_batch("u", [b"stays"])
                await log.delete_topic("t")
            assert await values(log, U0) == [b"stays"]

    with_log(body)


def test_a_topic_made_again_while_a_transaction_wrote_to_it() -> None:
    """The new topic is no failed disk, and has none of the records."""

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        async with log.producer(transactional_id="app") as producer:
            await producer.begin_transaction()
            await producer.send_batch("t", [b"gone"])
            await log.delete_topic("t")
            await log.create_topic("t")
            with pytest.raises(UnknownTopicError, match="created again"):
                await producer.commit_transaction()
            await producer.abort_transaction()
            async with producer.transaction():
                await producer.send("t", b"new")
        assert await values(log, T0) == [b"new"]

    with_log(body)
