"""A world of one seed: what its inhabitants share while they work on the log."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from random import Random
from typing import Any, TypeVar

from millstream.log import TopicPartition
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.client.producer import EmbeddedProducer
from millstream.log.errors import CorruptRecordError, LogError, StorageError
from millstream.log.record import Record
from millstream.log.testing.sim_files import Crash, Operation, SimFiles
from millstream.log.testing.sim_loop import SimClock

from .case import Rules
from .checks import delivered_fits
from .history import History, OffsetAttempt, Sent, Txn, Violation
from .plan import Life, Plan
from .record_checks import check_bounds
from .snapshot import NUMBER, PartitionSnapshot, Row, number_of

T = TypeVar("T")

OPERATION_MS_MAX = 30 * 60_000
"""Nothing waits longer than this, whatever happens to it: every time-out is shorter."""


class Interrupted(Exception):
    """The simulation cancelled what was tried."""


class Disk(SimFiles):
    """A disk that says when it stops."""

    def __init__(self, *, root: Any = None) -> None:
        super().__init__()
        if root is not None:
            self.root = root
        self.on_crash: Callable[[], None] | None = None

    def step(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().step(*args, **kwargs)
        except Crash:
            if self.on_crash is not None:
                self.on_crash()
            raise


class World:
    """What is the same for all lives of a seed, and the current life."""

    def __init__(self, seed: int, plan: Plan, rng: Random) -> None:
        self.seed = seed
        self.plan = plan
        self.rng = rng
        self.history = History()
        self.rules: dict[str, Rules] = plan.rules()
        self.count: Counter[str] = Counter()
        self.trace: list[str] | None = None
        self.wall_ms = 1_700_000_000_000
        self.calm = False
        self.exact = True
        """Whether the log never had to forget something it had acknowledged (durability="os")."""
        self.faulted = False
        self.log: EmbeddedLog
        self.clock: SimClock
        self.life: Life
        self.instances = 0
        self.bounds: dict[TopicPartition, tuple[int, int, int, int]] = {}

    def note(self, what: str, *details: object) -> None:
        """For the trace, and to count it."""
        self.count[what] += 1
        if self.trace is not None:
            loop = asyncio.get_running_loop()
            text = " ".join(map(str, details))
            self.trace.append(f"{self.history.now:6} {loop.time():12.4f}  {what}  {text}")

    def operation(self, each: Operation) -> OSError | None:
        """What the disk asks before each of its operations."""
        if each.kind == "create" and each.path.endswith(".log"):
            self.count["segments"] += 1
        elif each.kind == "create" and each.path.endswith(".cleaned"):
            self.count["cleaned files"] += 1
        elif each.kind in {"fsync", "remove"}:
            self.count[each.kind] += 1
        return None

    # Attempts

    async def attempt(self, work: Coroutine[Any, Any, T], *, timeout_ms: int = 0) -> T:
        """Do something that may be cancelled at any await.

        Raises:
            Interrupted: it was.
            LogError: as the log says, if it may.
            Violation: it took longer than anything may; or the log failed without a cause.
        """
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        if not self.calm and self.rng.random() < self.life.cancel_rate:
            self.count["cancellations"] += 1
            if self.rng.random() < 0.5:
                loop.call_later(self.rng.random() * 0.02, task.cancel)
            else:
                _cancel_after_turns(loop, task, self.rng.randrange(8))
        began = loop.time()
        try:
            done = await self.in_time([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        if not done:
            task.cancel()
            if self.faulted and work.__qualname__.endswith("poll"):
                # offsets of a transaction that the disk kept from ending stay undecided
                self.note("undecided for good", work.__qualname__)
                raise Interrupted
            raise Violation("stuck", f"{work.__qualname__} since {began}")
        if task.cancelled():
            self.note("interrupted", work.__qualname__)
            raise Interrupted
        try:
            return task.result()
        except LogError as error:
            self.note("error", type(error).__name__, error)
            self.count[type(error).__name__] += 1
            if isinstance(error, StorageError | CorruptRecordError) and not self.faulted:
                raise Violation("unfounded error", repr(error)) from error
            raise

    async def in_time(self, tasks: Collection[asyncio.Task[Any]]) -> bool:
        """Wait for these; False when they take longer than anything may. Time that was jumped over
        does not count."""
        while True:
            jumps = self.count["jump"]
            _, late = await asyncio.wait(tasks, timeout=OPERATION_MS_MAX / 1000)
            if not late or jumps == self.count["jump"]:
                return not late

    async def pause(self, longest_ms: float = 20) -> None:
        """Let some time pass."""
        await asyncio.sleep(self.rng.random() * longest_ms / 1000)

    # Records

    def instance(self, transactional_id: str | None = None) -> int:
        """A number for a new producer."""
        self.instances += 1
        if transactional_id is not None:
            self.history.producers[self.instances] = transactional_id
        return self.instances

    def sent(
        self, topic: str, producer: int, turn: int, txn: Txn | None = None, value: bytes = b""
    ) -> Sent:
        """A record that is about to be sent; its content is random unless it is given."""
        rng = self.rng
        key: bytes | None = None
        timestamp: int | None = None
        content: bytes | None = value or rng.randbytes(rng.choice((0, 5, 50, 200)))
        if topic in {"keyed", "in"} and not value:
            key = b"k%d" % rng.randrange(5)
        if topic == "keyed" and rng.random() < 0.25:
            content = None
        if not value and rng.random() < 0.3:
            timestamp = self.clock.wall_ms() - rng.choice((0, 1000, 100_000))
        sent = Sent(
            len(self.history.sent),
            topic,
            producer,
            turn,
            key,
            content,
            timestamp,
            txn,
            self.history.tick(),
            self.clock.wall_ms(),
        )
        self.history.sent.append(sent)
        self.count["records"] += 1
        return sent

    def headers(self, sent: Sent) -> tuple[tuple[str, bytes | None], ...]:
        """What carries the number of a record."""
        return ((NUMBER, b"%d" % sent.number),)

    async def send(
        self, handle: EmbeddedProducer, sents: list[Sent], partition: int | None
    ) -> None:
        """Send records one by one, together."""
        await asyncio.gather(*(self._send(handle, sent, partition) for sent in sents))

    async def _send(self, handle: EmbeddedProducer, sent: Sent, partition: int | None) -> None:
        metadata = await handle.send(
            sent.topic,
            sent.value,
            key=sent.key,
            partition=partition,
            timestamp=sent.timestamp,
            headers=self.headers(sent),
        )
        sent.acknowledged = sent.ended = self.history.tick()
        sent.where = (metadata.partition, metadata.offset)

    def given(self, records: list[Record], isolation: str, group: str | None = None) -> None:
        """A consumer was given these."""
        for record in records:
            row = Row(
                record.offset,
                number_of(record.headers),
                record.key,
                record.value,
                record.timestamp,
            )
            delivered_fits(self.history, self.rules, record.topic, record.partition, row, isolation)
            if group is not None:
                self.history.consumed.setdefault(group, set()).add(row.number or 0)
        self.count["delivered"] += len(records)

    def offsets_tried(
        self, group: str, offsets: dict[TopicPartition, int], txn: Txn | None = None
    ) -> list[OffsetAttempt]:
        """These offsets are about to be committed."""
        now = self.history.tick()
        attempts = [
            OffsetAttempt(group, each, offset, now, self.clock.wall_ms(), txn)
            for each, offset in offsets.items()
        ]
        self.history.offsets += attempts
        return attempts

    def offsets_forgotten(self, group: str) -> list[OffsetAttempt]:
        """All offsets of a group are about to be forgotten."""
        known = {each.partition for each in self.history.offsets if each.group == group}
        now = self.history.tick()
        attempts = [
            OffsetAttempt(group, each, None, now, self.clock.wall_ms()) for each in sorted(known)
        ]
        self.history.offsets += attempts
        return attempts

    def offsets_answered(self, attempts: list[OffsetAttempt], outcome: str) -> None:
        now = self.history.tick()
        for attempt in attempts:
            attempt.outcome = outcome
            attempt.ended = now

    # Bounds

    def look(self) -> None:
        """Every partition's bounds, now: in order, and never going back within a life."""
        for each in self.log._broker.partitions:
            bounds = (
                each.log_start_offset,
                each.last_stable_offset,
                each.high_watermark,
                each.log_end_offset,
            )
            where = each.topic_partition
            check_bounds(where, PartitionSnapshot(where, *bounds, []))
            before = self.bounds.get(where)
            is_remade = where.topic in self.rules and self.rules[where.topic].remade
            went_back = before is not None and any(
                a > b for a, b in zip(before, bounds, strict=True)
            )
            if went_back and not is_remade:
                raise Violation("went back", f"{where}: from {before} to {bounds}")
            self.bounds[where] = bounds

    def everything_is_over(self) -> None:
        """The process is gone: what nobody was told of has happened by now, or never will."""
        now = self.history.tick()
        for sent in self.history.sent:
            sent.ended = min(sent.ended, now)
        for txn in self.history.txns:
            txn.ended = min(txn.ended, now)
        for attempt in self.history.offsets:
            attempt.ended = min(attempt.ended, now)
        for removal in self.history.removals:
            removal.ended = min(removal.ended, now)


def _cancel_after_turns(
    loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], turns: int
) -> None:
    if turns == 0:
        task.cancel()
    else:
        loop.call_soon(_cancel_after_turns, loop, task, turns - 1)
