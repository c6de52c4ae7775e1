"""What a process can tell of a log that is elsewhere: its own producers and consumers."""

from __future__ import annotations

from millstream.log.metrics import CONSUMERS, PRODUCERS, RETURNED, SENT
from millstream.log.metrics_text import metric_text

__all__ = ["client_metrics"]


def client_metrics(producers: int, sent_records: int, consumers: int, returned_records: int) -> str:
    """In Prometheus's text format; names and meanings are those of an embedded log."""
    lines: list[str] = []
    for family, value in (
        (PRODUCERS, producers),
        (SENT, sent_records),
        (CONSUMERS, consumers),
        (RETURNED, returned_records),
    ):
        lines += metric_text(family, [((), value)])
    return "\n".join(lines) + "\n"
