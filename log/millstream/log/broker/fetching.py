"""Reading several partitions for one answer, and waiting until there is something to read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from millstream.log.errors import LogError
from millstream.log.interface import Isolation
from millstream.log.record import TopicPartition
from millstream.log.storage.results import ReadResult

from .waiting import WaitingFetches

if TYPE_CHECKING:
    from .partitions import Fetched, FetchRequest

__all__ = ["Room", "fetch"]

Room = Callable[[], Awaitable[int]]
"""Waits for room for what is read; answers how many bytes, 0 for none."""
Answer = dict[TopicPartition, "Fetched"]
Read = Callable[["FetchRequest", Isolation], "Fetched"]
_ONLY_OFFSETS = -1


async def fetch(
    read: Read,
    check_open: Callable[[], None],
    waiting: WaitingFetches,
    requests: Sequence[FetchRequest],
    *,
    isolation: Isolation,
    wait_ms_max: int,
    size_bytes_min: int,
    size_bytes_max: int,
    room: Room | None,
) -> Answer:
    """See `Partitions.fetch`. What was read and does not suffice is not kept while it waits."""
    loop = asyncio.get_running_loop()
    end = loop.time() + wait_ms_max / 1000
    while True:
        limit = size_bytes_max if room is None else min(size_bytes_max, await room())
        check_open()
        if room is not None and not limit and size_bytes_max:
            return {
                each.topic_partition: read(each._replace(size_bytes_max=_ONLY_OFFSETS), isolation)
                for each in requests
            }
        answer, size_bytes, is_full = _read_all(read, requests, isolation, limit)
        left_s = end - loop.time()
        failed = any(isinstance(fetched, LogError) for fetched in answer.values())
        cut_short = size_bytes > 0 and limit < size_bytes_max
        missing_bytes = min(size_bytes_min, size_bytes_max) - size_bytes
        if failed or missing_bytes <= 0 or cut_short or is_full or left_s <= 0:
            return answer
        if not size_bytes:
            await waiting.wait(list(answer), left_s)
            continue
        rest = [_behind(each, answer[each.topic_partition], isolation) for each in requests]
        answer.clear()
        await _until_enough(read, waiting, rest, isolation, missing_bytes, end)


def _behind(request: FetchRequest, fetched: Fetched, isolation: Isolation) -> FetchRequest:
    """What is left of a request for which everything was read that could be."""
    assert isinstance(fetched, ReadResult)
    limit = fetched.last_stable_offset if isolation == "read_committed" else fetched.high_watermark
    return request._replace(
        offset=max(request.offset, limit),
        size_bytes_max=max(request.size_bytes_max - len(fetched.data), 0),
    )


async def _until_enough(
    read: Read,
    waiting: WaitingFetches,
    rest: list[FetchRequest],
    isolation: Isolation,
    missing_bytes: int,
    end: float,
) -> None:
    """Wait until there are so many bytes more, or it is of no use to wait. Only what comes is read
    meanwhile, to be counted: all of it, again for each batch, may be 55 MB, for many who wait."""
    loop = asyncio.get_running_loop()
    while missing_bytes > 0 and (left_s := end - loop.time()) > 0:
        await waiting.wait([each.topic_partition for each in rest], left_s)
        for i, request in enumerate(rest):
            fetched = read(request, isolation)
            if isinstance(fetched, LogError) or fetched.has_more:
                return
            if len(fetched.data) > request.size_bytes_max:
                return  # with it there is more than was asked for of this partition
            missing_bytes -= len(fetched.data)
            rest[i] = _behind(request, fetched, isolation)
            del fetched  # not kept while it waits


def _read_all(
    read: Read, requests: Sequence[FetchRequest], isolation: Isolation, size_bytes_max: int
) -> tuple[Answer, int, bool]:
    """Read partitions in order while there is room; how many bytes that were, and whether some
    partition has more than it was asked for, so that waiting would add nothing of it."""
    answer: Answer = {}
    size_bytes, is_full, has_room = 0, False, True
    for request in requests:
        left_bytes = max(size_bytes_max - size_bytes, 0)
        limit = min(request.size_bytes_max, left_bytes) if has_room else _ONLY_OFFSETS
        fetched = read(request._replace(size_bytes_max=limit), isolation)
        if isinstance(fetched, ReadResult):
            is_full = is_full or fetched.has_more
            if size_bytes and len(fetched.data) > left_bytes:
                fetched = fetched._replace(data=b"", aborted=())
                is_full, has_room = True, False
            size_bytes += len(fetched.data)
            has_room = has_room and (not size_bytes or size_bytes < size_bytes_max)
        answer[request.topic_partition] = fetched
    return answer, size_bytes, is_full
