"""What a consumer does in its own thread: every call of librdkafka's consumer is made here.

A rebalance is called back amid a call. The thread then tells the event loop, and makes the calls
that the owner's listener asks for, until the listener is done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException
from confluent_kafka import Consumer as LibrdkafkaConsumer
from confluent_kafka import TopicPartition as Place

from millstream.log.errors import LogError, UnknownTopicError
from millstream.log.record import (
    ConsumerGroupMetadata,
    OffsetAndMetadata,
    RecordBatch,
    TopicPartition,
)

from .columns import gone_back, sorted_out
from .errors import error_of, raised_as_ours
from .group_metadata import group_metadata_from
from .own_thread import OwnThread
from .rebalance import Rebalance
from .recent_topics import RecentTopics
from .retrying import patiently

__all__ = ["Fetched", "Reader"]

logger = logging.getLogger("millstream.log.librdkafka")

_WAIT_SLICE_S: Final = 0.05
"""How soon a wait for records notices that its owner wants something else."""
_RECORDS_MAX: Final = 10_000
_ANSWER_S: Final = 30.0


class Fetched(NamedTuple):
    """What a fetch brought. `seeks` is how many seeks were made before it ended."""

    batches: list[RecordBatch]
    positions: dict[TopicPartition, int]
    errors: list[LogError]
    seeks: int
    member: ConsumerGroupMetadata | None


class Reader:
    """One consumer of librdkafka. Its methods are called in `thread`, except for `hurry`.

    Args:
        tell: called in the thread with each rebalance.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        thread: OwnThread,
        tell: Callable[[Rebalance], None],
        recent: RecentTopics,
        *,
        group: str | None,
        is_cooperative: bool,
        fetch_bytes: int,
    ) -> None:
        self._group = group
        self._thread = thread
        self._tell = tell
        self._recent = recent
        self._is_cooperative = is_cooperative
        self._fetch_bytes = fetch_bytes
        self._what = f"Group {group}" if group is not None else "Consumer"
        self._fatal: LogError | None = None
        self._failures: list[LogError] = []
        self._settings = {**settings, "error_cb": self._failed, "logger": logger}
        self._consumer: LibrdkafkaConsumer | None = None
        self._places: list[Place] = []
        self._wanted: dict[TopicPartition, int | None] | None = None
        self._paused: set[TopicPartition] = set()
        self._starts: dict[TopicPartition, int] = {}  # where each was told to begin
        self._record_bytes = 100.0
        self._subscribed: list[str] | None = None
        self._is_closing = self._is_hurried = False
        self._seeks = 0
        self._known: tuple[int, dict[TopicPartition, int]] = 0, {}  # how many seeks; positions

    def hurry(self, *, is_hurried: bool = True) -> None:
        """From any thread: have fetches stop waiting, or wait again."""
        self._is_hurried = is_hurried

    @property
    def _opened(self) -> LibrdkafkaConsumer:
        if self._consumer is None:
            with raised_as_ours(self._what):
                self._consumer = LibrdkafkaConsumer(self._settings)
        return self._consumer

    # Reading

    def fetch(self, timeout_s: float, paused: Collection[TopicPartition], limit: int) -> Fetched:
        """Up to `limit` records, but no more than about a fetch's bytes; waits for the first."""
        consumer = self._opened
        self._read_wanted(consumer)
        self._resume(paused)
        end = time.monotonic() + timeout_s
        with raised_as_ours(self._what):
            while True:
                remaining_s = max(0.0, end - time.monotonic())
                messages = consumer.consume(1, min(remaining_s, _WAIT_SLICE_S))
                if messages or remaining_s <= 0 or self._is_hurried or self._thread.has_jobs:
                    break
            if messages:
                count = min(limit, int(self._fetch_bytes / self._record_bytes) + 1, _RECORDS_MAX)
                if count > 1:
                    messages += consumer.consume(count - 1, 0)
                self._record_bytes = max(1.0, sum(map(len, messages)) / len(messages))
        found = sorted_out(messages)
        self._pause({TopicPartition(each.topic, each.partition) for each in found.batches}, paused)
        errors = [each for each in map(self._error, found.errors) if each is not None]
        errors += self._failures
        self._failures = [] if self._fatal is None else [self._fatal]
        seeks, known = self._known
        if seeks == self._seeks:
            for tp, at in gone_back(found.batches, known).items():
                found.ends.pop(tp, None)
                with suppress(KafkaException):  # then it is told with the next records
                    consumer.seek(Place(*tp, at))  # librdkafka's position does not go back
                    self._starts[tp] = at
        positions = self._positions(consumer)
        for tp, end in found.ends.items():  # behind batches that compaction has left empty, too
            positions[tp] = max(end, positions.get(tp, end))
        self._known = self._seeks, positions
        return Fetched(found.batches, positions, errors, self._seeks, self._member())

    def _positions(self, consumer: LibrdkafkaConsumer) -> dict[TopicPartition, int]:
        if not self._places:
            return {}
        return {
            TopicPartition(at.topic, at.partition): at.offset
            for at in consumer.position(self._places)
            if at.offset >= 0
        }

    def _error(self, error: KafkaError) -> LogError | None:
        """What the owner must know of."""
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._fatal = error_of(error, self._what)
            return self._fatal
        if not (error.retriable() or error.code() in _PASSING):
            return error_of(error, self._what)
        logger.warning("%s: %s", self._what, error.str())
        return None

    def _failed(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._AUTHENTICATION:
            self._failures.append(error_of(error, self._what))
            if error.fatal():
                self._fatal = self._failures[-1]
        else:
            logger.info("%s: %s", self._what, error.str())

    def _pause(self, found: set[TopicPartition], paused: Collection[TopicPartition]) -> None:
        """A paused partition is fetched on until something of it comes: a pause makes librdkafka
        forget what it has fetched ahead, and most are short."""
        new = found.intersection(paused) - self._paused
        if new:
            self._paused |= new
            self._opened.pause([Place(*each) for each in new])

    def _resume(self, paused: Collection[TopicPartition]) -> None:
        over = self._paused.difference(paused)
        if over:
            self._paused -= over
            self._opened.resume([Place(*each) for each in over])

    # What is read

    def subscribe(self, topics: list[str]) -> None:
        """Take part in the group; librdkafka looks again for what is not there after minutes. Done
        again nothing happens: librdkafka would leave the group, and join it anew."""
        if topics == self._subscribed:
            return
        self.partitions_of([each for each in topics if each in self._recent])
        self._wanted = None
        with raised_as_ours(self._what):
            self._opened.subscribe(
                topics,
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._lost,
            )
        self._subscribed = topics

    def unsubscribe(self) -> None:
        """Leave the group, giving up what is assigned."""
        consumer = self._opened
        with raised_as_ours(self._what):
            self._subscribed = None
            consumer.unsubscribe()
            end = time.monotonic() + _ANSWER_S
            while self._places and time.monotonic() < end:
                consumer.consume(1, _WAIT_SLICE_S)

    def assign(self, starts: Mapping[TopicPartition, int]) -> int:
        """Read exactly these from the next fetch on, those that are new from the given offsets;
        counts as a seek, whose number it answers.

        Until then seeks only change these offsets. For librdkafka must not be told to seek while it
        looks for where to begin: it sometimes begins there all the same, after the seek.
        """
        before = self._wanted
        if before is None:
            before = {TopicPartition(at.topic, at.partition): None for at in self._places}
        self._wanted = {tp: before.get(tp, start) for tp, start in starts.items()}
        self._seeks += 1
        return self._seeks

    def _read_wanted(self, consumer: LibrdkafkaConsumer) -> None:
        if self._wanted is None:
            return
        wanted, self._wanted = self._wanted, None
        now = {TopicPartition(at.topic, at.partition) for at in self._places}
        starts = {tp: start for tp, start in wanted.items() if start is not None}
        added = [Place(*tp, start) for tp, start in starts.items()]
        kept = wanted.keys() - starts.keys()
        gone = [Place(*tp) for tp in now - kept]
        self._paused &= kept
        with raised_as_ours(self._what):
            if not now:
                consumer.assign(added)
            else:
                if gone:
                    consumer.incremental_unassign(gone)
                if added:
                    consumer.incremental_assign(added)
        self._places = [Place(*tp) for tp in wanted]
        self._starts = {tp: start for tp, start in self._starts.items() if tp in kept} | starts

    def seek(self, partition: TopicPartition, offset: int) -> int:
        """Go on at `offset`; answers the number of this seek."""
        self._seeks += 1
        if self._wanted is not None and self._wanted.get(partition) is not None:
            self._wanted[partition] = offset
            return self._seeks
        with raised_as_ours(f"Partition {partition}"):
            try:
                self._opened.seek(Place(*partition, offset))
            except KafkaException as error:
                if error.args[0].code() not in _BUSY:
                    raise
                self._begin_again(partition, offset)
        self._starts[partition] = offset
        return self._seeks

    def _begin_again(self, partition: TopicPartition, offset: int) -> None:
        """librdkafka does not seek while it looks for where to begin: it is told that instead."""
        consumer = self._opened
        self._paused.discard(partition)
        if self._is_cooperative or self._subscribed is None:
            consumer.incremental_unassign([Place(*partition)])
            consumer.incremental_assign([Place(*partition, offset)])
            return
        self._paused.clear()
        self._starts |= {**self._positions(consumer), partition: offset}
        places = [TopicPartition(at.topic, at.partition) for at in self._places]
        consumer.assign([Place(*tp, self._starts.get(tp, OFFSET_INVALID)) for tp in places])

    def check(self, partitions: Collection[TopicPartition]) -> None:
        """Raises UnknownTopicError when one does not exist."""
        counts = self.partitions_of({each.topic for each in partitions})
        for topic, number in partitions:
            if not 0 <= number < counts[topic]:
                raise UnknownTopicError(
                    f"Topic {topic} has partitions 0 to {counts[topic] - 1}, not {number}."
                )

    def partitions_of(self, topics: Collection[str]) -> dict[str, int]:
        """How many each has. Raises UnknownTopicError."""
        return {topic: patiently(partial(self._partition_count, topic)) for topic in topics}

    def _partition_count(self, topic: str) -> int:
        with self._recent.known(topic), raised_as_ours(f"Topic {topic}"):
            found = self._opened.list_topics(topic, _ANSWER_S).topics[topic]
            if found.error is not None:
                raise error_of(found.error, f"Topic {topic}")
        return len(found.partitions)

    # A rebalance

    def _assigned(self, consumer: LibrdkafkaConsumer, places: list[Place]) -> None:
        change = self._told("assigned", places)
        self._seeks += 1
        self._starts.update(change.starts)
        started = [Place(*tp, change.starts.get(tp, OFFSET_INVALID)) for tp in change.partitions]
        if self._is_cooperative:
            consumer.incremental_assign(started)
            self._places += [Place(*tp) for tp in change.partitions]
        else:
            consumer.assign(started)
            self._places = [Place(*tp) for tp in change.partitions]

    def _revoked(self, consumer: LibrdkafkaConsumer, places: list[Place]) -> None:
        self._give_up(consumer, self._told("revoked", places), places)

    def _lost(self, consumer: LibrdkafkaConsumer, places: list[Place]) -> None:
        self._give_up(consumer, self._told("lost", places), places)

    def _give_up(
        self, consumer: LibrdkafkaConsumer, change: Rebalance, places: list[Place]
    ) -> None:
        gone = set(change.partitions)
        self._paused -= gone
        for each in self._starts.keys() & gone:
            del self._starts[each]
        self._places = [
            at for at in self._places if TopicPartition(at.topic, at.partition) not in gone
        ]
        if self._is_cooperative:
            consumer.incremental_unassign(places)
        else:
            consumer.unassign()

    def _told(self, kind: Literal["assigned", "revoked", "lost"], places: list[Place]) -> Rebalance:
        partitions = sorted(TopicPartition(at.topic, at.partition) for at in places)
        change = Rebalance(kind, partitions, self._member())
        if not self._is_closing:
            self._tell(change)
            self._thread.serve_until(change.is_over)
        return change

    # The group

    def _member(self) -> ConsumerGroupMetadata | None:
        if self._group is None:
            return None
        return group_metadata_from(self._opened.consumer_group_metadata())

    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit, and wait for it."""
        patiently(partial(self._commit, offsets), _ANSWER_S)

    def _commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        places = [Place(*tp, each.offset, each.metadata) for tp, each in offsets.items()]
        try:
            with raised_as_ours(self._what):
                for at in self._opened.commit(offsets=places, asynchronous=False) or ():
                    error = getattr(at, "error", None)
                    if error is not None:
                        raise error_of(error, f"Partition {at.topic}-{at.partition}")
        except LogError as error:
            if self._fatal is not None:  # of which it says no more than that there was one
                raise self._fatal from error
            raise

    def committed(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """What the group committed."""
        return patiently(partial(self._committed, partitions), _ANSWER_S)

    def _committed(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        with raised_as_ours(self._what):
            found = self._opened.committed([Place(*tp) for tp in partitions], _ANSWER_S)
        answer: dict[TopicPartition, OffsetAndMetadata | None] = {}
        for at in found:
            tp = TopicPartition(at.topic, at.partition)
            if at.error is not None:
                raise error_of(at.error, f"Partition {tp}")
            known = at.offset >= 0
            answer[tp] = OffsetAndMetadata(at.offset, at.metadata or "") if known else None
        return answer

    def close(self) -> None:
        """Leave the group. Listeners hear of it before: librdkafka answers nothing amid its end."""
        if self._consumer is None:
            return
        if self._subscribed is not None and self._places:
            self._told("revoked", self._places)
        self._is_closing = True
        with raised_as_ours(self._what):
            self._consumer.close()


_BUSY = {KafkaError._STATE, KafkaError._PREV_IN_PROGRESS}  # a partition that begins, or ends
_PASSING = {
    KafkaError._MAX_POLL_EXCEEDED,  # the partitions are lost, which is told by itself
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
}
