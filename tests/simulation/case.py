"""What a check is given: what happened, what is in the log now, and what may be gone from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from millstream.log import TopicPartition

from .history import History
from .snapshot import Row, Snapshot


@dataclass(slots=True)
class Rules:
    """What a topic's settings let the log do with its records, at their laxest so far."""

    name: str
    compacts: bool = False
    retention_ms: int | None = None
    retention_bytes: int | None = None
    delete_retention_ms: int = 0
    min_compaction_lag_ms: int = 0
    append_time: bool = False
    remade: bool = False
    """Whether it is deleted and made again: another record may lie at the same offset."""

    def loosen(self, other: Rules) -> None:
        """These settings may be in force too, from now on or until now."""
        for name in ("retention_ms", "retention_bytes"):
            mine, its = getattr(self, name), getattr(other, name)
            known = [each for each in (mine, its) if each is not None]
            setattr(self, name, min(known, default=None))
        self.delete_retention_ms = min(self.delete_retention_ms, other.delete_retention_ms)
        self.min_compaction_lag_ms = min(self.min_compaction_lag_ms, other.min_compaction_lag_ms)

    @property
    def ages(self) -> bool:
        return self.retention_ms is not None or self.retention_bytes is not None


@dataclass(slots=True)
class Case:
    """One look at the log."""

    history: History
    snapshot: Snapshot
    rules: dict[str, Rules]
    wall_ms: int
    chain: tuple[str, str, str] | None = None
    """(group, topic it reads, topic it writes): each record read is written once."""
    steady_groups: tuple[str, ...] = ()
    """Groups whose consumers never seek."""
    unwatched_groups: tuple[str, ...] = ()
    """Groups whose commits are not in the history, because they are automatic."""
    offsets_retention_ms: int | None = None
    rows: dict[int, tuple[TopicPartition, Row]] = field(default_factory=dict)
    """Every record that is there, by number; aborted and undecided ones too."""
    visible: dict[int, tuple[TopicPartition, Row]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for partition, found in self.snapshot.partitions.items():
            for row in found.rows():
                if row.number is not None:
                    self.rows.setdefault(row.number, (partition, row))
            for row in found.committed():
                if row.number is not None:
                    self.visible[row.number] = (partition, row)

    def removed(self, topic: str, partition: int | None, offset: int | None, began: int) -> bool:
        """Whether somebody may have deleted this record."""
        for removal in self.history.removals:
            if removal.topic != topic:
                continue
            if removal.partition is None:
                if removal.ended > began:
                    return True
            elif partition in {None, removal.partition} and (
                offset is None or offset < (removal.before or 0)
            ):
                return True
        return False

    def aged(self, rules: Rules, timestamp: int, place: tuple[int, int] | None) -> bool:
        """Whether retention may have taken this record."""
        if not rules.ages:
            return False
        if place is not None:
            found = self.snapshot.partitions.get(TopicPartition(rules.name, place[0]))
            if found is not None and place[1] >= found.log_start_offset:
                return False
        old = rules.retention_ms is not None and timestamp + rules.retention_ms < self.wall_ms
        return old or rules.retention_bytes is not None
