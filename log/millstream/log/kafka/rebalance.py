"""A change of who reads what, on its way from librdkafka's thread to the event loop and back."""

from __future__ import annotations

from typing import Literal

from millstream.log.record import ConsumerGroupMetadata, TopicPartition

__all__ = ["Rebalance"]


class Rebalance:
    """What the group decided; the thread goes on when the owner has said that it is over."""

    def __init__(
        self,
        kind: Literal["assigned", "revoked", "lost"],
        partitions: list[TopicPartition],
        member: ConsumerGroupMetadata | None,
    ) -> None:
        self.kind = kind
        self.partitions = partitions
        self.member = member
        self.starts: dict[TopicPartition, int] = {}
        """Where to begin instead of at what is committed."""
        self._is_over = False

    def is_over(self) -> bool:
        """Whether the thread may go on."""
        return self._is_over

    def end(self) -> None:
        """In the thread."""
        self._is_over = True
