"""The end of a run with `--until-end`: what is there now is processed, windows are closed, and that
is it.

The end of an input topic is where it ended when the run began; nothing later is read, and what an
open transaction has there is waited for. The end of a topic that the app itself writes is known
only when everything upstream has ended and is committed. So sub-topologies end one after the other,
upstream first: consumed to the end, windows closed by moving stream time just past them, committed;
then the next. The moved stream time is committed with the offsets: a later run knows that these
windows are closed.
"""

from __future__ import annotations

from collections.abc import Mapping

from millstream.log.reading_end import ReadingEnd
from millstream.log.record import TopicPartition

from .internal_topics import RunTopics
from .run_context import RunContext
from .topology import SubTopology

__all__ = ["EndOfInput"]


class EndOfInput:
    """Where a run ends, and which sub-topologies have ended."""

    def __init__(
        self,
        context: RunContext,
        topics: RunTopics,
        beginnings: Mapping[TopicPartition, int],
        limits: ReadingEnd,
    ) -> None:
        self._context = context
        self._topics = topics
        self._beginnings = beginnings
        self._limits = limits
        self.limits = limits.offsets
        """Ends of the partitions that others write; offsets, exclusive."""
        self._ended: set[int] = set()

    @classmethod
    async def now(cls, context: RunContext, topics: RunTopics) -> EndOfInput:
        """The end that the input has at this moment, or an earlier one the context sets."""
        written = {
            context.names.in_log(sink)
            for subtopology in context.topology.subtopologies
            for sink in subtopology.sinks
        }
        inputs = [
            partition
            for subtopology in context.topology.subtopologies
            for partition in _inputs(context, topics, subtopology)
            if partition.topic not in written
        ]
        ends = (await ReadingEnd.now(context.log, inputs)).offsets
        limits = {tp: min(end, context.limits.get(tp, end)) for tp, end in ends.items()}
        beginnings = await context.log.beginning_offsets(inputs)
        return cls(context, topics, beginnings, ReadingEnd(context.log, limits))

    @property
    def is_over(self) -> bool:
        """Whether every sub-topology has ended."""
        return len(self._ended) == len(self._context.topology.subtopologies)

    async def next_ended(self, positions: Mapping[TopicPartition, int]) -> SubTopology | None:
        """A sub-topology whose input is consumed and that has not ended yet.

        Args:
            positions: the next offset to process, of every partition assigned.
        """
        for subtopology in self._context.topology.subtopologies:
            if subtopology.id in self._ended:
                continue
            if not subtopology.upstream - {subtopology.id} <= self._ended:
                continue
            inputs = _inputs(self._context, self._topics, subtopology)
            internal = [partition for partition in inputs if partition not in self.limits]
            ends = dict(self.limits)
            if internal:
                ends.update((await ReadingEnd.now(self._context.log, internal)).offsets)
            if all(positions.get(partition, -1) >= ends[partition] for partition in inputs):
                return subtopology
        await self._limits.notice(positions)
        return None

    def note(self, subtopology: SubTopology) -> None:
        """Remember that a sub-topology has closed its windows and committed."""
        self._ended.add(subtopology.id)

    def progress(self, positions: Mapping[TopicPartition, int]) -> tuple[int, int]:
        """Records of the input done, and all of them."""
        done = sum(positions.get(tp, start) - start for tp, start in self._beginnings.items())
        return done, sum(self.limits[tp] - start for tp, start in self._beginnings.items())


def _inputs(
    context: RunContext, topics: RunTopics, subtopology: SubTopology
) -> list[TopicPartition]:
    names = [context.names.in_log(source) for source in subtopology.sources]
    return [
        TopicPartition(name, number) for name in names for number in range(topics.partitions[name])
    ]
