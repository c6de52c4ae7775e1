"""How large anything may get that no setting bounds: every buffer, queue and request of the log.

Settings with Kafka's names bound what users should decide (config.py, client/settings.py). Here is
the rest, each with its unit and its reason. docs/reference/configs.md lists both.
"""

from __future__ import annotations

__all__ = [
    "CLEANER_RETRY_MS_MAX",
]

CLEANER_RETRY_MS_MAX = 3_600_000
"""Milliseconds between two tries to compact a partition that fails each time."""
