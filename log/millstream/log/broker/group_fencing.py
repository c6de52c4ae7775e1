"""Why a group does not listen, or is not there: the errors, and what they tell to do."""

from __future__ import annotations

from millstream.log.errors import (
    FencedInstanceIdError,
    IllegalGenerationError,
    RebalanceInProgressError,
    UnknownGroupError,
    UnknownMemberError,
)

__all__ = ["fenced", "no_group", "no_instance", "outdated", "rebalancing", "unknown"]


def fenced(group: str, member_id: str, group_instance_id: str | None) -> FencedInstanceIdError:
    """Another member took over the instance id."""
    return FencedInstanceIdError(
        f"Group {group}: another member joined with group.instance.id={group_instance_id}, so "
        f"{member_id or 'this one'} is out. Give every consumer an instance id of its own, and "
        "stop this one."
    )


def unknown(group: str, member_id: str) -> UnknownMemberError:
    """There is no such member."""
    return UnknownMemberError(
        f"Group {group} has no member {member_id!r}: it left, or was not heard of for "
        "session.timeout.ms. Its partitions belong to others now: join again."
    )


def no_group(group: str) -> UnknownGroupError:
    """Nobody joined it, and it committed nothing."""
    return UnknownGroupError(
        f"Group {group} does not exist; log.groups() and `millstream groups list` name those "
        "there are."
    )


def no_instance(group: str, group_instance_id: str) -> UnknownMemberError:
    """There is no such static member."""
    return UnknownMemberError(
        f"Group {group} has no member with group.instance.id={group_instance_id}. "
        "log.describe_group() shows its members."
    )


def outdated(group: str, member_id: str, spoken_for: int, now: int) -> IllegalGenerationError:
    """The member speaks for a generation that is over."""
    return IllegalGenerationError(
        f"Group {group}: member {member_id} speaks for generation {spoken_for}, the group is at "
        f"{now}. Its partitions belong to others now: join again."
    )


def rebalancing(group: str) -> RebalanceInProgressError:
    """Everybody is to join again."""
    return RebalanceInProgressError(f"Group {group} is rebalancing; join again.")
