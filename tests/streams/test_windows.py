"""Windows: which ones a time falls into, durations, and what cannot be a window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.streams.errors import TopologyError
from millstream.streams.windows import Window, Windowed, duration_ms, hopping, tumbling


@given(st.integers(0, 10**7), st.integers(1, 5000), st.integers(1, 5000))
def test_a_record_is_in_every_window_around_it_and_in_no_other(
    timestamp: int, size: int, advance: int
) -> None:
    advance = min(advance, size)
    starts = list(hopping(size, advance=advance).starts_of(timestamp))
    first = max(0, timestamp - size)
    around = [
        start
        for start in range(first - first % advance, timestamp + 1, advance)
        if start <= timestamp < start + size
    ]
    assert starts == around


@given(st.integers(0, 10**12), st.integers(1, 10**6))
def test_tumbling_is_one_window_aligned_to_the_epoch(timestamp: int, size: int) -> None:
    assert list(tumbling(size).starts_of(timestamp)) == [timestamp - timestamp % size]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (1500, 1500),
        ("250ms", 250),
        ("30s", 30_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("1d", 86_400_000),
        ("2w", 1_209_600_000),
        (" 1 h ", 3_600_000),
        (timedelta(seconds=1.5), 1500),
    ],
)
def test_durations(given: int | str | timedelta, expected: int) -> None:
    assert duration_ms(given) == expected


@pytest.mark.parametrize("given", ["", "5", "5 parsecs", "1.5h", "h", -1, timedelta(seconds=-1)])
def test_what_is_no_duration(given: int | str | timedelta) -> None:
    with pytest.raises(TopologyError):
        duration_ms(given)


@pytest.mark.parametrize(("size", "advance"), [(0, 0), (10, 0), (10, 11)])
def test_what_is_no_window(size: int, advance: int) -> None:
    with pytest.raises(TopologyError):
        hopping(size, advance=advance)


def test_times_of_a_window() -> None:
    window = Windowed("k", 0, 3_600_000).window
    assert window == Window(0, 3_600_000)
    assert window.start_time == datetime(1970, 1, 1, tzinfo=UTC)
    assert window.end_time == datetime(1970, 1, 1, 1, tzinfo=UTC)
