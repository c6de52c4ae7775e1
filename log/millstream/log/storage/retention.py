"""Which segments are too old, or too much: decided from what is known of them, without reading one.

    age     the time of a segment's latest record is more than retention.ms ago. A record with a
            time to come keeps its segment. Where no record has a time, that of the file counts.
    size    without the segment the partition still has retention.bytes.

Always the oldest first, up to the first that stays, and never one that holds an offset at or above
the high watermark. The newest segment may be among them, unless it is empty.

Source: Kafka's topic settings retention.ms, retention.bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from millstream.log.config import TopicConfig

__all__ = ["Aged", "count_expired"]


class Aged(Protocol):
    """What is known of a segment. `largest_timestamp` is -1 when no record has a time."""

    @property
    def base_offset(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def largest_timestamp(self) -> int: ...


def count_expired(
    segments: Sequence[Aged],
    config: TopicConfig,
    high_watermark: int,
    log_end_offset: int,
    now_ms: int,
    modified_ms: Callable[[int], int],
) -> int:
    """How many of the oldest segments go.

    Args:
        segments: all of the partition, in order.
        modified_ms: when the file of the segment with this index changed; asked when no record of
            the segment has a time.
    """
    if not config.deletes:
        return 0
    ends = [*(segment.base_offset for segment in segments[1:]), log_end_offset]
    deletable = 0
    while deletable < len(segments) and ends[deletable] <= high_watermark:
        deletable += 1
    if deletable == len(segments) and not segments[-1].size_bytes:
        deletable -= 1
    count = _count_over_size(segments, config.retention_bytes, deletable)
    if config.retention_ms < 0:
        return count
    while count < deletable:
        time = segments[count].largest_timestamp
        if now_ms - (time if time >= 0 else modified_ms(count)) <= config.retention_ms:
            break
        count += 1
    return count


def _count_over_size(segments: Sequence[Aged], retention_bytes: int, deletable: int) -> int:
    if retention_bytes < 0:
        return 0
    excess_bytes = sum(segment.size_bytes for segment in segments) - retention_bytes
    count = 0
    while count < deletable and excess_bytes >= segments[count].size_bytes:
        excess_bytes -= segments[count].size_bytes
        count += 1
    return count
