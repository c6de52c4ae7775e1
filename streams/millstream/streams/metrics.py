"""The metrics of a running app in Prometheus's text format, beside those of its log."""

from __future__ import annotations

from typing import Protocol

from millstream.log.metrics_text import Family, metric_text

from .worker import WorkerStats

__all__ = ["FAMILIES", "AppMetrics"]

_APP = ("app",)
_COUNTERS = {
    "records": Family(
        "millstream_streams_read_records_total", "counter", "Records read from topics.", _APP
    ),
    "outputs": Family(
        "millstream_streams_written_records_total", "counter", "Records written to topics.", _APP
    ),
    "late": Family(
        "millstream_streams_late_records_total",
        "counter",
        "Records that came after a window they fall into was closed.",
        _APP,
    ),
    "dropped": Family(
        "millstream_streams_dropped_records_total",
        "counter",
        "Records without a key or value where one is needed.",
        _APP,
    ),
    "skipped": Family(
        "millstream_streams_skipped_records_total",
        "counter",
        "Records that failed under the policy skip.",
        _APP,
    ),
    "dead_letters": Family(
        "millstream_streams_dead_letters_total", "counter", "Records put aside.", _APP
    ),
    "restored": Family(
        "millstream_streams_restored_records_total",
        "counter",
        "Records of changelogs read to restore stores.",
        _APP,
    ),
    "commits": Family("millstream_streams_commits_total", "counter", "Commits.", _APP),
}
FAMILIES = tuple(_COUNTERS.values())


class HasStats(Protocol):
    """A worker."""

    def stats(self) -> WorkerStats: ...


class AppMetrics:
    """What is to be told of one app; `run_app` says which worker runs it."""

    def __init__(self, app_id: str) -> None:
        self._labels = (app_id,)
        self.worker: HasStats | None = None

    def text(self) -> str:
        """The app's metrics now; nothing before its worker runs."""
        if self.worker is None:
            return ""
        stats = self.worker.stats()
        lines: list[str] = []
        for name, family in _COUNTERS.items():
            lines += metric_text(family, [(self._labels, getattr(stats, name))])
        return "\n".join(lines) + "\n"
