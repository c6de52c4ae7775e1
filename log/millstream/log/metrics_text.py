"""Writes numbers in Prometheus's text exposition format 0.0.4.

    # HELP millstream_log_size_bytes Bytes of a partition's segments.
    # TYPE millstream_log_size_bytes gauge
    millstream_log_size_bytes{topic="orders",partition="0"} 1048576

A name with labels has a series for each of their values, and whoever collects them keeps every
series for ever. So a name has at most `SERIES_MAX`: what comes after them is added up in one more,
whose labels all say "other".

Source: Prometheus documentation, "Exposition formats", text-based format 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import inf
from typing import Literal, NamedTuple

__all__ = ["CONTENT_TYPE", "SERIES_MAX", "Family", "Sample", "histogram_text", "metric_text"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SERIES_MAX = 1000
OTHER = "other"

Sample = tuple[tuple[str, ...], float]
"""The values of a family's labels, in their order, and the number."""


class Family(NamedTuple):
    """One metric: its name, what kind it is, what it means, and its labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


def metric_text(
    family: Family, samples: Iterable[Sample], *, series_max: int = SERIES_MAX
) -> list[str]:
    """The lines of one metric. Samples with equal labels are added up."""
    series: dict[tuple[str, ...], float] = {}
    other = (OTHER,) * len(family.labels)
    for labels, value in samples:
        key = labels if labels in series or len(series) < series_max else other
        series[key] = series.get(key, 0) + value
    lines = _head(family)
    lines += [
        f"{family.name}{_labels(family.labels, values)} {_number(value)}"
        for values, value in series.items()
    ]
    return lines


def histogram_text(
    family: Family, bounds: Sequence[float], counts: Sequence[int], total: float
) -> list[str]:
    """The lines of a histogram without labels.

    Args:
        counts: how many fell under each bound and above the one before; one more for the rest.
        total: the sum of everything that was measured.
    """
    lines = _head(family)
    below = 0
    for bound, count in zip([*bounds, inf], counts, strict=True):
        below += count
        lines.append(f'{family.name}_bucket{{le="{_number(bound)}"}} {below}')
    lines.append(f"{family.name}_sum {_number(total)}")
    lines.append(f"{family.name}_count {below}")
    return lines


def _head(family: Family) -> list[str]:
    text = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    return [f"# HELP {family.name} {text}", f"# TYPE {family.name} {family.kind}"]


@lru_cache(2 * SERIES_MAX)  # a dozen families have the labels of the same partitions
def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not names:
        return ""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return value


def _number(value: float) -> str:
    return "+Inf" if value == inf else repr(value)
