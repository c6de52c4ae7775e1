"""The steps of an app as they are made, their names, and the position a stream has among them.

Names that outlive a process (stores, changelogs, repartition topics) come from the names of
functions, from `name=`, or from the topic, decorated function or pipeline a step belongs to; never
from a counter, so that a step added elsewhere renames nobody's state. Two steps that want the same
name are an error that says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeVar

from .errors import OnError, TopologyError
from .functions import UserFunction, user_function
from .hints import UNKNOWN
from .nodes import Node, SinkNode, SourceNode
from .serde import Serde, serde_for, windowed_serde
from .topology import GlobalTableSpec, TopicSpec, repartition_topic

__all__ = ["Flow", "Graph", "TypeHint", "check_name"]

N = TypeVar("N", bound=Node)

TypeHint = Any
"""A type or a Serde, as given to `key=`, `value=`, `key_type=`, `value_type=`."""

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_NAME_LENGTH_MAX: Final = 200
"""Kafka allows topics 249 characters; the app's id and `-repartition` come on top of a name."""


def check_name(name: str, what: str) -> str:
    """The name, if a topic can be named after it.

    Raises:
        TopologyError: it has other characters than a-z, A-Z, 0-9, `.`, `_`, `-`, or too many.
    """
    if not _NAME.fullmatch(name) or len(name) > _NAME_LENGTH_MAX or name in (".", ".."):
        raise TopologyError(
            f"{what} cannot be called {name!r}: topics are named after it, so use up to "
            f"{_NAME_LENGTH_MAX} of a-z, A-Z, 0-9, '.', '_' and '-'; give another name"
        )
    return name


class Graph:
    """All steps of an app, parents before children."""

    def __init__(self, app_id: str) -> None:
        self.app_id = check_name(app_id, "an app")
        self.nodes: list[Node] = []
        self.topics: dict[str, TopicSpec] = {}
        self.global_tables: dict[str, GlobalTableSpec] = {}
        self.pipeline = ""
        """The name of the pipeline being built."""
        self.unused: dict[int, str] = {}
        """Streams made with options for a decorator that was not applied, and what they are."""
        self._claimed: dict[str, str] = {}
        self._sources: dict[str, SourceNode] = {}
        self._counts: dict[str, int] = {}

    def add(self, node: N) -> N:
        self.nodes.append(node)
        return node

    def claim(self, name: str, what: str) -> str:
        """Reserve a name that state or topics are named after.

        Raises:
            TopologyError: another step has it, or no topic can be named so.
        """
        other = self._claimed.get(check_name(name, what))
        if other is not None:
            raise TopologyError(
                f"app {self.app_id!r}: {what} and {other} would both be called {name!r}; "
                "give one of them name=..."
            )
        self._claimed[name] = what
        return name

    def step_name(self, name: str | None, kind: str, function: UserFunction | None = None) -> str:
        """A name for a step without state: claimed if it was given, else only to look at."""
        if name is not None:
            return self.claim(name, f"a {kind} step")
        stem = f"{kind}-{function.name}" if function is not None and function.name else kind
        self._counts[stem] = number = self._counts.get(stem, 0) + 1
        return stem if number == 1 else f"{stem}-{number}"

    def declare(self, spec: TopicSpec) -> TopicSpec:
        """Enter a topic.

        Raises:
            TopologyError: it is declared already.
        """
        if spec.name in self.topics:
            raise TopologyError(
                f"topic {spec.name!r} is declared twice: keep what the first app.topic() returned, "
                "and declare a topic before it is written to by name"
            )
        self.topics[spec.name] = spec
        return spec

    def source(self, topic: TopicSpec) -> SourceNode:
        """The step that reads a topic; one per topic."""
        node = self._sources.get(topic.name)
        if node is None:
            node = self.add(SourceNode(name=topic.name, topic=topic))
            self._sources[topic.name] = node
        return node


@dataclass(frozen=True, slots=True)
class Flow:
    """Where a stream stands in the graph, and what is known of its records."""

    graph: Graph
    node: Node
    key: Serde[Any]
    value: Serde[Any]
    anchor: str
    """The topic or decorated function it comes from: unnamed state is named after it."""
    moved: bool = False
    """The key may have changed: records may lie in the wrong partition for it."""
    delay_ms: int = 0
    """How much later than their timestamp records come: the grace of the windows they come from."""

    def then(self, node: Node, **changes: Any) -> Flow:
        """The flow behind another step."""
        self.graph.add(node)
        return replace(self, node=node, **changes)

    def function(
        self,
        call: Callable[..., Any],
        role: str,
        *,
        values: int = 1,
        windowed: bool = False,
        allow: Literal["plain", "many", "async"] = "plain",
    ) -> UserFunction:
        """Look at a function for a step here.

        Raises:
            TopologyError: it does not fit; the message says why.
        """
        function = user_function(call, values, role)
        if function.asks_for("window") and not (windowed or self.key.window_size_ms):
            raise TopologyError(
                f"{role}: {function.where} asks for a window, but there is none here"
            )
        if function.is_async and allow != "async":
            raise TopologyError(
                f"{role}: {function.where} is async; only @app.stream and map_values take "
                "async functions"
            )
        if function.gives_many and allow == "plain":
            raise TopologyError(
                f"{role}: {function.where} yields; use @app.stream, flat_map or flat_map_values"
            )
        return function

    def state_name(self, name: str | None, function: UserFunction | None, kind: str) -> str:
        """The name of a step with state; its store and topics are named after it."""
        stem = function.name if function is not None else ""
        unnamed = stem or f"{self.graph.pipeline or self.anchor}-{kind}"
        return self.graph.claim(unnamed if name is None else name, f"a {kind}")

    def repartitioned(
        self, name: str, *, partitions: int | None = None, on_error: OnError | None = None
    ) -> Flow:
        """The flow behind an internal topic, each record in the partition of its key."""
        sink = self.repartition_sink(name, self.value, partitions, on_error)
        self.graph.add(sink)
        return self.behind(sink)

    def repartition_sink(
        self, name: str, value: Serde[Any], partitions: int | None, on_error: OnError | None
    ) -> SinkNode:
        return SinkNode(
            name=f"{name}-repartition-sink",
            parents=(self.node,),
            on_error=on_error,
            topic=repartition_topic(self.graph.app_id, name),
            key_serde=self.key,
            value_serde=value,
            windowed=self.key.window_size_ms > 0,
            partitions=partitions,
            is_internal=True,
        )

    def behind(self, sink: SinkNode) -> Flow:
        """What the sink's topic gives to those who read it."""
        topic = TopicSpec(sink.topic, sink.key_serde, sink.value_serde)
        source = self.graph.source(topic)
        return replace(self, node=source, value=sink.value_serde, moved=False, delay_ms=0)

    def sink(
        self, topic: str, name: str, *, parents: tuple[Node, ...], on_error: OnError | None = None
    ) -> SinkNode:
        """A step that writes a topic, in the topic's types; in the stream's if it is not declared.

        Windowed keys are always written in Kafka's layout. The step is not yet part of the graph.
        """
        spec = self.graph.topics.get(topic)
        if spec is None:
            check_name(topic, "a topic")
            spec = self.graph.declare(TopicSpec(topic, self.key, self.value))
        key = spec.key_serde
        if self.key.window_size_ms and not key.window_size_ms:
            key = windowed_serde(key, self.key.window_size_ms)
        return SinkNode(
            name=name,
            parents=parents,
            on_error=on_error,
            topic=topic,
            key_serde=key,
            value_serde=spec.value_serde,
            windowed=key.window_size_ms > 0,
        )

    def value_serde(self, function: UserFunction, value_type: TypeHint) -> Serde[Any]:
        """The serde of what a function gives: as said, as annotated, else JSON."""
        hint = function.value_type() if value_type is None else value_type
        return serde_for(hint, Any)

    def key_serde(self, function: UserFunction, key_type: TypeHint) -> Serde[Any]:
        """The serde of the keys a function gives: as said, as annotated, else str."""
        hint = function.value_type() if key_type is None else key_type
        return serde_for(str if hint is UNKNOWN or hint is Any else hint)
