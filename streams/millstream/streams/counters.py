"""What a task counts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TaskCounters"]


@dataclass(slots=True)
class TaskCounters:
    """Counted since the task was made."""

    records: int = 0
    late: int = 0
    """Records that came after a window they fall into was closed."""
    dropped: int = 0
    """Records with a null key or value where one is needed."""
    skipped: int = 0
    """Records that failed under the policy "skip"."""
    dead_letters: int = 0
