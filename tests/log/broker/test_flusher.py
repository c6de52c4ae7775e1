"""Group commit: the disk works while those who were told write on."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

from millstream.log import TopicPartition
from millstream.log.format.codec import encode_batch
from millstream.log.open import open_log_on
from millstream.log.testing.sim_files import SimFiles
from millstream.log.testing.sim_loop import SimClock, SimDiskThreads, run
from shared.logs import settled

T0 = TopicPartition("t", 0)


def test_the_next_fsync_runs_when_those_who_waited_for_the_last_go_on() -> None:
    async def main() -> None:
        async with open_log_on(SimFiles(), "log", clock=SimClock(), threads=SimDiskThreads) as log:
            await log.create_topic("t")
            partitions = log._broker.partitions

            def written() -> asyncio.Future[None]:
                info = partitions.append(T0, encode_batch([None], [b"x"], [0], None, 0, 1))
                return partitions.durable(T0, info.last_offset + 1)

            first = written()
            await settled()
            assert partitions.flusher.stats().running == 1
            second = written()
            await first
            assert not second.done()
            assert partitions.flusher.stats().running == 1
            await second

    for seed in range(10):
        run(main, seed)


def test_an_unforeseen_error_as_a_flush_starts_keeps_nobody_from_closing() -> None:
    """Whoever waits for the flushes to settle looks again, whatever became of one of them."""

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: seen.append(context)
        )
        async with open_log_on(SimFiles(), "log", clock=SimClock(), threads=SimDiskThreads) as log:
            await log.create_topic("t")
            partition = log._broker.partitions.partition(T0)
            partition.append(encode_batch([None], [b"x"], [0], None, 0, 1), 0)
            with patch.object(partition, "start_flush", side_effect=ZeroDivisionError):
                log._broker.partitions.flusher.want(partition)
                await asyncio.wait_for(log._broker.partitions.flusher.settle(), 10)
        assert len(seen) == 1

    seen: list[object] = []
    run(main, 0)
