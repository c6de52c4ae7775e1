"""A built topology: sub-topologies, their stores and topics. Nothing here runs anything.

The graph of steps is cut at repartition topics, and wherever one step writes a topic that another
reads. What hangs together is a sub-topology; a task is one sub-topology for one partition number.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .errors import TopologyError
from .serde import Serde
from .windows import WindowSpec

if TYPE_CHECKING:  # nodes are made of what this module defines
    from .nodes import Node

__all__ = [
    "CopartitionGroup",
    "GlobalTableSpec",
    "RepartitionTopic",
    "StoreSpec",
    "SubTopology",
    "TopicSpec",
    "Topology",
    "changelog_topic",
    "dead_letter_topic",
    "repartition_topic",
]


def changelog_topic(app_id: str, store: str) -> str:
    """`<app-id>-<store>-changelog`, as Kafka Streams names it."""
    return f"{app_id}-{store}-changelog"


def repartition_topic(app_id: str, name: str) -> str:
    """`<app-id>-<name>-repartition`, as Kafka Streams names it."""
    return f"{app_id}-{name}-repartition"


def dead_letter_topic(app_id: str) -> str:
    """`<app-id>-dead-letter`: where records go that could not be processed."""
    return f"{app_id}-dead-letter"


@dataclass(frozen=True, slots=True, eq=False)
class TopicSpec:
    """A topic an app declares. `partitions` and `config` are used when the topic is created."""

    name: str
    key_serde: Serde[Any]
    value_serde: Serde[Any]
    timestamp: Callable[[Any], Any] | None = None
    partitions: int | None = None
    config: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """One store of a sub-topology; every task has its own part of it.

    A table read from a topic has a changelog like any other store: restoring is one procedure, and
    what could not be deserialized is not met a second time.
    """

    name: str
    kind: Literal["kv", "window"]
    key_serde: Serde[Any]
    value_serde: Serde[Any]
    window: WindowSpec | None = None
    logged: bool = True
    retention_ms: int | None = None
    """Of a window store: a window closes when stream time reaches its start plus this.

    Size and grace; where windows are made of the final results of others, their grace too.
    """

    @property
    def window_size_ms(self) -> int:
        """Size of the windows of a window store; 0 without."""
        return self.window.size_ms if self.window is not None else 0


@dataclass(frozen=True, slots=True)
class GlobalTableSpec:
    """A topic every process reads whole. Its store (`logged` False) is restored from the topic."""

    topic: TopicSpec
    store: StoreSpec


@dataclass(frozen=True, slots=True)
class RepartitionTopic:
    """An internal topic that moves records to the partition of their new key.

    `partitions` None means: as many as the largest input of the sub-topologies that write it.
    """

    name: str
    partitions: int | None = None


@dataclass(frozen=True, slots=True)
class CopartitionGroup:
    """Topics that must have the same number of partitions because the step `name` joins them."""

    name: str
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SubTopology:
    """Steps connected without crossing a topic.

    The id numbers task names (`0_3`) and may change when the app does; what must outlive such a
    change (stores, their folders, changelogs) is named after the store.
    """

    id: int
    sources: tuple[str, ...]
    """Topics read, declared and repartition topics."""
    sinks: tuple[str, ...]
    """Topics written."""
    stores: tuple[StoreSpec, ...]
    upstream: frozenset[int]
    """Ids of sub-topologies that write a topic read here."""
    global_tables: tuple[str, ...]
    """Store names of the global tables looked into."""
    nodes: tuple[Node, ...] = ()
    """The steps, parents before children."""


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """All of an app."""

    app_id: str
    topics: Mapping[str, TopicSpec]
    """Declared topics by name: sources, sinks and global tables."""
    subtopologies: tuple[SubTopology, ...]
    """Upstream before downstream."""
    repartition_topics: tuple[RepartitionTopic, ...]
    global_tables: tuple[GlobalTableSpec, ...]
    copartitioned: tuple[CopartitionGroup, ...]

    def partition_counts(self, known: Mapping[str, int]) -> dict[str, int]:
        """Partition counts of all topics read, repartition topics included.

        Args:
            known: partitions of every declared source topic that exists.

        Raises:
            TopologyError: a join's topics differ; the message names them and says what to do.
        """
        counts = dict(known)
        asked = {each.name: each.partitions for each in self.repartition_topics}
        sizes = dict.fromkeys(asked, 0)
        for subtopology in self.subtopologies:
            self._check_exist(subtopology, counts, asked)
            counts |= {n: c for n in subtopology.sources if (c := asked.get(n)) is not None}
            for group in self._groups_of(subtopology):
                agreed = _agreed_count(group, counts)
                common = agreed or max(sizes[topic] for topic in group.topics)
                counts |= dict.fromkeys(group.topics, common)
            counts |= {n: sizes[n] for n in subtopology.sources if n not in counts}
            largest = max(counts[topic] for topic in subtopology.sources)
            for topic in subtopology.sinks:
                if topic in sizes:
                    sizes[topic] = largest
        return {name: counts[name] for each in self.subtopologies for name in each.sources}

    def _check_exist(
        self, subtopology: SubTopology, counts: Mapping[str, int], internal: Container[str]
    ) -> None:
        missing = [n for n in subtopology.sources if n not in counts and n not in internal]
        if missing:
            raise TopologyError(
                f"app {self.app_id!r} reads {', '.join(missing)}, which the log does not have: "
                "create the topic first, or let the app do it: app.topic(..., partitions=...)"
            )

    def _groups_of(self, subtopology: SubTopology) -> list[CopartitionGroup]:
        """The groups of one sub-topology; those that share a topic are one."""
        merged: list[CopartitionGroup] = []
        for group in self.copartitioned:
            if not set(group.topics) <= set(subtopology.sources):
                continue
            for other in [each for each in merged if set(each.topics) & set(group.topics)]:
                merged.remove(other)
                topics = tuple(dict.fromkeys(other.topics + group.topics))
                group = CopartitionGroup(group.name, topics)  # noqa: PLW2901 - grows
            merged.append(group)
        return merged


def _agreed_count(group: CopartitionGroup, counts: Mapping[str, int]) -> int | None:
    fixed = {topic: counts[topic] for topic in group.topics if topic in counts}
    if len(set(fixed.values())) > 1:
        found = ", ".join(f"{topic} has {count}" for topic, count in fixed.items())
        raise TopologyError(
            f"step {group.name!r} brings together topics of different partition counts: {found}. "
            "Records of one key must meet in one task: give the topics the same number, or put "
            ".repartition() before the step"
        )
    return next(iter(fixed.values()), None)
