"""Which segments retention takes: by age, by size, never too many."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.log.config import TopicConfig
from millstream.log.storage.retention import count_expired


class Facts(NamedTuple):
    """A segment as retention sees it, and when its file changed."""

    base_offset: int
    size_bytes: int
    largest_timestamp: int
    modified_ms: int = 0


def expired(
    segments: list[Facts],
    config: TopicConfig,
    *,
    end: int,
    high_watermark: int | None = None,
    now_ms: int = 10_000,
) -> int:
    return count_expired(
        segments,
        config,
        end if high_watermark is None else high_watermark,
        end,
        now_ms,
        lambda i: segments[i].modified_ms,
    )


def sized(*sizes: int) -> list[Facts]:
    return [Facts(i * 10, size, 10_000) for i, size in enumerate(sizes)]


def timed(*times: int) -> list[Facts]:
    return [Facts(i * 10, 100, time) for i, time in enumerate(times)]


@pytest.mark.parametrize(
    ("retention_bytes", "count"),
    # The log has 1000 bytes: 300 (0), 300 (10), 300 (20), and 100 in the active segment.
    [
        (-1, 0),
        (1000, 0),
        (701, 0),
        (700, 1),
        (401, 1),
        (400, 2),
        (101, 2),
        (100, 3),
        (1, 3),
        (0, 4),
    ],
)
def test_by_size_never_below_the_limit(retention_bytes: int, count: int) -> None:
    config = TopicConfig(retention_ms=-1, retention_bytes=retention_bytes)
    assert expired(sized(300, 300, 300, 100), config, end=40) == count


@pytest.mark.parametrize(
    ("times", "count"),
    [
        ((1, 2, 3), 3),
        ((8999, 9000, 9001), 1),  # exactly retention.ms ago stays
        ((8999, 9500, 1), 1),  # the first that stays keeps what follows
        ((20_000, 1, 1), 0),  # a time to come pins its segment
        ((9000,), 0),
    ],
)
def test_by_time_up_to_the_first_that_stays(times: tuple[int, ...], count: int) -> None:
    assert expired(timed(*times), TopicConfig(retention_ms=1000), end=30) == count


def test_without_times_the_files_time_counts() -> None:
    segments = [Facts(0, 10, -1, 8_999), Facts(10, 10, -1, 9_000), Facts(20, 10, -1, 1)]
    assert expired(segments, TopicConfig(retention_ms=1000), end=30) == 1


def test_zero_is_a_time() -> None:
    assert expired([Facts(0, 10, 0, 10_000)], TopicConfig(retention_ms=1000), end=30) == 1


@pytest.mark.parametrize(
    ("high_watermark", "count"), [(0, 0), (9, 0), (10, 1), (29, 2), (30, 3), (35, 3), (40, 4)]
)
def test_never_past_the_high_watermark(high_watermark: int, count: int) -> None:
    segments = timed(1, 1, 1, 1)
    by_time = TopicConfig(retention_ms=0)
    by_size = TopicConfig(retention_ms=-1, retention_bytes=0)
    for config in (by_time, by_size):
        assert expired(segments, config, end=40, high_watermark=high_watermark) == count


def test_an_empty_active_segment_stays() -> None:
    segments = [Facts(0, 10, 1), Facts(10, 0, -1)]
    assert expired(segments, TopicConfig(retention_ms=0, retention_bytes=0), end=10) == 1
    assert expired(segments[1:], TopicConfig(retention_ms=0, retention_bytes=0), end=10) == 0


@pytest.mark.parametrize("policy", [("compact",), ()])
def test_only_under_delete(policy: tuple[str, ...]) -> None:
    config = TopicConfig(retention_ms=0, retention_bytes=0, cleanup_policy=policy)
    assert expired(timed(1, 1), config, end=20) == 0
    both = replace(config, cleanup_policy=("compact", "delete"))
    assert expired(timed(1, 1), both, end=20) == 2


@st.composite
def partitions_of_facts(draw: st.DrawFn) -> tuple[list[Facts], int, int]:
    """Segments, the high watermark, the log end offset."""
    segments, base = [], draw(st.integers(0, 5))
    for _ in range(draw(st.integers(0, 6))):
        size, time = draw(st.integers(1, 50)), draw(st.integers(-1, 100))
        segments.append(Facts(base, size, time, draw(st.integers(0, 100))))
        base += draw(st.integers(1, 10))
    empty = draw(st.booleans())
    segments.append(Facts(base, 0 if empty else draw(st.integers(1, 50)), -1 if empty else 60))
    end = base if empty else base + draw(st.integers(1, 10))
    return segments, draw(st.integers(0, end)), end


@settings(max_examples=500)
@given(
    facts=partitions_of_facts(),
    retention_ms=st.integers(-1, 100),
    retention_bytes=st.integers(-1, 200),
    now_ms=st.integers(0, 200),
)
def test_never_what_must_stay_and_always_what_must_go(
    facts: tuple[list[Facts], int, int], retention_ms: int, retention_bytes: int, now_ms: int
) -> None:
    """Said again in other words: one decision for each segment, from the oldest on."""
    segments, high_watermark, end = facts
    config = TopicConfig(retention_ms=retention_ms, retention_bytes=retention_bytes)
    count = expired(segments, config, end=end, high_watermark=high_watermark, now_ms=now_ms)

    def may_go(i: int) -> bool:
        follows = segments[i + 1].base_offset if i + 1 < len(segments) else end
        return follows <= high_watermark and bool(segments[i].size_bytes or i + 1 < len(segments))

    def too_much(i: int) -> bool:
        left = sum(segment.size_bytes for segment in segments[i + 1 :])
        return 0 <= retention_bytes <= left

    def too_old(i: int) -> bool:
        segment = segments[i]
        time = segment.largest_timestamp if segment.largest_timestamp >= 0 else segment.modified_ms
        return retention_ms >= 0 and now_ms - time > retention_ms

    for i in range(count):
        assert may_go(i)
        # Once one was only too old, what follows cannot be too much.
        assert too_much(i) or too_old(i)
    if count < len(segments):
        assert not may_go(count) or not (too_much(count) or too_old(count))
