"""What is counted while a log works: once per batch, fetch or flush, never per record."""

from __future__ import annotations

from bisect import bisect_left

__all__ = ["FLUSH_BUCKETS_S", "Histogram", "Traffic"]

FLUSH_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds in seconds: an NVMe disk flushes in a fraction of a millisecond, a cloud volume in
a few, and what takes a second is in trouble."""


class Traffic:
    """What went through one partition since the log was opened. Duplicates are not counted."""

    __slots__ = ("appended_batches", "appended_bytes", "appended_records", "fetched_bytes")

    def __init__(self) -> None:
        self.appended_batches = 0
        self.appended_records = 0
        self.appended_bytes = 0
        self.fetched_bytes = 0


class Histogram:
    """Counts of durations, by upper bounds that are fixed."""

    __slots__ = ("bounds", "counts", "seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def note(self, seconds: float) -> None:
        """Something took this long."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds

    @property
    def count(self) -> int:
        """How often something was noted."""
        return sum(self.counts)
