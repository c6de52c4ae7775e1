"""What a partition answers to an append and to a read."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["AppendInfo", "ReadResult"]


class AppendInfo(NamedTuple):
    """Where a batch lies.

    It is acknowledged once the high watermark is above `last_offset`; that holds for a `duplicate`
    of one appended before, too. `timestamp` is the broker's, -1 under CreateTime.
    """

    base_offset: int
    last_offset: int
    timestamp: int
    duplicate: bool


class ReadResult(NamedTuple):
    """Whole batches as stored; the first may begin before the offset asked for.

    `aborted` holds (producer id, first offset) of each transaction that a read_committed reader
    leaves out, by first offset (Fetch API v4+). `has_more`: behind these batches others can be read
    already.
    """

    data: bytes
    aborted: tuple[tuple[int, int], ...]
    high_watermark: int
    last_stable_offset: int
    log_start_offset: int
    has_more: bool
