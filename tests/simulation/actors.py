"""Who works on the log: producers, transactions, consumers, a chain of both, an administrator.

Each is a coroutine that does a number of random things and keeps the books of them. Errors that the
log may answer end what was being done, not the actor.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from millstream.log import TopicPartition
from millstream.log.client.consumer import EmbeddedConsumer
from millstream.log.client.producer import EmbeddedProducer
from millstream.log.errors import (
    InvalidProducerEpochError,
    LogClosedError,
    LogError,
    ProducerFencedError,
)

from .history import Fence, Removal, Sent, Txn
from .plan import (
    AGED,
    AUTO_GROUP,
    CHAIN_GROUP,
    COMPRESSIONS,
    FREE_GROUP,
    IN,
    KEYED,
    OUT,
    STEADY_GROUP,
    TEMP,
)
from .world import Interrupted, World

FAILED = (LogError, Interrupted)
_FENCED = (ProducerFencedError, InvalidProducerEpochError)


def steps(world: World, low: int, high: int) -> range:
    """How often somebody does something."""
    return range(world.rng.randint(low, high))


# Producers


async def produce(world: World) -> None:
    """An idempotent producer, alone or in batches."""
    rng = world.rng
    number = world.instance()
    handle = world.log.producer(
        config={
            "linger.ms": rng.choice((0, 0, 5, 50)),
            "compression.type": rng.choice(COMPRESSIONS),
            "batch.size": rng.choice((100, 1000, 256 << 10)),
        }
    )
    waiting: list[Sent] = []
    for turn in steps(world, 3, 12):
        await world.pause()
        topic = rng.choice((IN, IN, KEYED, KEYED, AGED, TEMP))
        count = world.plan.topics[topic][0]
        partition = rng.choice((None, rng.randrange(count)))
        sents = [world.sent(topic, number, turn) for _ in range(rng.choice((1, 1, 2, 5, 12)))]
        try:
            if rng.random() < 0.5:
                await world.attempt(world.send(handle, sents, partition))
            else:
                await world.attempt(_send_batch(world, handle, sents, partition))
                waiting += sents
            if rng.random() < 0.4:
                await _flush(world, handle, waiting)
        except LogClosedError:
            return
        except FAILED:
            continue
    with suppress(*FAILED):
        await _flush(world, handle, waiting)
    with suppress(*FAILED):
        await world.attempt(handle.close())


async def _send_batch(
    world: World, handle: EmbeddedProducer, sents: list[Sent], partition: int | None
) -> None:
    await handle.send_batch(
        sents[0].topic,
        [sent.value for sent in sents],
        keys=[sent.key for sent in sents],
        headers=[world.headers(sent) for sent in sents],
        timestamps=[sent.wall_ms if sent.timestamp is None else sent.timestamp for sent in sents],
        partition=partition,
    )


async def _flush(world: World, handle: EmbeddedProducer, waiting: list[Sent]) -> None:
    """Everything that waits is acknowledged, or nothing is known about any of it."""
    try:
        await world.attempt(handle.flush())
        now = world.history.tick()
        for sent in waiting:
            sent.acknowledged = sent.ended = now
    finally:
        waiting.clear()


# Transactions


class Transactor:
    """Producers of one transactional id: one in force, and perhaps older ones that do not know."""

    def __init__(self, world: World, transactional_id: str) -> None:
        self.world = world
        self.transactional_id = transactional_id
        self.handles: list[tuple[int, EmbeddedProducer]] = []
        self._all: list[EmbeddedProducer] = []
        self.turn = 0

    async def start(self) -> tuple[int, EmbeddedProducer]:
        """A new producer takes over the transactional id."""
        world = self.world
        number = world.instance(self.transactional_id)
        handle = world.log.producer(
            transactional_id=self.transactional_id,
            config={
                "transaction.timeout.ms": 60_000
                if world.calm
                else world.rng.choice((200, 5000, 60_000)),
                "linger.ms": world.rng.choice((0, 5)),
                "compression.type": world.rng.choice(COMPRESSIONS),
            },
        )
        self._all.append(handle)
        began = world.history.tick()
        await world.attempt(handle.__aenter__())
        self.handles.append((number, handle))
        world.history.fences.append(
            Fence(self.transactional_id, number, began, world.history.tick())
        )
        world.note("producer", self.transactional_id, number)
        return number, handle

    async def begin(self, number: int, handle: EmbeddedProducer) -> Txn:
        await self.world.attempt(handle.begin_transaction())
        txn = Txn(number, self.transactional_id, self.world.history.tick())
        self.world.history.txns.append(txn)
        return txn

    async def send(
        self,
        handle: EmbeddedProducer,
        txn: Txn,
        topic: str,
        values: list[bytes],
        partition: int | None,
    ) -> None:
        """Send records in the transaction; each has the given value, or a random one."""
        world = self.world
        self.turn += 1
        sents = [world.sent(topic, txn.producer, self.turn, txn, value) for value in values]
        if world.rng.random() < 0.3:
            await world.attempt(world.send(handle, sents, partition))
        else:
            await world.attempt(_send_batch(world, handle, sents, partition))
            now = world.history.tick()
            for sent in sents:
                sent.acknowledged = sent.ended = now

    async def commit(self, handle: EmbeddedProducer, txn: Txn) -> None:
        """Raises as the log does; the outcome is written down."""
        world = self.world
        txn.commit_tried = min(txn.commit_tried, world.history.tick())
        first = txn.outcome == "open"
        txn.outcome = "unknown"
        try:
            await world.attempt(handle.commit_transaction())
        except _FENCED:
            if first:
                txn.outcome = "aborted"
            raise
        txn.ended, txn.outcome = world.history.tick(), "committed"
        world.note("committed", txn)

    async def abort(self, handle: EmbeddedProducer, txn: Txn) -> None:
        await self.world.attempt(handle.abort_transaction())
        txn.ended, txn.outcome = self.world.history.tick(), "aborted"
        self.world.note("aborted", txn)

    async def close(self) -> None:
        for handle in self._all:
            with suppress(*FAILED):
                await self.world.attempt(handle.close())


async def transact(world: World, transactional_id: str) -> None:
    """Transactions over several topics, with offsets; now and then another producer takes over,
    and the old one goes on as if nothing had happened."""
    rng = world.rng
    who = Transactor(world, transactional_id)
    for _ in steps(world, 2, 8):
        await world.pause()
        try:
            if not who.handles or rng.random() < 0.2:
                await who.start()
            number, handle = who.handles[
                -1 if rng.random() < 0.8 else rng.randrange(len(who.handles))
            ]
            await _one_transaction(world, who, number, handle)
        except LogClosedError:
            return
        except FAILED:
            continue
    await who.close()


async def _one_transaction(
    world: World, who: Transactor, number: int, handle: EmbeddedProducer
) -> None:
    rng = world.rng
    txn = await who.begin(number, handle)
    try:
        for _ in steps(world, 0, 4):
            topic = rng.choice((IN, IN, KEYED, AGED, TEMP))
            values = [b""] * rng.choice((1, 2, 6))
            await who.send(handle, txn, topic, values, None)
            await world.pause(5)
        if rng.random() < 0.3:
            await _send_free_offsets(world, handle, txn)
        if rng.random() < 0.1:
            await world.pause(20_000)  # longer than some time-outs
        if rng.random() < 0.1:
            return  # and leaves it open
        if rng.random() < 0.25:
            await who.abort(handle, txn)
        else:
            await who.commit(handle, txn)
    except FAILED:
        with suppress(*FAILED):
            await who.abort(handle, txn)
        raise


async def _send_free_offsets(world: World, handle: EmbeddedProducer, txn: Txn) -> None:
    offsets = {TopicPartition(IN, 0): world.rng.randrange(1000)}
    attempts = world.offsets_tried(FREE_GROUP, offsets, txn)
    await world.attempt(handle.send_offsets(offsets, group=FREE_GROUP))
    world.offsets_answered(attempts, "acknowledged")


async def chain(world: World, slot: str) -> None:
    """Consume, transform, produce, exactly once: each record of IN becomes one of OUT."""
    rng = world.rng
    who = Transactor(world, f"chain-{slot}")
    consumer: EmbeddedConsumer | None = None
    handle: EmbeddedProducer | None = None
    for _ in steps(world, 3, 8):
        await world.pause()
        try:
            if consumer is None or handle is None or rng.random() < 0.05:
                if consumer is not None and rng.random() < 0.7:
                    await world.attempt(consumer.close())
                consumer = chain_consumer(world)
                _, handle = await who.start()
            await chain_step(world, who, handle, consumer)
        except LogClosedError:
            return
        except FAILED:
            handle = None
    if consumer is not None and rng.random() < 0.7:
        with suppress(*FAILED):
            await world.attempt(consumer.close())
    await who.close()


def chain_consumer(world: World) -> EmbeddedConsumer:
    return world.log.consumer(IN, group=CHAIN_GROUP, config=_group_config(world, auto_commit=False))


async def chain_step(
    world: World,
    who: Transactor,
    handle: EmbeddedProducer,
    consumer: EmbeddedConsumer,
    *,
    records_max: int = 0,
) -> int:
    """Returns how many records went through."""
    count = records_max or world.rng.choice((1, 3, 20))
    records = await world.attempt(consumer.poll(100, count))
    if not records:
        return 0
    world.given(records, "read_committed")
    txn = await who.begin(who.handles[-1][0], handle)
    values = [b"%d:%d" % (record.partition, record.offset) for record in records]
    await who.send(handle, txn, OUT, values, None)
    await world.pause(2)
    offsets = consumer.position()
    attempts = world.offsets_tried(CHAIN_GROUP, offsets, txn)
    await world.attempt(handle.send_offsets(offsets, group=consumer.group_metadata()))
    world.offsets_answered(attempts, "acknowledged")
    await who.commit(handle, txn)
    world.count["chained"] += len(records)
    return len(records)


# Consumers


def _group_config(world: World, *, auto_commit: bool) -> dict[str, str | int]:
    return {
        "enable.auto.commit": "true" if auto_commit else "false",
        "auto.commit.interval.ms": 50,
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 2000,
        "max.poll.interval.ms": world.rng.choice((3000, 300_000)),
        "partition.assignment.strategy": "range,roundrobin",
    }


async def consume(world: World, group: str) -> None:
    """A member of a group that never seeks; commits itself, or lets it be done."""
    rng = world.rng
    consumer = member(world, group)
    for _ in steps(world, 4, 12):
        await world.pause()
        try:
            await consume_step(world, consumer, group)
            if rng.random() < 0.05:
                await world.pause(10_000)  # longer than its poll interval, or its session
        except LogClosedError:
            return
        except FAILED:
            pass
    with suppress(*FAILED):
        if rng.random() < 0.8:
            await world.attempt(consumer.close())
    world.count["rebalances"] += consumer.stats().rebalances


def member(world: World, group: str) -> EmbeddedConsumer:
    config = _group_config(world, auto_commit=group == AUTO_GROUP)
    return world.log.consumer(IN, KEYED, group=group, config=config)


async def consume_step(world: World, consumer: EmbeddedConsumer, group: str) -> int:
    """Poll, and perhaps commit. Returns how many records there were."""

    async def poll() -> int:
        records = await consumer.poll(world.rng.choice((0, 50, 200)), world.rng.choice((1, 5, 500)))
        world.given(records, "read_committed", group)
        return len(records)

    count = await world.attempt(poll())
    if group == STEADY_GROUP and world.rng.random() < 0.5 and consumer.position():
        await commit(world, consumer, group)
    return count


async def commit(world: World, consumer: EmbeddedConsumer, group: str) -> None:
    offsets = consumer.position()
    attempts = world.offsets_tried(group, offsets)
    try:
        await world.attempt(consumer.commit(offsets))
    except LogError as error:
        # a commit that the group refused was not written; one that failed later may be
        refused = type(error).__name__ in {
            "IllegalGenerationError",
            "UnknownMemberError",
            "RebalanceInProgressError",
            "UnknownTopicError",
        }
        world.offsets_answered(attempts, "refused" if refused else "unknown")
        raise
    world.offsets_answered(attempts, "acknowledged")


async def read(world: World) -> None:
    """A reader without a group, that seeks."""
    rng = world.rng
    isolation = rng.choice(("read_committed", "read_uncommitted"))
    consumer = world.log.consumer(isolation=isolation)
    topics = (IN, OUT, KEYED, AGED)
    partitions = [
        TopicPartition(topic, number)
        for topic in rng.sample(topics, 2)
        for number in range(world.plan.topics[topic][0])
    ]
    last: dict[tuple[str, int], int] = {}
    try:
        await world.attempt(consumer.assign(partitions))
    except FAILED:
        return
    for _ in steps(world, 3, 12):
        await world.pause()
        try:
            if rng.random() < 0.2:
                await _seek(world, consumer, rng.choice(partitions))
                last.clear()
            records = await world.attempt(consumer.poll(rng.choice((0, 50)), 50))
        except LogClosedError:
            return
        except FAILED:
            continue
        world.given(records, isolation)
        for record in records:
            where = (record.topic, record.partition)
            assert last.get(where, -1) < record.offset, f"{where}: {record} after {last[where]}"
            last[where] = record.offset
    with suppress(*FAILED):
        await world.attempt(consumer.close())


async def _seek(world: World, consumer: EmbeddedConsumer, partition: TopicPartition) -> None:
    rng = world.rng
    choice = rng.randrange(4)
    if choice == 0:
        await world.attempt(consumer.seek_to_beginning(partition))
    elif choice == 1:
        await world.attempt(consumer.seek_to_end(partition))
    elif choice == 2:
        time = world.clock.wall_ms() - rng.randrange(5000)
        await world.attempt(consumer.seek_to_time(time, partition))
    else:
        await world.attempt(consumer.seek(partition, rng.randrange(50)))


# Administration


async def administrate(world: World) -> None:
    """Makes and removes topics, deletes records, sets offsets."""
    rng = world.rng
    for _ in steps(world, 2, 6):
        await world.pause(100)
        action = rng.choice((_remake_topic, _delete_records, _set_offsets))
        try:
            await action(world)
        except LogClosedError:
            return
        except FAILED:
            continue


async def _remake_topic(world: World) -> None:
    removal = Removal(TEMP, None, None, world.history.tick())
    world.history.removals.append(removal)
    await world.attempt(world.log.delete_topic(TEMP))
    removal.ended, removal.acknowledged = world.history.tick(), True
    world.note("deleted topic", TEMP)
    for place in [each for each in world.history.places if each[0] == TEMP]:
        del world.history.places[place]
    await world.pause()
    partitions, config = world.plan.topics[TEMP]
    await world.attempt(
        world.log.create_topic(TEMP, partitions=partitions, config=config, exist_ok=True)
    )


async def _delete_records(world: World) -> None:
    topic = world.rng.choice((AGED, KEYED, TEMP))
    partition = TopicPartition(topic, 0)
    end = (await world.attempt(world.log.end_offsets([partition])))[partition]
    before = world.rng.randint(0, end)
    removal = Removal(topic, 0, before, world.history.tick())
    world.history.removals.append(removal)
    await world.attempt(world.log.delete_records({partition: before}))
    removal.ended, removal.acknowledged = world.history.tick(), True
    world.note("deleted records", partition, before)


async def _set_offsets(world: World) -> None:
    offsets = {TopicPartition(IN, 0): world.rng.randrange(1000)}
    attempts = world.offsets_tried(FREE_GROUP, offsets)
    await world.attempt(world.log.alter_group_offsets(FREE_GROUP, offsets))
    world.offsets_answered(attempts, "acknowledged")


async def act(world: World, name: str) -> None:
    """The actor of this name."""
    kind, _, argument = name.partition(":")
    await asyncio.sleep(world.rng.random() * world.life.duration_ms / 5000)
    if kind == "produce":
        await produce(world)
    elif kind == "transact":
        await transact(world, argument)
    elif kind == "chain":
        await chain(world, argument)
    elif kind == "read":
        await read(world)
    elif kind == "administrate":
        await administrate(world)
    else:
        await consume(world, {"steady": STEADY_GROUP, "auto": AUTO_GROUP}[kind])
