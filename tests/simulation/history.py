"""What a simulated run asked the log for, and what the log answered.

Moments are numbers of events (`History.tick`), so that "before" and "after" need no clock. An
attempt is `ended` when its caller was told something; what happened to one that failed or was
cancelled is unknown: it may have been done, or may not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from millstream.log import TopicPartition

NEVER = 1 << 60


class Violation(AssertionError):
    """The log broke a promise. `name` says which."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


@dataclass(slots=True)
class Txn:
    """One transaction of one producer."""

    producer: int
    transactional_id: str
    began: int
    commit_tried: int = NEVER
    """When commit was first called."""
    ended: int = NEVER
    outcome: str = "open"
    """open, committed, aborted: the log said so. unknown: commit was tried and the answer lost."""

    @property
    def may_be_visible(self) -> bool:
        return self.commit_tried < NEVER and self.outcome != "aborted"


@dataclass(slots=True)
class Sent:
    """One record a producer was told to send."""

    number: int
    topic: str
    producer: int
    """Number of the producer's instance: each `log.producer()` has its own."""
    turn: int
    """Records of one producer with a lower turn were sent earlier; of the same turn, together."""
    key: bytes | None
    value: bytes | None
    timestamp: int | None
    txn: Txn | None
    began: int
    wall_ms: int
    ended: int = NEVER
    acknowledged: int = NEVER
    where: tuple[int, int] | None = None
    """Partition and offset, where the log told them."""

    @property
    def is_acknowledged(self) -> bool:
        return self.acknowledged < NEVER


@dataclass(slots=True)
class OffsetAttempt:
    """Somebody sets the committed offset of a group; None forgets it."""

    group: str
    partition: TopicPartition
    offset: int | None
    began: int
    wall_ms: int
    txn: Txn | None = None
    ended: int = NEVER
    outcome: str = "unknown"
    """acknowledged, refused (the log said so), or unknown."""

    @property
    def counts_for_sure(self) -> bool:
        if self.txn is not None:
            return self.outcome == "acknowledged" and self.txn.outcome == "committed"
        return self.outcome == "acknowledged"

    @property
    def may_count(self) -> bool:
        if self.txn is not None and not self.txn.may_be_visible:
            return False
        return self.outcome != "refused"

    @property
    def over(self) -> int:
        """When it had counted at the latest, if it ever did."""
        return max(self.ended, self.txn.ended) if self.txn is not None else self.ended


@dataclass(slots=True)
class Fence:
    """From `ended` on, producers of this transactional id that were started before `began` are
    fenced."""

    transactional_id: str
    producer: int
    began: int
    ended: int


@dataclass(slots=True)
class Removal:
    """Records below `before` were to be deleted (delete_records), or all of a topic (None)."""

    topic: str
    partition: int | None
    before: int | None
    began: int
    ended: int = NEVER


@dataclass(slots=True)
class History:
    """Everything that happened, in the order it happened."""

    sent: list[Sent] = field(default_factory=list)
    txns: list[Txn] = field(default_factory=list)
    offsets: list[OffsetAttempt] = field(default_factory=list)
    fences: list[Fence] = field(default_factory=list)
    removals: list[Removal] = field(default_factory=list)
    consumed: dict[str, set[int]] = field(default_factory=dict)
    """Record numbers that a group's members were given."""
    places: dict[tuple[str, int, int], int] = field(default_factory=dict)
    """(topic, partition, offset) -> the record that was read there."""
    producers: dict[int, str] = field(default_factory=dict)
    """Instance -> its transactional id, of those that have one."""
    now: int = 0

    def tick(self) -> int:
        self.now += 1
        return self.now

    def forgive(self, ends: dict[TopicPartition, int]) -> None:
        """A power loss with durability="os": what lay at these offsets or later may be gone, and
        all that is known of what came before is that it may be there."""
        for sent in self.sent:
            sent.acknowledged = NEVER
            sent.where = None
        for attempt in self.offsets:
            if attempt.outcome == "acknowledged":
                attempt.outcome = "unknown"
        for txn in self.txns:
            if txn.outcome == "committed":
                txn.outcome = "unknown"
        in_txn = {sent.number for sent in self.sent if sent.txn is not None}
        for place, number in list(self.places.items()):
            end = ends.get(TopicPartition(place[0], place[1]), 0)
            if place[2] >= end or number in in_txn:
                del self.places[place]
