"""Those who write: idempotent producers, and transactions with zombies among them."""

from __future__ import annotations

from contextlib import suppress

from millstream.log import TopicPartition
from millstream.log.client.producer import EmbeddedProducer
from millstream.log.errors import (
    InvalidProducerEpochError,
    LogClosedError,
    LogError,
    ProducerFencedError,
)

from .history import Fence, Sent, Txn
from .plan import (
    AGED,
    COMPRESSIONS,
    FREE_GROUP,
    IN,
    KEYED,
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
                else world.rng.choice((200, 5000, 60_000, 60_000)),
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
