"""`millstream reset`: an app starts again from the beginning, as Kafka's application reset tool
does.

What the app reads goes back to its first record, its repartition topics and changelogs are deleted,
and so is its local state. What it wrote stays: a run after a reset writes its results once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from millstream.log.errors import GroupNotEmptyError
from millstream.log.record import TopicPartition

from .errors import StreamsError
from .run_context import RunContext
from .topology import changelog_topic

__all__ = ["AppRunningError", "ResetPlan", "plan_reset", "reset_app"]


class AppRunningError(StreamsError):
    """The app runs; stop it first."""


@dataclass(frozen=True, slots=True)
class ResetPlan:
    """What a reset does, or would do."""

    group: str
    offsets: dict[TopicPartition, int]
    """Committed positions that go back to the beginning."""
    topics: list[str]
    """Internal topics to be deleted."""
    state: Path | None
    """Folder of local state to be removed; None when there is none."""

    @property
    def is_empty(self) -> bool:
        """Whether the app has never run here."""
        return not (self.offsets or self.topics or self.state)


async def plan_reset(context: RunContext) -> ResetPlan:
    """What a reset of this app would do; changes nothing."""
    log, app_id = context.log, context.app_id
    committed = await log.group_offsets(app_id)
    existing = set(await log.topics())
    path = context.directory.path
    return ResetPlan(
        app_id,
        {partition: offset.offset for partition, offset in sorted(committed.items())},
        [topic for topic in _internal_topics(context) if topic in existing],
        path if path is not None and path.exists() else None,
    )


async def reset_app(context: RunContext) -> ResetPlan:
    """Reset the app; answers what was done. Doing it again, or going on after a crash, is safe.

    Raises:
        AppRunningError: nothing was changed.
    """
    plan = await plan_reset(context)
    try:
        # First, because it is refused while the app runs. Offsets, and the stream time with them,
        # are gone: the app begins at the earliest records.
        await context.log.delete_group(plan.group)
    except GroupNotEmptyError as error:
        raise AppRunningError(
            f"app {plan.group!r} is running: stop it, then reset it ({error})"
        ) from error
    for topic in plan.topics:
        await context.log.delete_topic(topic)
    context.directory.delete()
    return plan


def _internal_topics(context: RunContext) -> list[str]:
    changelogs = [
        changelog_topic(context.app_id, store.name)
        for subtopology in context.topology.subtopologies
        for store in subtopology.stores
        if store.logged
    ]
    repartition = [context.names.in_log(t.name) for t in context.topology.repartition_topics]
    return sorted(repartition + changelogs)
