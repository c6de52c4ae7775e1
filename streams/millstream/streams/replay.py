"""`millstream replay`: an app, or a new version of it, over history, beside the original.

The app runs under another application id: its group, transactions, changelogs, repartition topics
and state are its own, and each topic it writes is replaced by a shadow, `<id>.<topic>`. The inputs
are the real ones, and nothing the original has written is touched. Attached sources and sinks do
not run. Global tables are read as they are now; other tables hold what the range has of them.

A replay under an id that was used for a replay before starts over.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from millstream.log.interface import Log
from millstream.log.record import TopicPartition

from .app import App
from .errors import StreamsError, TopologyError
from .internal_topics import describe_or_none
from .progress import Progress, no_progress
from .reset import reset_app
from .run import RunResult, run_worker_to_end
from .run_context import RunContext
from .state_dir import StateDirectory
from .topic_names import TopicNames
from .topology import Topology, dead_letter_topic
from .windows import duration_ms

__all__ = ["Replay", "ReplayError", "When", "prepare_replay", "shadow_topic"]


class ReplayError(StreamsError):
    """The replay cannot be done as asked. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class When:
    """A moment of event time, ms since the epoch; None is the beginning."""

    timestamp_ms: int | None

    @classmethod
    def parse(cls, text: str, now_ms: int) -> When:
        """`beginning`, an ISO 8601 time (UTC unless it says otherwise), or how long ago: `2d ago`.

        Raises:
            ReplayError: none of these.
        """
        if text == "beginning":
            return cls(None)
        if re.match(r"\d{4}-\d\d", text):
            try:
                moment = datetime.fromisoformat(text)
            except ValueError as error:
                raise ReplayError(f"{text!r} is no ISO 8601 time: {error}") from error
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            return cls(int(moment.timestamp() * 1000))
        try:
            return cls(now_ms - duration_ms(text.removesuffix(" ago")))
        except TopologyError as error:
            raise ReplayError(
                f'{text!r} is no moment: write "beginning", an ISO time such as '
                '"2013-01-15T06:00", or how long ago, such as "2d"'
            ) from error


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay that is ready to run."""

    context: RunContext
    start: When
    end: When | None

    @property
    def shadows(self) -> dict[str, str]:
        """The topics the app writes, and what the replay writes instead."""
        names = self.context.names
        return {topic: names.in_log(topic) for topic in _written_topics(self.context.topology)}

    async def run(self, stop: asyncio.Event) -> RunResult:
        """Run to the end of the range, windows closed."""
        return await run_worker_to_end(self.context, stop)


def shadow_topic(replay_id: str, topic: str) -> str:
    """Where a replay writes instead of `topic`."""
    return f"{replay_id}.{topic}"


async def prepare_replay(
    app: App,
    log: Log,
    *,
    replay_id: str,
    start: When,
    end: When | None = None,
    progress: Progress | None = None,
) -> Replay:
    """Clear what an earlier replay under this id left, and set the inputs to the start.

    Raises:
        ReplayError: the id is an app's, not a replay's. Nothing was changed.
        AppRunningError: this replay is running.
        TopologyError: the app cannot run.
    """
    if replay_id == app.id:
        raise ReplayError(f"--as {replay_id}: that is the app itself; give the replay its own id")
    topology = app.topology()
    inputs = await _inputs(log, topology)
    context = RunContext(
        app,
        replay_id,
        log,
        topology,
        StateDirectory.of(replay_id, log.url, app.state_dir),
        names=_names(replay_id, topology),
        limits={} if end is None else await _offsets_at(log, inputs, end),
        progress=progress or no_progress,
    )
    await _clear(context)
    await log.alter_group_offsets(replay_id, await _offsets_at(log, inputs, start))
    return Replay(context, start, end)


def _names(replay_id: str, topology: Topology) -> TopicNames:
    shadows = {topic: shadow_topic(replay_id, topic) for topic in _written_topics(topology)}
    internal = [topic.name for topic in topology.repartition_topics]
    for topic in [*internal, dead_letter_topic(topology.app_id)]:
        shadows[topic] = replay_id + topic.removeprefix(topology.app_id)
    return TopicNames(shadows)


def _written_topics(topology: Topology) -> list[str]:
    """Declared topics that the app writes."""
    sinks = {sink for subtopology in topology.subtopologies for sink in subtopology.sinks}
    return sorted(sinks & topology.topics.keys())


async def _inputs(log: Log, topology: Topology) -> list[TopicPartition]:
    """The partitions of what the app reads and does not write."""
    internal = {topic.name for topic in topology.repartition_topics} | set(
        _written_topics(topology)
    )
    partitions: list[TopicPartition] = []
    for subtopology in topology.subtopologies:
        for source in subtopology.sources:
            if source not in internal:
                count = (await log.describe_topic(source)).partitions
                partitions += [TopicPartition(source, number) for number in range(count)]
    return partitions


async def _offsets_at(
    log: Log, partitions: Collection[TopicPartition], when: When
) -> dict[TopicPartition, int]:
    """The first offset at or after a moment; the end where all is earlier."""
    if when.timestamp_ms is None:
        return await log.beginning_offsets(partitions)
    found = await log.offsets_for_time(dict.fromkeys(partitions, when.timestamp_ms))
    ends = await log.end_offsets(partitions, "read_uncommitted")  # nothing there is earlier
    return {tp: ends[tp] if offset is None else offset for tp, offset in found.items()}


async def _clear(context: RunContext) -> None:
    log, replay_id = context.log, context.app_id
    shadows = [
        shadow
        for topic in _written_topics(context.topology)
        if await describe_or_none(log, shadow := context.names.in_log(topic)) is not None
    ]
    if not shadows and await log.group_offsets(replay_id):
        raise ReplayError(
            f"--as {replay_id}: there is an app of this id, and it is no replay; choose another id"
        )
    await reset_app(context)
    for topic in [*shadows, dead_letter_topic(replay_id)]:
        if await describe_or_none(log, topic) is not None:
            await log.delete_topic(topic)
