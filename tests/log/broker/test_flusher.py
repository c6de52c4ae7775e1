"""Group commit: the disk works while those who were told write on."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from millstream.log import StorageError, TopicPartition
from millstream.log.broker.partitions import Partitions
from millstream.log.format.codec import encode_batch
from millstream.log.open import open_log_on
from millstream.log.testing.sim_files import SimFiles
from millstream.log.testing.sim_loop import SimClock, SimDiskThreads, run
from shared.logs import settled

T0 = TopicPartition("t", 0)


def written(partitions: Partitions, to: TopicPartition) -> asyncio.Future[None]:
    """One record more; ends when it is durable."""
    info = partitions.append(to, encode_batch([None], [b"x"], [0], None, 0, 1))
    return partitions.durable(to, info.last_offset + 1)


def test_the_next_fsync_runs_when_those_who_waited_for_the_last_go_on() -> None:
    async def main() -> None:
        async with open_log_on(SimFiles(), "log", clock=SimClock(), threads=SimDiskThreads) as log:
            await log.create_topic("t")
            partitions = log._broker.partitions

            first = written(partitions, T0)
            await settled()
            assert partitions.flusher.stats().running == 1
            second = written(partitions, T0)
            await first
            assert not second.done()
            assert partitions.flusher.stats().running == 1
            await second

    for seed in range(10):
        run(main, seed)


def test_an_unforeseen_error_is_told_and_keeps_no_other_partition_waiting() -> None:
    seen: list[BaseException] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: seen.append(context["exception"])
        )
        async with open_log_on(SimFiles(), "log", clock=SimClock(), threads=SimDiskThreads) as log:
            await log.create_topic("t", partitions=2)
            partitions = log._broker.partitions
            with patch.object(
                partitions.partition(T0), "start_flush", side_effect=ZeroDivisionError
            ):
                waiting = [written(partitions, TopicPartition("t", number)) for number in range(2)]
                await asyncio.wait_for(partitions.flusher.settle(), 10)
            with pytest.raises(StorageError, match=r"t-0: .*ZeroDivisionError.*open the log"):
                await waiting[0]
            await waiting[1]
        assert [type(each) for each in seen] == [ZeroDivisionError]

    run(main, 0)
