"""The metrics of a worker's connectors in Prometheus's text format, beside those of its log."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.log.metrics_text import Family, Sample, metric_text

from .status import ConnectorStatus, State, TaskStatus

__all__ = ["FAMILIES", "connect_metrics"]

_CONNECTOR = ("connector",)
CONNECTORS = Family(
    "millstream_connect_connectors", "gauge", "Connectors by the state they are in.", ("state",)
)
_COUNTERS = {
    "records": Family(
        "millstream_connect_delivered_records_total",
        "counter",
        "Records delivered and committed.",
        _CONNECTOR,
    ),
    "dead_letters": Family(
        "millstream_connect_dead_letters_total", "counter", "Records put aside.", _CONNECTOR
    ),
    "skipped": Family(
        "millstream_connect_skipped_records_total",
        "counter",
        "Records that mean nothing to the connector.",
        _CONNECTOR,
    ),
    "retries": Family(
        "millstream_connect_retries_total", "counter", "Tries after a failure.", _CONNECTOR
    ),
}
FAMILIES = (CONNECTORS, *_COUNTERS.values())


def connect_metrics(statuses: Sequence[ConnectorStatus]) -> str:
    """The metrics of these connectors now."""
    states: list[Sample] = [((str(state),), 0) for state in State]
    states += [((str(status.state),), 1) for status in statuses]
    lines = metric_text(CONNECTORS, states)
    for name, family in _COUNTERS.items():
        lines += metric_text(
            family, [((status.name,), _sum(status.tasks, name)) for status in statuses]
        )
    return "\n".join(lines) + "\n"


def _sum(tasks: Sequence[TaskStatus], name: str) -> int:
    return sum(getattr(task, name) for task in tasks)
