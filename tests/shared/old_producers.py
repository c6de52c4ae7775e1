"""Producers on the network in the machine of transactions: those that keep their epoch, and those
whose epoch each end raises (KIP-890).

They outlive the log: after a power loss or a restart they go on where they were. What they were
told is done stays done, and a commit whose answer was lost is asked for again and succeeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from millstream.log import LogError, TopicPartition
from millstream.log.broker.txn_records import BY_OLD_PRODUCER, BY_PRODUCER
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.format.codec import encode_batch
from millstream.log.record import ConsumerGroupMetadata, OffsetAndMetadata
from millstream.log.testing.sim_files import CONTENTS, SimFiles
from shared.transaction_machine import IDS, PARTITIONS, TIMEOUT_MS, Transactions, Writer


class Identity(NamedTuple):
    producer_id: int
    epoch: int


class OldProducer:
    """What a client of transaction version 1 asks the broker for, in its order."""

    def __init__(self, log: EmbeddedLog, transactional_id: str) -> None:
        self.log = log
        self.transactional_id = transactional_id
        self.identity = Identity(-1, -1)
        self.sequences: dict[TopicPartition, int] = {}
        self.began = False

    @property
    def broker(self) -> Any:
        return self.log._broker

    async def start(self) -> None:
        self.identity = Identity(
            *await self.broker.transactions.init_producer_id(
                self.transactional_id, TIMEOUT_MS, version=BY_OLD_PRODUCER
            )
        )

    def stats(self) -> Identity:
        return self.identity

    async def begin_transaction(self) -> None:
        return

    async def send_batch(self, where: TopicPartition, values: list[bytes]) -> bytes:
        self.began = True
        await self.broker.transactions.announce_partitions(
            self.transactional_id, *self.identity, (where,)
        )
        batch = self.batch_of(where, values)
        await self.broker.produce(where, batch, transactional_id=self.transactional_id)
        self.sequences[where] = self.sequences.get(where, 0) + len(values)
        return batch

    def batch_of(self, where: TopicPartition, values: list[bytes]) -> bytes:
        count, sequence = len(values), self.sequences.get(where, 0)
        return encode_batch(
            [None] * count,
            list(values),
            [self.log._broker.clock.wall_ms()] * count,
            None,
            0,
            count,
            producer_id=self.identity.producer_id,
            producer_epoch=self.identity.epoch,
            base_sequence=sequence,
            transactional=True,
        )

    async def send_offsets(self, offsets: Mapping[TopicPartition, int], group: str) -> None:
        self.began = True
        await self.broker.offsets.announce(self.transactional_id, *self.identity, group)
        await self.broker.offsets.commit_in_transaction(
            self.transactional_id,
            *self.identity,
            ConsumerGroupMetadata(group),
            {each: OffsetAndMetadata(offset) for each, offset in offsets.items()},
            version=BY_OLD_PRODUCER,
        )

    async def commit_transaction(self) -> None:
        await self._end(commit=True)

    async def abort_transaction(self) -> None:
        await self._end(commit=False)

    async def _end(self, *, commit: bool) -> None:
        if self.began:
            answer = await self.broker.transactions.end_txn(
                self.transactional_id, *self.identity, commit=commit
            )
            assert answer == self.identity, "the epoch was raised"
        self.began = False


class NewProducer(OldProducer):
    """What a client of transaction version 2 asks for: it announces nothing."""

    async def send_batch(self, where: TopicPartition, values: list[bytes]) -> bytes:
        self.began = True
        batch = self.batch_of(where, values)
        logged = self.broker.admit(where, batch, self.transactional_id, BY_PRODUCER)
        info = self.broker.partitions.append(where, batch)
        if logged is not None:
            await self.broker.partitions.durable(*logged)
        await self.broker.partitions.durable(where, info.last_offset + 1)
        self.sequences[where] = self.sequences.get(where, 0) + len(values)
        return batch

    async def send_offsets(self, offsets: Mapping[TopicPartition, int], group: str) -> None:
        self.began = True
        await self.broker.offsets.commit_in_transaction(
            self.transactional_id,
            *self.identity,
            ConsumerGroupMetadata(group),
            {each: OffsetAndMetadata(offset) for each, offset in offsets.items()},
            version=BY_PRODUCER,
        )

    async def _end(self, *, commit: bool) -> None:
        if self.began:
            answer = await self.broker.transactions.end_txn(
                self.transactional_id, *self.identity, commit=commit, version=BY_PRODUCER
            )
            assert answer != self.identity, "the epoch was not raised"
            self.identity = Identity(*answer)
            self.sequences = {}
        self.began = False


class OldTransactions(Transactions):
    """The machine with producers of the old kind only."""

    kind: type[OldProducer] = OldProducer

    @precondition(lambda self: len(self.writers) < 6)
    @rule(name=st.sampled_from(IDS))
    def start(self, name: str) -> None:
        producer: Any = self.kind(self.log, name)
        self.run(producer.start())
        for other in self.writers:
            if other.transactional_id == name:
                self.fence(other)
        self.writers.append(Writer(producer, name))

    @precondition(lambda self: self.writers)
    @rule(who=st.integers(0, 5), where=st.sampled_from(PARTITIONS), count=st.integers(1, 3))
    def send(self, who: int, where: TopicPartition, count: int) -> None:
        writer = self.writers[who % len(self.writers)]
        if not self.begun(writer):
            return
        assert writer.open is not None
        batch = [b"%d/%d" % (writer.open.number, row) + b"." * 90 for row in range(count)]
        producer: Any = writer.producer
        sent: list[bytes] = []

        async def send() -> None:
            sent.append(await producer.send_batch(where, batch))

        if self.allowed(writer, send()):
            writer.open.values.setdefault(where, []).extend(batch)
            name = writer.transactional_id
            self.batches.append((name, where, sent[0], self.identity(writer)))

    @precondition(lambda self: self.batches)
    @rule(which=st.integers(0, 1000))
    def a_delayed_batch(self, which: int) -> None:
        """It is a duplicate, or refused: it never begins a transaction."""
        name, where, batch, identity = self.batches[which % len(self.batches)]
        if any(self.identity(each) == identity and each.open is not None for each in self.writers):
            return
        with suppress(LogError):
            self.log._broker.append(where, batch, transactional_id=name)
            raise AssertionError("a batch of a transaction that has ended was taken")

    @precondition(lambda self: any(not each.fenced for each in self.writers))
    @rule(
        who=st.integers(0, 5),
        after_writes=st.integers(0, 14),
        contents=st.sampled_from(CONTENTS),
        seed=st.integers(0, 1000),
    )
    def lose_power_in_a_commit(self, who: int, after_writes: int, contents: Any, seed: int) -> None:
        able = [each for each in self.writers if not each.fenced]
        writer = able[who % len(able)]
        for where in PARTITIONS:
            self.send(self.writers.index(writer), where, 1)
        self.send_offsets(self.writers.index(writer))
        transaction = writer.open
        assert transaction is not None
        self.files.crash_at = self.files.writes + after_writes
        answered = self.run_until_crash(writer.producer.commit_transaction())
        self.stop()
        self.reopen(self.files.after_crash(contents, "mixed", seed=seed))
        if not answered:
            self.run(writer.producer.commit_transaction())
        transaction.outcome = "committed"
        writer.open = None

    def reopen(self, files: SimFiles) -> None:
        self.files = files
        self.log = self.opened()
        for writer in self.writers:
            producer: Any = writer.producer
            producer.log = self.log

    def teardown(self) -> None:
        try:
            for number, writer in enumerate(self.writers):
                if writer.open is not None and not writer.fenced:
                    self.end(number, False)
        finally:
            super().teardown()


class NewTransactions(OldTransactions):
    """The machine with producers of the new kind only."""

    kind = NewProducer
