"""What the log does on time goes on when the disk fails, and does not ask it without end."""

from __future__ import annotations

import asyncio

import pytest

from millstream.log import TopicPartition
from millstream.log.broker import producer_ids
from millstream.log.testing.sim_files import disk_error
from shared.error_sweep import SEED, CountedFiles, opened, run_strictly

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
