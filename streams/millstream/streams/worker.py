"""The worker: the one loop that reads, processes and commits.

    poll -> intake (which batch next) -> task.process -> outputs to the producer -> commit when due

The worker is a member of the group named after the app. Partitions assigned to it become tasks
(`running_tasks.py`); before partitions are taken away their work is committed. Everything is owned
by one event loop; a batch is processed without an await, and between batches the loop breathes.

When a commit fails because the log asks to try again or the group moved on, nothing of it happened
or nobody knows: the transaction is aborted, all tasks are lost and opened again from what the log
says, and the records are read again. So it is on a log over the network when the producer is
fenced: its transaction has lasted for too long, as when the machine slept, and others have its work
by now. Any other error ends the run, with everything uncommitted rolled back."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, NamedTuple

from millstream.log.errors import (
    IllegalGenerationError,
    LogError,
    ProducerFencedError,
    RebalanceInProgressError,
    UnknownMemberError,
)
from millstream.log.record import ConsumerGroupMetadata, RecordBatch, TopicPartition

from .commit_cycle import CommitCycle
from .global_tables import GlobalTables
from .intake import WAITING_RECORDS_MAX
from .internal_topics import RunTopics, prepare_topics
from .journal import Journal
from .reading import Reading
from .restore import POLL_MS
from .run_context import RunContext
from .running_tasks import RunningTask, RunningTasks
from .state import Store
from .state_thread import StateThread
from .topology import Topology, changelog_topic
from .until_end import EndOfInput

if TYPE_CHECKING:
    from .queries import StoreView

__all__ = ["Worker", "WorkerStats"]

IDLE_WAIT_MS: Final = 100
"""How long a poll waits at most: how soon a stop or an idle time-out is noticed."""
SLICE_MAX_MS: Final = 100
"""How long user functions may keep the event loop to themselves, roughly."""
RECOVERIES_MAX: Final = 5
"""Attempts in a row that may end in a retriable error."""

_PRODUCER_CONFIG: Mapping[str, str | int] = {"batch.size": 256 << 10, "linger.ms": 50}
_EMBEDDED_PRODUCER_CONFIG: Mapping[str, str | int] = {
    **_PRODUCER_CONFIG,
    "transaction.timeout.ms": 900_000,  # a function may block for long; a dead worker is fenced
}
_SHARED_PRODUCER_CONFIG: Mapping[str, str | int] = {
    **_PRODUCER_CONFIG,
    # Who takes over from a dead worker has to wait for the end of its transaction.
    "transaction.timeout.ms": 10_000,
}
_CONSUMER_CONFIG: Mapping[str, str | int] = {
    "enable.auto.commit": "false",
    "max.partition.fetch.bytes": 256 << 10,
    "fetch.max.bytes": 256 << 10,
}
_EMBEDDED_CONSUMER_CONFIG: Mapping[str, str | int] = {
    **_CONSUMER_CONFIG,
    # A function that blocks the event loop keeps heartbeats waiting, too. And a worker that dies
    # takes the coordinator with it, so that nobody waits for the end of its session.
    "max.poll.interval.ms": 1_800_000,
    "session.timeout.ms": 1_800_000,
}
_SHARED_CONSUMER_CONFIG: Mapping[str, str | int] = {
    **_CONSUMER_CONFIG,
    # How soon a dead worker's partitions go to others: no sooner does a stock cluster let it be.
    "session.timeout.ms": 6_000,
    # How soon the living hear that partitions move, once or twice for each rebalance.
    "heartbeat.interval.ms": 500,
}
_GROUP_MOVED_ON = (IllegalGenerationError, UnknownMemberError, RebalanceInProgressError)


class WorkerStats(NamedTuple):
    """What a worker has done since it started. Counts of records."""

    records: int = 0
    outputs: int = 0
    late: int = 0
    dropped: int = 0
    skipped: int = 0
    dead_letters: int = 0
    restored: int = 0
    commits: int = 0
    turns: int = 0
    """How often the loop went round."""


class Worker:
    """One worker of an app: a member of its group, and one transactional producer.

    Args:
        name: no other worker of the app has it; who gets it next takes over what this one left.
    """

    def __init__(self, context: RunContext, *, name: str = "0") -> None:
        self._context = context
        self._clock = context.clock
        self._transactional_id = (
            f"{context.app_id}-{name}" if context.app.guarantee == "exactly_once" else None
        )
        self._thread = StateThread()
        self._globals = GlobalTables(context)
        self._tasks = RunningTasks(context, self._globals.stores, self._thread)
        self._topics = RunTopics()
        is_embedded = context.log.url.startswith(("file:", "memory:"))
        self._consumer = context.log.consumer(
            group=context.app_id,
            config=_EMBEDDED_CONSUMER_CONFIG if is_embedded else _shared_config(context.topology),
        )
        self._journal = Journal(
            context.log,
            self._consumer,
            self._transactional_id,
            _EMBEDDED_PRODUCER_CONFIG if is_embedded else _SHARED_PRODUCER_CONFIG,
            is_shared=not is_embedded,
        )
        self._reading = Reading(context.log, self._consumer, self._tasks)
        self._cycle = CommitCycle(context, self._journal, self._thread, self._topics)
        self._end: EndOfInput | None = None
        self._recoveries = 0
        self._refused: ConsumerGroupMetadata | None = None  # as whom the group knows it no more
        self._slice_records = WAITING_RECORDS_MAX
        self._turns = 0

    async def run(self, *, stop: asyncio.Event, until_end: bool = False) -> bool:
        """Work until `stop` is set, or until the end of the input; True when the end was reached.

        Either way everything processed is committed and nothing is left to restore.

        Raises:
            ProcessingError, SerdeError: a record failed; nothing of it is committed.
            MillstreamError: the log or a store failed.
        """
        context = self._context
        self._topics.update(await prepare_topics(context))
        async with AsyncExitStack() as stack:
            stack.callback(self._thread.close)
            stack.push_async_callback(self._globals.close)
            await self._globals.load()
            await stack.enter_async_context(self._consumer)
            await stack.enter_async_context(self._journal)
            stack.push_async_callback(self._close_all)
            if until_end:
                self._end = await EndOfInput.now(context, self._topics)
                self._reading.limits = self._end.limits
            await self._subscribe()
            await self._loop(stop)
            return self._end is not None and self._end.is_over

    def store(self, name: str) -> StoreView:
        """A store to read from, while the app runs.

        Raises:
            UnknownStoreError: the app has no store of this name.
        """
        from .queries import StoreView, spec_named

        topology = self._context.topology
        specs = [store for part in topology.subtopologies for store in part.stores]
        specs += [table.store for table in topology.global_tables]
        return StoreView(spec_named(name, specs), self)

    def parts(self, store: str) -> dict[int, Store]:
        """The open parts of a store by partition, for `StoreView`."""
        if store in self._globals.stores:
            return {0: self._globals.stores[store]}
        return {task.partition: task.stores[store] for task in self._tasks if store in task.stores}

    def part_count(self, store: str) -> int:
        """How many parts a store has, for `StoreView`."""
        changelog = changelog_topic(self._context.app_id, store)
        return self._topics.partitions.get(changelog) or len(self.parts(store)) or 1

    def stats(self) -> WorkerStats:
        """What was done so far."""
        counters = self._tasks.counters()
        return WorkerStats(
            records=counters.records,
            outputs=self._cycle.records_sent,
            late=counters.late,
            dropped=counters.dropped,
            skipped=counters.skipped,
            dead_letters=counters.dead_letters,
            restored=self._tasks.restored_records,
            commits=self._cycle.commits,
            turns=self._turns,
        )

    async def _subscribe(self) -> None:
        sources = {
            self._context.names.in_log(source)
            for subtopology in self._context.topology.subtopologies
            for source in subtopology.sources
        }
        await self._consumer.subscribe(
            sorted(sources),
            on_assigned=self._assigned,
            on_revoked=self._revoked,
            on_lost=self._lost,
        )

    # The loop.

    async def _loop(self, stop: asyncio.Event) -> None:
        is_over = False
        while not (is_over or stop.is_set()):
            try:
                is_over = await self._turn()
            except LogError as error:
                if not (error.retriable or self._others_have_it(error)):
                    raise
                await self._recover(error)
        try:
            await self._commit()
        except LogError as error:
            if not self._others_have_it(error):
                raise
            await self._lose_all()
        await self._cycle.purge()

    def _others_have_it(self, error: LogError) -> bool:
        """Whether what was not committed is theirs to do, or this worker's when it begins again."""
        is_fenced = self._journal.is_shared and isinstance(error, ProducerFencedError)
        return is_fenced or isinstance(error, _GROUP_MOVED_ON)

    async def _turn(self) -> bool:
        """Fetch once, process what can be, commit when due; True when the end is reached."""
        self._globals.check()
        self._turns += 1
        idle_ms = IDLE_WAIT_MS if self._end is None else POLL_MS
        wait_ms = self._cycle.wait_ms(self._tasks, idle_ms)
        for batch in await self._consumer.poll_batches(wait_ms):
            self._reading.accept(batch)
        if self._refused not in (None, self._consumer.group_metadata()):
            self._refused = None  # it is in the group again, perhaps with partitions it had before
            await self._begin_again(
                [tp for tp in self._consumer.assignment() if not self._tasks.has(tp)]
            )
        await self._process_waiting()
        self._reading.pause_and_resume()
        if self._end is None:
            await self._advance_idle()
        if self._cycle.is_due(self._tasks):
            await self._commit()
        return self._end is not None and await self._finish_what_ended(self._end)

    async def _process_waiting(self) -> None:
        intakes = self._tasks.intakes
        ended: frozenset[TopicPartition] = frozenset()
        if any(intake.has_choice and not intake.is_empty for intake in intakes):
            ended = await self._reading.at_their_end()
        before: RunningTask | None = None
        for intake in intakes:
            while (batch := intake.next(ended, self._slice_records)) is not None:
                running = self._tasks.of(batch)
                # Outputs of one task gather to large batches; between tasks order is kept.
                if before is not None and (running is not before or running.task.has_async):
                    await self._cycle.send_outputs(before)
                before = running
                self._process(running, batch)
                if self._cycle.is_due(self._tasks):
                    await self._commit()
        if before is not None:
            await self._cycle.send_outputs(before)

    def _process(self, running: RunningTask, batch: RecordBatch) -> None:
        batch.topic = self._context.names.in_code(batch.topic)
        running.is_dirty = True
        started_ms = self._clock.monotonic_ms()
        running.task.process(batch)
        running.active_ms = self._clock.monotonic_ms()
        running.stream_time_then = running.task.stream_time
        self._adapt_slices(len(batch), running.active_ms - started_ms)

    def _adapt_slices(self, records: int, took_ms: int) -> None:
        """With slow functions take fewer records at once: nothing else runs meanwhile, no commit
        and no heartbeat."""
        if took_ms > SLICE_MAX_MS:
            self._slice_records = max(1, records * SLICE_MAX_MS // took_ms)
        elif records == self._slice_records and took_ms < SLICE_MAX_MS // 4:
            self._slice_records = min(2 * self._slice_records, WAITING_RECORDS_MAX)

    async def _advance_idle(self) -> None:
        """Let the wall clock move the stream time of tasks that nothing comes to any more, as soon
        as that closes a window."""
        timeout_ms = self._context.app.idle_timeout_ms
        if timeout_ms is None:
            return
        now_ms = self._clock.monotonic_ms()
        for running in self._tasks:
            silent_ms = now_ms - running.active_ms
            if silent_ms < timeout_ms or running.stream_time_then < 0:
                continue
            stream_time = running.stream_time_then + silent_ms
            next_close = running.task.next_close_ms
            if running.intake.is_empty and next_close is not None and next_close <= stream_time:
                running.is_dirty = True
                running.task.advance(stream_time)
                await self._cycle.send_outputs(running)

    async def _finish_what_ended(self, end: EndOfInput) -> bool:
        while (subtopology := await end.next_ended(self._reading.positions())) is not None:
            for running in self._tasks:
                if running.subtopology is subtopology:
                    await self._close_windows(running)
            await self._commit()
            end.note(subtopology)
        return end.is_over

    async def _close_windows(self, running: RunningTask) -> None:
        """All of them, those too that open when others close."""
        running.is_dirty = True
        while True:
            running.task.close_windows()
            await self._cycle.send_outputs(running)
            if running.task.next_close_ms is None:
                return

    async def _commit(self) -> None:
        await self._cycle.commit(self._tasks, self._reading.positions())
        self._recoveries = 0
        self._report()

    async def _recover(self, error: LogError) -> None:
        """A commit failed, or nobody knows: begin again from what the log says."""
        self._recoveries += 1
        if self._recoveries > RECOVERIES_MAX:
            raise error
        is_refused = isinstance(error, _GROUP_MOVED_ON)
        self._refused = self._consumer.group_metadata() if is_refused else None
        await self._lose_all()
        if not is_refused:  # else polls bring the new assignment
            await self._begin_again(self._consumer.assignment())

    def _report(self) -> None:
        if self._end is None:
            self._context.progress("process", self._tasks.counters().records, None)
        else:
            self._context.progress("process", *self._end.progress(self._reading.positions()))

    # Partitions come and go. These run inside poll_batches.

    async def _assigned(self, partitions: Collection[TopicPartition]) -> None:
        await self._take_over([tp for tp in partitions if not self._tasks.has(tp)])

    async def _revoked(self, partitions: Collection[TopicPartition]) -> None:
        await self._commit()
        await self._tasks.close(self._tasks.reading(partitions))
        self._reading.forget(partitions)

    async def _lost(self, partitions: Collection[TopicPartition]) -> None:
        """Others have them. The transaction held the work of all tasks: all begin again."""
        await self._lose_all()
        await self._begin_again(self._consumer.assignment() - set(partitions))

    async def _take_over(self, partitions: Collection[TopicPartition]) -> None:
        if partitions:
            await self._tasks.open(await self._reading.begin(partitions))

    async def _begin_again(self, partitions: Collection[TopicPartition]) -> None:
        await self._take_over(partitions)
        await self._reading.seek_to_begin(partitions)

    async def _lose_all(self) -> None:
        """Nothing since the last commit happened; the log decides about a commit on its way."""
        await self._journal.reset()
        await self._close_all()

    async def _close_all(self) -> None:
        inputs = [partition for running in self._tasks for partition in running.inputs]
        await self._tasks.close(list(self._tasks))
        self._reading.forget(inputs)


def _shared_config(topology: Topology) -> Mapping[str, str | int]:
    """Range keeps the same partitions of several topics together, which joins need; where nothing
    is joined, tasks that stay where they are need not stop for those that move."""
    is_joined = any(len(subtopology.sources) > 1 for subtopology in topology.subtopologies)
    assignor = "range" if is_joined else "cooperative-sticky"
    return {**_SHARED_CONSUMER_CONFIG, "partition.assignment.strategy": assignor}
