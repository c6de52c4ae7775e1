"""Offsets that are not written as numbers: the beginning, the end, a time, where to start."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END
from confluent_kafka.admin import OffsetSpec

from millstream.log.errors import ConfigError, OffsetOutOfRangeError
from millstream.log.interface import Isolation, OffsetReset
from millstream.log.record import OffsetAndMetadata, TopicPartition

from .kafka_admin import KafkaAdmin

__all__ = ["NamedPlaces"]


class NamedPlaces:
    """As one consumer sees them."""

    def __init__(self, admin: KafkaAdmin, isolation: Isolation, reset: OffsetReset) -> None:
        if reset not in {"earliest", "latest", "none"}:
            raise ConfigError(
                f"auto_offset_reset is {reset!r}; it can be earliest, latest or none."
            )
        if isolation not in {"read_committed", "read_uncommitted"}:
            raise ConfigError(
                f"isolation is {isolation!r}; it can be read_committed or read_uncommitted."
            )
        self._admin = admin
        self._isolation: Isolation = isolation
        self._reset: OffsetReset = reset

    async def beginnings(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The log start offsets."""
        found = await self._admin.offsets(dict.fromkeys(partitions, OffsetSpec.earliest()))
        return {each: at.offset for each, at in found.items()}

    async def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Where reading stops."""
        latest = dict.fromkeys(partitions, OffsetSpec.latest())
        found = await self._admin.offsets(latest, self._isolation)
        return {each: at.offset for each, at in found.items()}

    async def at_time(
        self, timestamp: int, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """The first record of this time or later; the end where there is none."""
        wanted = dict.fromkeys(partitions, OffsetSpec.for_timestamp(timestamp))
        found = await self._admin.offsets(wanted)
        ends = await self.ends([each for each, at in found.items() if at.offset < 0])
        return {each: ends.get(each, at.offset) for each, at in found.items()}

    async def starts(
        self,
        partitions: Collection[TopicPartition],
        committed: Mapping[TopicPartition, OffsetAndMetadata | None],
    ) -> dict[TopicPartition, int]:
        """Where reading begins: at what is committed, or as auto_offset_reset says.

        Raises:
            OffsetOutOfRangeError: nothing is committed, and it says none.
        """
        starts = {tp: found.offset for tp, found in committed.items() if found is not None}
        missing = [each for each in partitions if each not in starts]
        if not missing:
            return starts
        if self._reset == "none":
            raise OffsetOutOfRangeError(
                f"Partition {missing[0]} has no position: nothing is committed, and "
                "auto_offset_reset is none. Seek, commit an offset, or let it be earliest or "
                "latest."
            )
        is_earliest = self._reset == "earliest"
        found = await (self.beginnings(missing) if is_earliest else self.ends(missing))
        return {**starts, **found}

    def reset_start(self) -> int:
        """What librdkafka calls the place of auto_offset_reset. Raises ConfigError for none."""
        if self._reset == "none":
            raise ConfigError(
                "A consumer without a group has no committed offsets to begin at. Let "
                "auto_offset_reset be earliest or latest."
            )
        return int(OFFSET_BEGINNING if self._reset == "earliest" else OFFSET_END)
