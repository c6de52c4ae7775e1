"""Topics before a run: what must exist is checked, what may be created is created.

sources, global tables   must exist; created when the app declares `partitions=`, or when a
                         source attached to the app is going to write them
topics the app writes    created with as many partitions as their inputs have
repartition topics       created; records are deleted after the commit that consumed them
changelogs               created, compacted, one partition per task
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from millstream.log.config import EVENT_TIME_TOPIC
from millstream.log.errors import UnknownTopicError
from millstream.log.interface import Log
from millstream.log.record import TopicDescription

from .errors import TopologyError
from .run_context import RunContext
from .state.changelog import CHANGELOG_CONFIG, REPARTITION_CONFIG
from .topology import SubTopology, TopicSpec, Topology, changelog_topic

__all__ = ["RunTopics", "describe_or_none", "prepare_topics"]

_WRITTEN_FIRST_PARTITIONS: Final = 1
"""Of a topic that an attached source creates by writing to it: what Kafka's brokers give."""


class RunTopics:
    """What is known of an app's topics, by their names in the log."""

    def __init__(self) -> None:
        self.partitions: dict[str, int] = {}
        self.ids: dict[str, str] = {}

    def add(self, topic: TopicDescription) -> None:
        """Note a topic that exists."""
        self.partitions[topic.name] = topic.partitions
        self.ids[topic.name] = topic.topic_id

    def update(self, other: RunTopics) -> None:
        """Note everything another knows."""
        self.partitions.update(other.partitions)
        self.ids.update(other.ids)


async def prepare_topics(context: RunContext) -> RunTopics:
    """Create and check the topics of a run. Doing it again changes nothing.

    Raises:
        UnknownTopicError: a source topic does not exist and nobody says how to create it.
        TopologyError: partition counts do not fit together.
    """
    topics = RunTopics()
    for name, spec in context.topology.topics.items():
        found = await describe_or_none(context.log, context.names.in_log(name))
        if found is not None:
            _check_count(found, spec.partitions, "the app declares", "declare what the topic has")
            topics.add(found)
    await _create_sources(context, topics)
    await _create_written(context, topics, dict(topics.partitions), only_read=True)
    counts = context.topology.partition_counts(_known(context, topics))
    await _create_written(context, topics, counts, only_read=False)
    for repartition in context.topology.repartition_topics:
        name = context.names.in_log(repartition.name)
        count = counts[repartition.name]
        await _create_internal(context, topics, name, count, REPARTITION_CONFIG)
    for subtopology in context.topology.subtopologies:
        tasks = max(counts[source] for source in subtopology.sources)
        for store in subtopology.stores:
            if store.logged:
                name = changelog_topic(context.app_id, store.name)
                await _create_internal(context, topics, name, tasks, CHANGELOG_CONFIG)
    return topics


async def describe_or_none(log: Log, topic: str) -> TopicDescription | None:
    """What the log says of a topic, None when it has none of this name."""
    try:
        return await log.describe_topic(topic)
    except UnknownTopicError:
        return None


def _known(context: RunContext, topics: RunTopics) -> dict[str, int]:
    """Partition counts by the names of the code."""
    counts = topics.partitions
    in_log = {name: context.names.in_log(name) for name in context.topology.topics}
    return {name: counts[physical] for name, physical in in_log.items() if physical in counts}


async def _create_sources(context: RunContext, topics: RunTopics) -> None:
    topology = context.topology
    written = _written_by_app(topology)
    read = {source for subtopology in topology.subtopologies for source in subtopology.sources}
    read |= {table.topic.name for table in topology.global_tables}
    for name, spec in topology.topics.items():
        physical = context.names.in_log(name)
        if name not in read or name in written or physical in topics.partitions:
            continue
        partitions = spec.partitions
        if partitions is None and context.app.sources:
            partitions = _WRITTEN_FIRST_PARTITIONS
        if partitions is None:
            raise UnknownTopicError(
                f"app {context.app_id!r} reads topic {physical!r}, which does not exist in "
                f"{context.log.url}. Write to it first, or let the app create it: "
                f"app.topic({name!r}, partitions=4)"
            )
        await _create(context, topics, physical, partitions, _config(spec))


async def _create_written(
    context: RunContext, topics: RunTopics, counts: Mapping[str, int], *, only_read: bool
) -> None:
    """Topics that the app writes. Those it reads again come first: they decide other counts."""
    topology = context.topology
    read = {source for subtopology in topology.subtopologies for source in subtopology.sources}
    for subtopology in topology.subtopologies:
        for name in subtopology.sinks:
            spec = topology.topics.get(name)
            physical = context.names.in_log(name)
            if spec is None or physical in topics.partitions or (only_read and name not in read):
                continue
            partitions = await _written_partitions(context, subtopology, spec, counts)
            await _create(context, topics, physical, partitions, _config(spec))


async def _written_partitions(
    context: RunContext, writer: SubTopology, spec: TopicSpec, counts: Mapping[str, int]
) -> int:
    """As declared; for a shadow, as the topic it stands for; else as the writer's inputs have."""
    if context.names.in_log(spec.name) != spec.name:
        original = await describe_or_none(context.log, spec.name)
        if original is not None:
            return original.partitions
    if spec.partitions is not None:
        return spec.partitions
    return max((counts.get(source, 1) for source in writer.sources), default=1)


def _config(spec: TopicSpec) -> dict[str, str | int | float | bool]:
    return {**EVENT_TIME_TOPIC, **spec.config}


async def _create_internal(
    context: RunContext,
    topics: RunTopics,
    name: str,
    partitions: int,
    config: Mapping[str, str],
) -> None:
    found = await describe_or_none(context.log, name)
    if found is None:
        await _create(context, topics, name, partitions, config)
        return
    _check_count(
        found,
        partitions,
        f"app {context.app_id!r} now needs",
        f"start over with `millstream reset`, or give the app another id than {context.app_id!r}",
    )
    topics.add(found)


async def _create(
    context: RunContext,
    topics: RunTopics,
    name: str,
    partitions: int,
    config: Mapping[str, str | int | float | bool],
) -> None:
    topics.add(
        await context.log.create_topic(name, partitions=partitions, config=config, exist_ok=True)
    )


def _check_count(
    topic: TopicDescription, wanted: int | None, who_wants: str, what_to_do: str
) -> None:
    if wanted is not None and topic.partitions != wanted:
        raise TopologyError(
            f"topic {topic.name!r} has {topic.partitions} partitions, {who_wants} {wanted}: "
            f"{what_to_do}"
        )


def _written_by_app(topology: Topology) -> set[str]:
    return {sink for subtopology in topology.subtopologies for sink in subtopology.sinks}
