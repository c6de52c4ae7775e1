"""Producers with the same transactional ids, time-outs, terminations and power losses, at random.

The model is a list of transactions with what became of each. A reader with read_committed sees the
committed ones whole and nothing else; a group has the offset of the last that committed one. Of a
transaction whose commit was cut off by a power loss either all is there or nothing, and what it is
the first time it stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from itertools import chain
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from millstream.log import LogError, ProducerFencedError, TopicPartition
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.client.producer import EmbeddedProducer
from millstream.log.open import open_log_on
from millstream.log.testing.fake_clock import FakeClock
from millstream.log.testing.sim_files import CONTENTS, Crash, SimFiles
from shared.logs import settled, values

PARTITIONS = [TopicPartition("t", 0), TopicPartition("t", 1)]
IDS = ["x", "y"]
TIMEOUT_MS = 10_000
CONFIG: dict[str, str | int] = {"flush.threads": 0}
PRODUCER: dict[str, str | int] = {"transaction.timeout.ms": TIMEOUT_MS, "linger.ms": 0}
TOPIC: dict[str, str | int] = {"segment.bytes": 1024, "retention.ms": -1}

T = TypeVar("T")


class Transaction:
    """One transaction of the model. `outcome`: open, committed, aborted, or unknown."""

    def __init__(self, number: int, transactional_id: str, began_ms: int) -> None:
        self.number = number
        self.transactional_id = transactional_id
        self.began_ms = began_ms
        self.values: dict[TopicPartition, list[bytes]] = {}
        self.offset: int | None = None
        self.outcome = "open"


class Writer:
    """A producer, the transaction it has open, and whether another one took its id over."""

    def __init__(self, producer: EmbeddedProducer, transactional_id: str) -> None:
        self.producer = producer
        self.transactional_id = transactional_id
        self.open: Transaction | None = None
        self.fenced = False


class Transactions(RuleBasedStateMachine):
    """The log under test, its writers, and the model."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.broken = asyncio.Event()
        self.loop.set_exception_handler(self._noticed)
        self.failures: list[BaseException] = []
        self.clock = FakeClock()
        self.files = SimFiles()
        self.writers: list[Writer] = []
        self.all: list[Transaction] = []
        self.identities: list[tuple[str, tuple[int, int]]] = []
        self.batches: list[tuple[str, TopicPartition, bytes, tuple[int, int]]] = []
        self.log = self.opened()

        async def create() -> None:
            await self.log.create_topic("t", partitions=2, config=TOPIC)

        self.run(create())

    # What happens

    @precondition(lambda self: len(self.writers) < 6)
    @rule(name=st.sampled_from(IDS))
    def start(self, name: str) -> None:
        """A producer, maybe the second or third of its id: it fences the others."""
        writer = Writer(self.log.producer(transactional_id=name, config=PRODUCER), name)
        self.run(writer.producer.__aenter__())
        for other in self.writers:
            if other.transactional_id == name:
                self.fence(other)
        self.writers.append(writer)

    @precondition(lambda self: self.writers)
    @rule(who=st.integers(0, 5), where=st.sampled_from(PARTITIONS), count=st.integers(1, 3))
    def send(self, who: int, where: TopicPartition, count: int) -> None:
        writer = self.writers[who % len(self.writers)]
        if not self.begun(writer):
            return
        assert writer.open is not None
        batch = [b"%d/%d" % (writer.open.number, row) + b"." * 90 for row in range(count)]
        if self.allowed(writer, writer.producer.send_batch("t", batch, partition=where.partition)):
            writer.open.values.setdefault(where, []).extend(batch)
            partition = self.log._broker.partitions.partition(where)
            if partition.high_watermark == partition.log_end_offset:
                return
            offset = partition.log_end_offset - len(batch)
            self.run(writer.producer.flush())
            data = partition.read(offset, size_bytes_max=1, isolation="read_uncommitted").data
            name = writer.transactional_id
            self.batches.append((name, where, data, self.identity(writer)))

    @precondition(lambda self: self.writers)
    @rule(who=st.integers(0, 5))
    def send_offsets(self, who: int) -> None:
        writer = self.writers[who % len(self.writers)]
        if not self.begun(writer):
            return
        assert writer.open is not None
        offset = {PARTITIONS[0]: writer.open.number}
        group = writer.transactional_id
        if self.allowed(writer, writer.producer.send_offsets(offset, group=group)):
            writer.open.offset = writer.open.number

    @precondition(lambda self: self.writers)
    @rule(who=st.integers(0, 5), commit=st.booleans())
    def end(self, who: int, commit: bool) -> None:
        writer = self.writers[who % len(self.writers)]
        transaction = writer.open
        if transaction is None:
            return
        producer = writer.producer
        ended = self.allowed(
            writer, producer.commit_transaction() if commit else producer.abort_transaction()
        )
        if ended:
            transaction.outcome = "committed" if commit else "aborted"
        writer.open = None

    @rule(seconds=st.sampled_from([1, 4, 11]))
    def let_time_pass(self, seconds: int) -> None:
        self.clock.advance(seconds * 1000)
        self.run(settled())
        for writer in self.writers:
            if self.is_open(writer) and self.clock.wall_ms() - writer.open.began_ms >= TIMEOUT_MS:
                self.fence(writer)

    @rule(name=st.sampled_from(IDS))
    def terminate(self, name: str) -> None:
        async def terminate() -> bool | None:
            known = [each.transactional_id for each in await self.log.transactions()]
            return await self.log.terminate_transaction(name) if name in known else None

        expected = [
            each
            for each in self.writers
            if each.transactional_id == name and not each.fenced and self.is_open(each)
        ]
        assert self.run(terminate()) in ({True} if expected else {False, None})
        for writer in expected:
            self.fence(writer)

    @rule(contents=st.sampled_from(CONTENTS), seed=st.integers(0, 1000))
    def lose_power(self, contents: Any, seed: int) -> None:
        self.stop()
        self.reopen(self.files.after_crash(contents, "mixed", seed=seed))

    @precondition(lambda self: any(not each.fenced for each in self.writers))
    @rule(
        who=st.integers(0, 5),
        after_writes=st.integers(0, 14),
        contents=st.sampled_from(CONTENTS),
        seed=st.integers(0, 1000),
    )
    def lose_power_in_a_commit(self, who: int, after_writes: int, contents: Any, seed: int) -> None:
        able = [each for each in self.writers if not each.fenced]
        which = who % len(able)
        writer = able[which]
        for where in PARTITIONS:
            self.send(self.writers.index(writer), where, 1)
        self.send_offsets(self.writers.index(writer))
        transaction = writer.open
        assert transaction is not None
        self.files.crash_at = self.files.writes + after_writes
        outcome = self.run_until_crash(writer.producer.commit_transaction())
        transaction.outcome = "committed" if outcome else "unknown"
        writer.open = None
        self.stop()
        self.reopen(self.files.after_crash(contents, "mixed", seed=seed))
        if transaction.outcome == "unknown":
            self.decide(transaction)

    @precondition(lambda self: self.identities)
    @rule(which=st.integers(0, 1000), commit=st.booleans())
    def a_delayed_end(self, which: int, commit: bool) -> None:
        """An EndTxn of an earlier transaction comes late, or again: it changes nothing."""
        name, identity = self.identities[which % len(self.identities)]

        async def end() -> None:
            await self.log._broker.transactions.end_txn(name, *identity, commit=commit)

        if any(self.identity(each) == identity for each in self.writers):
            return  # of a transaction that may be going on: not late
        with suppress(LogError):
            self.run(end())

    @precondition(lambda self: self.batches)
    @rule(which=st.integers(0, 1000))
    def a_delayed_batch(self, which: int) -> None:
        """The bytes of a batch come a second time, after their transaction."""
        name, where, batch, identity = self.batches[which % len(self.batches)]
        if any(self.identity(each) == identity for each in self.writers):
            return
        with suppress(LogError):
            self.log._broker.append(where, batch, transactional_id=name)
            raise AssertionError("a batch of a transaction that has ended was taken")

    @rule()
    def close_and_open(self) -> None:
        self.run(self.log.close())
        self.reopen(self.files)

    # What must hold

    @invariant()
    def readers_see_what_committed(self) -> None:
        committed = [each for each in self.all if each.outcome == "committed"]
        for partition in PARTITIONS:
            found = self.run(values(self.log, partition))
            readable = self.run(self.log.end_offsets([partition]))
            end = self.run(self.log.end_offsets([partition], "read_uncommitted"))
            sent = {each.number: each.values.get(partition, []) for each in committed}
            if not any(self.is_open(each) and not each.fenced for each in self.writers):
                assert readable == end, "readers are held back by a transaction that has ended"
            if readable == end:
                assert sorted(found) == sorted(chain.from_iterable(sent.values()))
            for number, expected in sent.items():
                own = [value for value in found if value.startswith(b"%d/" % number)]
                assert own in (expected, expected[: len(own)])
            numbers = {int(value.split(b"/")[0]) for value in found}
            assert numbers <= {each.number for each in committed}

    @invariant()
    def groups_have_what_committed_last(self) -> None:
        for name in IDS:
            offsets = [
                each.offset
                for each in self.all
                if each.transactional_id == name
                and each.outcome == "committed"
                and each.offset is not None
            ]
            found = self.run(self.log.group_offsets(name))
            assert [each.offset for each in found.values()] == offsets[-1:]

    def teardown(self) -> None:
        try:
            for writer in self.writers:
                self.fence(writer)
            self.run(self.log.close())
            self.reopen(self.files)
            self.readers_see_what_committed()
            for partition in PARTITIONS:
                everything = self.run(self.log.end_offsets([partition], "read_uncommitted"))
                assert self.run(self.log.end_offsets([partition])) == everything
            self.run(self.log.close())
            assert self.failures == []
        finally:
            self.stop()
            self.loop.close()

    # How

    def begun(self, writer: Writer) -> bool:
        """Have a transaction open; False when the writer is refused."""
        if writer.open is not None:
            return True
        if not self.allowed(writer, writer.producer.begin_transaction()):
            return False
        writer.open = Transaction(len(self.all), writer.transactional_id, self.clock.wall_ms())
        self.all.append(writer.open)
        self.identities.append((writer.transactional_id, self.identity(writer)))
        return True

    @staticmethod
    def identity(writer: Writer) -> tuple[int, int]:
        stats = writer.producer.stats()
        return stats.producer_id, stats.epoch

    def allowed(self, writer: Writer, call: Coroutine[Any, Any, object]) -> bool:
        """Make a call; exactly those of a fenced writer are refused."""
        try:
            self.run(call)
        except ProducerFencedError:
            assert writer.fenced
            return False
        # What never reached the log is not known to be fenced: an empty transaction ends anywhere.
        assert not writer.fenced or writer.open is None or not self.has_begun_in_log(writer.open)
        if writer.open is not None and not self.has_begun_in_log(writer.open):
            writer.open.began_ms = self.clock.wall_ms()
        return True

    def is_open(self, writer: Writer) -> bool:
        return writer.open is not None and self.has_begun_in_log(writer.open)

    @staticmethod
    def has_begun_in_log(transaction: Transaction) -> bool:
        return bool(transaction.values) or transaction.offset is not None

    @staticmethod
    def fence(writer: Writer) -> None:
        writer.fenced = True
        if writer.open is not None:
            writer.open.outcome = "aborted"

    def decide(self, transaction: Transaction) -> None:
        """Whether the commit that was cut off counts; it must be whole."""
        seen = {each: self.run(values(self.log, each)) for each in PARTITIONS}
        visible = [
            all(value in seen[partition] for value in expected)
            for partition, expected in transaction.values.items()
        ]
        if transaction.offset is not None:
            found = self.run(self.log.group_offsets(transaction.transactional_id))
            visible.append(transaction.offset in [each.offset for each in found.values()])
        assert len(set(visible)) <= 1, "half a transaction"
        transaction.outcome = "committed" if visible and visible[0] else "aborted"

    def opened(self) -> EmbeddedLog:
        log = open_log_on(self.files, "log", config=CONFIG, clock=self.clock)
        self.run(log.__aenter__())
        return log

    def reopen(self, files: SimFiles) -> None:
        for writer in self.writers:
            self.fence(writer)
        self.writers = []
        self.files = files
        self.log = self.opened()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(call, 20))

    def run_until_crash(self, call: Coroutine[Any, Any, object]) -> bool:
        """True when the call returned, False when the machine stopped before."""

        async def main() -> bool:
            self.broken.clear()
            task = asyncio.ensure_future(call)
            watch = asyncio.ensure_future(self.broken.wait())
            await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
            watch.cancel()
            ended = task.done() and not task.cancelled() and task.exception() is None
            if not task.done():
                task.cancel()
            await asyncio.gather(task, watch, return_exceptions=True)
            return ended

        return self.loop.run_until_complete(main())

    def stop(self) -> None:
        """The machine is gone: no task of it goes on."""
        self.files.crash_at = self.files.crash_at if self.files.crashed else self.files.writes
        self.files.crashed = True

        async def cancel() -> None:
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                for each in others:
                    each.cancel()
                await asyncio.wait(others, timeout=0.01)
                await asyncio.gather(
                    *(each for each in others if each.done()), return_exceptions=True
                )

        self.loop.run_until_complete(cancel())

    def _noticed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Crash | asyncio.CancelledError | LogError):
            self.failures.append(error or RuntimeError(context["message"]))
        self.broken.set()
