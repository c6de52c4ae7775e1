"""What an operator does with transactions: list, describe, find those that hang, terminate; and
what the coordinator does by itself with ids that nobody uses."""

from __future__ import annotations

import asyncio
import threading

import pytest

from millstream.log import (
    ConfigError,
    InvalidProducerIdMappingError,
    ProducerFencedError,
    StorageError,
    TopicPartition,
    UnknownTopicError,
    UnknownTransactionalIdError,
)
from millstream.log.broker.producer_ids import ProducerIds
from millstream.log.broker.txn_coordinator import TransactionCoordinator
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log_on
from millstream.log.record import ProducerDescription
from millstream.log.stats import TransactionsStats
from millstream.log.storage.layout import PRODUCER_ID_FILE
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.testing.fake_clock import FakeClock
from millstream.log.testing.sim_files import Operation, SimFiles, disk_error
from shared.logs import settled, values, with_log

T0, U0 = TopicPartition("t", 0), TopicPartition("u", 0)
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
CONFIG: dict[str, str | int] = {"flush.threads": 0}


async def open_one(log: EmbeddedLog, transactional_id: str = "x", *topics: str):
    """A producer with an open transaction."""
    producer = log.producer(transactional_id=transactional_id)
    await producer.begin_transaction()
    for topic in topics or ("t",):
        await producer.send_batch(topic, [b"open"])
    return producer


def test_list_and_describe() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        assert await log.transactions() == []
        began_ms = clock.wall_ms()
        await open_one(log, "b", "t", "u")
        async with log.producer(transactional_id="a") as done, done.transaction():
            await done.send_batch("t", [b"done"])
        clock.advance(2_000)
        assert [each.transactional_id for each in await log.transactions()] == ["a", "b"]
        (ongoing,) = await log.transactions(states=["Ongoing"])
        assert (ongoing.transactional_id, ongoing.state) == ("b", "Ongoing")
        assert await log.transactions(producer_ids=[ongoing.producer_id]) == [ongoing]
        assert await log.transactions(open_longer_than_ms=1_999) == [ongoing]
        assert await log.transactions(open_longer_than_ms=2_000) == []
        assert await log.transactions(states=["Ongoing"], producer_ids=[-5]) == []
        with pytest.raises(ConfigError, match="CompleteCommit"):
            await log.transactions(states=["ongoing"])
        found = await log.describe_transaction("b")
        assert found.state == "Ongoing"
        assert found.start_ms == began_ms
        assert found.timeout_ms == 60_000
        assert found.partitions == (T0, U0)
        assert (found.producer_id, found.producer_epoch) == (ongoing.producer_id, 0)
        found = await log.describe_transaction("a")
        assert (found.state, found.start_ms, found.partitions) == ("CompleteCommit", None, ())
        assert found.producer_epoch == 1
        with pytest.raises(UnknownTransactionalIdError, match=r"log\.transactions"):
            await log.describe_transaction("c")
        assert UnknownTransactionalIdError.kafka_code == 105

    with_log(body, clock=clock)


def test_terminate_one_whose_producer_is_alive() -> None:
    async def body(log: EmbeddedLog) -> None:
        producer = await open_one(log, "x", "t", "u")
        await producer.send_offsets({T0: 5}, group="g")
        assert await log.terminate_transaction("x") is True
        assert (await log.describe_transaction("x")).state == "CompleteAbort"
        assert await log.end_offsets([T0]) == {T0: 2}  # nothing holds readers back
        for call in (
            producer.send_batch("t", [b"zombie"]),
            producer.commit_transaction(),
            producer.abort_transaction(),
        ):
            with pytest.raises(ProducerFencedError, match="terminated"):
                await call
        await producer.close()
        async with log.producer(transactional_id="x") as successor, successor.transaction():
            await successor.send_batch("t", [b"next"])
        assert await values(log, T0, U0) == [b"next"]
        assert await log.group_offsets("g") == {}

    with_log(body)


def test_a_terminated_producer_cannot_abort_into_the_next_epoch() -> None:
    """Its abort looks like a repetition: the epoch is one below. It must be fenced all the same."""

    async def body(log: EmbeddedLog) -> None:
        producer = await open_one(log)
        await log.terminate_transaction("x")
        with pytest.raises(ProducerFencedError):
            await producer.abort_transaction()
        with pytest.raises(ProducerFencedError):
            await producer.begin_transaction()

    with_log(body)


def test_terminate_one_whose_producer_is_gone() -> None:
    async def body(log: EmbeddedLog) -> None:
        await open_one(log)  # nobody keeps it
        assert await log.terminate_transaction("x") is True
        assert await log.end_offsets([T0]) == {T0: 2}
        assert await values(log, T0) == []

    with_log(body)


def test_terminate_without_a_transaction_harms_nobody() -> None:
    async def body(log: EmbeddedLog) -> None:
        with pytest.raises(UnknownTransactionalIdError):
            await log.terminate_transaction("x")
        async with log.producer(transactional_id="x") as producer:
            for number in range(2):
                assert await log.terminate_transaction("x") is False
                async with producer.transaction():
                    await producer.send_batch("t", [b"%d" % number])
        assert await values(log, T0) == [b"0", b"1"]

    with_log(body)


def test_terminate_while_it_is_being_committed() -> None:
    """What is decided stays decided."""

    async def body(log: EmbeddedLog) -> None:
        producer = await open_one(log)
        for turns in range(1, 20):
            committing = asyncio.ensure_future(producer.commit_transaction())
            for _ in range(turns):
                await asyncio.sleep(0)
            was_open = await log.terminate_transaction("x")
            assert (await log.describe_transaction("x")).state.startswith("Complete")
            (error,) = await asyncio.gather(committing, return_exceptions=True)
            assert (error is None) is not was_open
            if was_open:
                assert isinstance(error, ProducerFencedError)
                producer = log.producer(transactional_id="x")
            await producer.begin_transaction()
            await producer.send_batch("t", [b"open"])
        await producer.abort_transaction()

    with_log(body, config={"flush.threads": 2})


def test_describe_producers() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=2)
        async with log.producer() as plain:
            await plain.send_batch("t", [b"1", b"2"], partition=0)
            await plain.flush()
            plain_id = plain.stats().producer_id
        producer = log.producer(transactional_id="x")
        async with producer.transaction():
            await producer.send_batch("t", [b"3"], partition=0)
        await producer.begin_transaction()
        await producer.send_batch("t", [b"4", b"5", b"6"], partition=0)
        stats = producer.stats()
        now_ms = clock.wall_ms()
        found = await log.describe_producers([T0, TopicPartition("t", 1)])
        assert found == {
            T0: [
                ProducerDescription(plain_id, 0, 1, now_ms, None, None),
                ProducerDescription(stats.producer_id, 1, 2, now_ms, 0, 4),
            ],
            TopicPartition("t", 1): [],
        }
        with pytest.raises(UnknownTopicError):
            await log.describe_producers([TopicPartition("t", 2)])

    with_log(body, clock=clock)


def test_hanging_transactions() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=2)
        slow = log.producer(transactional_id="slow", config={"transaction.timeout.ms": 900_000})
        await slow.begin_transaction()
        await slow.send_batch("t", [b"s"], partition=1)
        clock.advance(10_000)
        later = await open_one(log, "later", "u")
        clock.advance(5_000)
        await slow.send_batch("t", [b"s"], partition=0)  # how long it is open counts, not this
        assert await log.hanging_transactions() == []
        found = await log.hanging_transactions(open_longer_than_ms=1_000)
        assert [(each.topic_partition, each.transactional_id, each.open_ms) for each in found] == [
            (TopicPartition("t", 0), "slow", 15_000),
            (TopicPartition("t", 1), "slow", 15_000),
            (U0, "later", 5_000),
        ]
        assert [each.start_offset for each in found] == [0, 0, 0]
        assert len(await log.hanging_transactions([U0], open_longer_than_ms=4_999)) == 1
        assert await log.hanging_transactions([U0], open_longer_than_ms=5_000) == []
        await log.terminate_transaction(found[0].transactional_id or "")
        assert len(await log.hanging_transactions(open_longer_than_ms=0)) == 1
        await later.abort_transaction()
        assert await log.hanging_transactions(open_longer_than_ms=0) == []

    with_log(body, clock=clock)


def test_a_hanging_transaction_of_nobody() -> None:
    """Markers that never came, from a coordinator that knows nothing of it."""
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        producer = await open_one(log)
        stats = producer.stats()
        log._broker.transactions.table._by_id.clear()
        clock.advance(60_001)
        (found,) = await log.hanging_transactions(open_longer_than_ms=60_000)
        assert (found.transactional_id, found.producer_id) == (None, stats.producer_id)
        assert found.open_ms == 60_001

    with_log(body, clock=clock)


def test_an_idle_id_is_forgotten() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", config={"retention.ms": -1})
        async with log.producer(transactional_id="x") as producer:
            async with producer.transaction():
                await producer.send_batch("t", [b"1"])
            old = producer.stats()
        clock.advance(7 * DAY_MS - 1)
        await settled()
        assert len(await log.transactions()) == 1
        clock.advance(HOUR_MS)
        await settled()
        assert await log.transactions() == []
        assert log._broker.transactions.stats().expired == 1
        with pytest.raises(UnknownTransactionalIdError):
            await log.describe_transaction("x")
        with pytest.raises(InvalidProducerIdMappingError, match=r"transactional\.id\.expiration"):
            await log._broker.transactions.end_txn("x", old.producer_id, old.epoch, commit=True)
        async with log.producer(transactional_id="x") as producer, producer.transaction():
            await producer.send_batch("t", [b"2"])
            assert producer.stats().producer_id != old.producer_id
        assert await values(log, T0) == [b"1", b"2"]

    with_log(body, clock=clock)


def test_an_id_in_use_is_kept() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", config={"retention.ms": -1})
        idle = log.producer(transactional_id="idle")
        async with idle.transaction():
            await idle.send_batch("t", [b"1"])
        other = log.producer(transactional_id="idle2")
        async with other.transaction():
            await other.send_batch("t", [b"2"])
        await other.close()
        for _ in range(30):
            clock.advance(DAY_MS)
            await settled()
        assert [each.transactional_id for each in await log.transactions()] == ["idle"]
        async with idle.transaction():  # its producer goes on after a month
            await idle.send_batch("t", [b"3"])
        assert await values(log, T0) == [b"1", b"2", b"3"]
        await idle.close()
        clock.advance(8 * DAY_MS)
        await settled()
        assert await log.transactions() == []

    with_log(body, clock=clock)


def test_an_open_transaction_is_no_idle_id() -> None:
    clock = FakeClock()
    config = {"transactional.id.expiration.ms": 1_000, **CONFIG}

    async def body(log: EmbeddedLog) -> None:
        log._broker.transactions.expiry.next_look_ms = 0
        producer = await open_one(log)
        log._broker.transactions.expiry.release("x")  # as if its producer were on a network
        clock.advance(30_000)
        log._broker.transactions.expiry.next_look_ms = 0
        log._broker._wake.set()
        await settled()
        assert (await log.describe_transaction("x")).state == "Ongoing"
        log._broker.transactions.expiry.hold("x")
        await producer.commit_transaction()
        assert await values(log, T0) == [b"open"]

    with_log(body, clock=clock, config=config)


@pytest.mark.parametrize("lost", [False, True], ids=["tombstone kept", "tombstone lost"])
def test_expiry_and_restart(lost: bool) -> None:
    clock = FakeClock()
    files = SimFiles()

    async def session(files: SimFiles, *, wait_ms: int = 0) -> list[str]:
        async with open_log_on(files, "log", config=CONFIG, clock=clock) as log:
            found = [each.transactional_id for each in await log.transactions()]
            if wait_ms:
                clock.advance(wait_ms)
                await settled()
                assert await log.transactions() == []
            return found

    async def use() -> None:
        async with open_log_on(files, "log", config=CONFIG, clock=clock) as log:
            for name in ("x", "y"):
                async with log.producer(transactional_id=name) as producer, producer.transaction():
                    await producer.send_batch("t", [b"1"])

    asyncio.run(use())
    before = files.after_crash("kept", "kept")
    assert asyncio.run(session(files, wait_ms=8 * DAY_MS)) == ["x", "y"]
    # While the log is closed ids grow old, too: without the tombstone they go when it is opened.
    again = before if lost else files
    assert asyncio.run(session(again)) == []
    assert asyncio.run(session(again)) == []


def test_a_thousand_ids_at_a_time() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        async with log.producer(transactional_id="first"):
            pass
        table = log._broker.transactions.table
        first = table.get("first")
        assert first is not None
        for number in range(2_500):
            table.restore(first._replace(transactional_id=f"id{number}"))
        clock.advance(8 * DAY_MS)
        for _ in range(5):
            await settled()
        assert await log.transactions() == []
        state = log._broker.partitions.partition(TopicPartition("__transaction_state", 0))
        assert state.log_end_offset == 1 + 2_501

    with_log(body, clock=clock)


def test_a_time_out_while_producer_ids_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking the next block suspends the time-out; a commit that begins meanwhile must not be
    aborted under its feet."""
    clock = FakeClock()
    may_go_on = threading.Event()
    fill = ProducerIds.fill

    def slow_fill(self: ProducerIds) -> None:
        assert may_go_on.wait(10)
        fill(self)

    async def body(log: EmbeddedLog) -> None:
        producer = await open_one(log)
        await producer.flush()
        coordinator, stats = log._broker.transactions, producer.stats()
        coordinator._producer_ids._next = coordinator._producer_ids._block_end
        monkeypatch.setattr(ProducerIds, "fill", slow_fill)
        timing_out = asyncio.ensure_future(coordinator.let_time_pass(60_000))
        await settled()
        committing = asyncio.ensure_future(producer.commit_transaction())
        await settled()
        may_go_on.set()
        await timing_out
        await committing
        assert producer.stats().epoch == stats.epoch + 1
        assert coordinator.stats()[:4] == (1, 0, 0, 0)
        assert await values(log, T0) == [b"open"]

    with_log(body, clock=clock, config={"flush.threads": 2})


def test_producers_that_start_together_share_one_block_of_ids() -> None:
    files = MemoryFiles()

    async def main() -> None:
        async with open_log_on(files, "log", config={"flush.threads": 2}) as log:
            producers = [log.producer() for _ in range(50)]
            await asyncio.gather(*(each.__aenter__() for each in producers))
            assert {each.stats().producer_id for each in producers} == set(range(50))

    asyncio.run(main())
    assert files.read_whole(f"log/{PRODUCER_ID_FILE}") == b"1000\n"


def test_a_transaction_that_began_while_others_timed_out_is_not_aborted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its id was late when the time-outs were looked at; that transaction was committed since."""
    clock = FakeClock()
    may_go_on = asyncio.Event()
    reserve = TransactionCoordinator._reserve_producer_id

    async def slow_at_first(self: TransactionCoordinator) -> None:
        monkeypatch.setattr(TransactionCoordinator, "_reserve_producer_id", reserve)
        await may_go_on.wait()

    async def body(log: EmbeddedLog) -> None:
        await open_one(log, "a")
        alive = await open_one(log, "b")
        monkeypatch.setattr(TransactionCoordinator, "_reserve_producer_id", slow_at_first)
        clock.advance(60_000)
        await settled()  # the time-out of "a" has begun and waits for the disk
        await alive.commit_transaction()
        await alive.begin_transaction()
        await alive.send_batch("t", [b"next"])
        may_go_on.set()
        await settled()
        await alive.commit_transaction()
        assert await values(log, T0) == [b"open", b"next"]
        assert log._broker.transactions.stats().timed_out == 1

    with_log(body, clock=clock)


def test_a_commit_that_failed_before_the_commit_point_still_times_out() -> None:
    """Its time was over while it was being tried: nobody looks again unless told to."""
    clock = FakeClock()
    files = SimFiles()

    def fail(operation: Operation) -> OSError | None:
        due = operation.kind == "fsync" and "/t-0/" in operation.path
        return disk_error("EIO", operation.path) if due else None

    async def main() -> None:
        async with open_log_on(files, "log", config=CONFIG, clock=clock) as log:
            await log.create_topic("t")
            producer = log.producer(
                transactional_id="x", config={"transaction.timeout.ms": 5_000, "linger.ms": 0}
            )
            await producer.begin_transaction()
            await producer.send_batch("u", [b"1"])
            await producer.send_batch("t", [b"1"])
            files.on_operation = fail
            coordinator = log._broker.transactions
            stats = producer.stats()
            ending = coordinator.end_txn("x", stats.producer_id, stats.epoch, commit=True)
            clock.advance(5_000)
            await coordinator.let_time_pass(clock.monotonic_ms())
            with pytest.raises(StorageError):
                await ending
            await settled()
            found.append((coordinator.stats(), await values(log, U0)))

    found: list[tuple[TransactionsStats, list[bytes | None]]] = []
    with pytest.raises(StorageError):  # from closing the log, whatever happened in it
        asyncio.run(main())
    ((stats, readable),) = found
    assert readable == []
    assert (stats.timed_out, stats.open) == (1, 0)
    assert stats.stuck == 1  # no marker can be written to t
