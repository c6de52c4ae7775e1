"""What the log does on time goes on when the disk fails, and does not ask it without end."""

from __future__ import annotations

import asyncio

import pytest

from millstream.log import TopicPartition
from millstream.log.broker import producer_ids
from millstream.log.broker.group_coordinator import GroupCoordinator
from millstream.log.broker.txn_log import TransactionLog
from millstream.log.broker.txn_records import TransactionMetadata
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.storage.partition import Partition
from millstream.log.testing.fake_clock import FakeClock
from millstream.log.testing.sim_files import disk_error
from shared.error_sweep import SEED, CountedFiles, opened, run_strictly
from shared.logs import settled, with_log

ONE = TopicPartition("one", 0)


def test_an_abort_that_fails_is_tried_again_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer_ids, "BLOCK_SIZE_COUNT", 1)  # each needs the disk
    files, tries = CountedFiles(on_operation=None), []

    def fail(operation):
        if "producer-id" not in operation.path:
            return None
        tries.append(operation)
        return disk_error("EIO", operation.path)

    async def main() -> None:
        async with opened(files) as log:
            await log.create_topic("one")
            producer = log.producer(
                transactional_id="late", config={"transaction.timeout.ms": 5_000}
            )
            await producer.begin_transaction()
            await producer.send_batch("one", [b"never seen"])
            files.on_operation = fail
            await asyncio.sleep(60)
            assert log.stats().open_transactions == 1
            assert 10 < len(tries) < 60
            async with log.consumer("one", group="readers") as consumer:
                await consumer.poll(100)
                assert consumer.assignment() == {ONE}, "groups wait for the disk too"
            files.on_operation = None
            await asyncio.sleep(5)
            assert log.stats().open_transactions == 0
            assert (await log.end_offsets([ONE]))[ONE] == 2

    run_strictly(main, SEED)


def test_time_outs_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do groups, for more than the slowest of them: whoever opens many would stop the clock of
    all."""
    clock = FakeClock()
    may_go_on = asyncio.Event()
    write_durably = TransactionLog.write_durably

    async def slow_for_a(self: TransactionLog, metadata: TransactionMetadata) -> None:
        if metadata.transactional_id == "a":
            await may_go_on.wait()
        await write_durably(self, metadata)

    async def body(log: EmbeddedLog) -> None:
        for name in "abc":
            producer = log.producer(transactional_id=name)
            await producer.begin_transaction()
            await producer.send_batch("one", [b"open"])
        monkeypatch.setattr(TransactionLog, "write_durably", slow_for_a)
        clock.advance(60_000)
        await settled()
        stats = log._broker.transactions.stats()
        may_go_on.set()  # closing the log would wait for it
        assert (stats.timed_out, stats.aborted, stats.ending) == (3, 2, 1)
        await settled()
        assert log._broker.transactions.stats().aborted == 3

    with_log(body, clock=clock)


@pytest.mark.parametrize(
    ("owner", "work", "name"),
    [
        (GroupCoordinator, "let_time_pass", "timed work"),
        (Partition, "apply_retention", "cleaner"),
    ],
)
def test_background_work_that_a_defect_ended_is_told_of_at_once(
    owner: type, work: str, name: str, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    """Whoever closes the log gets the error; that may be weeks later."""

    def defect(*_: object) -> None:
        raise RuntimeError("a defect")

    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("one")
        monkeypatch.setattr(owner, work, defect)
        clock.advance(300_000)
        await settled()
        told.append(caplog.text)

    told: list[str] = []
    with pytest.raises(RuntimeError, match="a defect"):
        with_log(body, clock=clock)
    assert f"The log's {name} has ended" in told[0]
    assert "a defect" in told[0]
