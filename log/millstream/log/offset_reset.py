"""Where a group goes on: what setting its offsets anew would do, before it is done.

    plan = await plan_offset_reset(log, "billing", partitions, ResetTo.time(1_700_000_000_000))
    await log.alter_group_offsets("billing", {each: to.new for each, to in plan.items()})

The rules are those of Kafka's `kafka-consumer-groups --reset-offsets`: only for a group without
members; an offset before the beginning becomes the beginning, one behind the end the end; a time
after the last record means the end; only what was committed can be shifted.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

from .errors import ConfigError, GroupNotEmptyError, UnknownGroupError
from .interface import Log
from .record import TopicPartition

__all__ = ["ResetPlan", "ResetTo", "plan_offset_reset"]


class ResetTo(NamedTuple):
    """Where to; made by its class methods."""

    kind: Literal["beginning", "end", "offset", "time", "shift", "current"]
    value: int = 0

    @classmethod
    def beginning(cls) -> ResetTo:
        """The log start offset."""
        return cls("beginning")

    @classmethod
    def end(cls) -> ResetTo:
        """The end, so that only new records are read."""
        return cls("end")

    @classmethod
    def offset(cls, offset: int) -> ResetTo:
        """This offset, in every partition."""
        return cls("offset", offset)

    @classmethod
    def time(cls, timestamp_ms: int) -> ResetTo:
        """The first record of this time or later (Unix milliseconds)."""
        return cls("time", timestamp_ms)

    @classmethod
    def shift(cls, by: int) -> ResetTo:
        """So many records forward, or back."""
        return cls("shift", by)

    @classmethod
    def current(cls) -> ResetTo:
        """Where the group is; the end of partitions for which it committed nothing."""
        return cls("current")


class ResetPlan(NamedTuple):
    """One partition: the committed offset (None: there is none) and the one to come."""

    current: int | None
    new: int


async def plan_offset_reset(
    log: Log, group: str, partitions: Collection[TopicPartition], to: ResetTo
) -> dict[TopicPartition, ResetPlan]:
    """What the reset would do; nothing is changed.

    Raises:
        GroupNotEmptyError: the group has members; stop them first.
        UnknownTopicError: a partition does not exist.
        ConfigError: a partition without a committed offset cannot be shifted.
    """
    await _check_inactive(log, group)
    current = {each: found.offset for each, found in (await log.group_offsets(group)).items()}
    beginnings = await log.beginning_offsets(partitions)
    ends = await log.end_offsets(partitions, "read_uncommitted")
    times: dict[TopicPartition, int | None] = {}
    if to.kind == "time":
        times = await log.offsets_for_time(dict.fromkeys(partitions, to.value))
    plan = {}
    for each in partitions:
        wanted = _wanted(each, to, current.get(each), times.get(each))
        if wanted is None:
            wanted = ends[each]
        plan[each] = ResetPlan(current.get(each), min(max(wanted, beginnings[each]), ends[each]))
    return plan


async def _check_inactive(log: Log, group: str) -> None:
    try:
        description = await log.describe_group(group)
    except UnknownGroupError:
        return  # a group may begin somewhere before it is first used
    if description.members:
        raise GroupNotEmptyError(
            f"Group {group} has {len(description.members)} members: its offsets can be set when "
            "its consumers are closed."
        )


def _wanted(
    partition: TopicPartition, to: ResetTo, current: int | None, of_time: int | None
) -> int | None:
    """The offset before it is brought into range; None for the end."""
    match to.kind:
        case "beginning":
            return 0
        case "offset":
            return to.value
        case "time":
            return of_time
        case "current":
            return current
        case "shift":
            if current is None:
                raise ConfigError(
                    f"Partition {partition} has no committed offset to shift. Leave it out, or "
                    "reset it to an offset, a time, the beginning or the end."
                )
            return current + to.value
        case _:
            return None
