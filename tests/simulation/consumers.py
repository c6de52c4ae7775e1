"""Those who read: members of groups, a chain of consuming and producing, readers that seek."""

from __future__ import annotations

from contextlib import suppress

from millstream.log import TopicPartition
from millstream.log.client.consumer import EmbeddedConsumer
from millstream.log.client.producer import EmbeddedProducer
from millstream.log.errors import LogClosedError, LogError

from .plan import AGED, AUTO_GROUP, CHAIN_GROUP, IN, KEYED, OUT, STEADY_GROUP
from .producers import FAILED, Transactor, steps
from .world import World


async def chain(world: World, slot: str) -> None:
    """Consume, transform, produce, exactly once: each record of IN becomes one of OUT."""
    rng = world.rng
    who = Transactor(world, f"chain-{slot}")
    consumer: EmbeddedConsumer | None = None
    handle: EmbeddedProducer | None = None
    patience_ms = rng.choice((20, 20, world.life.duration_ms / 4))
    for _ in steps(world, 3, 8):
        await world.pause(patience_ms)
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
    await world.pause(15_000 if not world.calm and world.rng.random() < 0.2 else 2)
    offsets = consumer.position()
    attempts = world.offsets_tried(CHAIN_GROUP, offsets, txn)
    await world.attempt(handle.send_offsets(offsets, group=consumer.group_metadata()))
    world.offsets_answered(attempts, "acknowledged")
    await who.commit(handle, txn)
    world.count["chained"] += len(records)
    return len(records)


def _group_config(world: World, *, auto_commit: bool) -> dict[str, str | int]:
    return {
        "enable.auto.commit": "true" if auto_commit else "false",
        "auto.commit.interval.ms": 50,
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 2000,
        "max.poll.interval.ms": world.rng.choice((3000, 3000, 300_000)),
        "partition.assignment.strategy": world.plan.strategy,
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
    if world.rng.random() < 0.2 and not world.calm:  # two of one instance fence each other
        config["group.instance.id"] = f"{group}-{world.rng.randrange(3)}"
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
            "FencedInstanceIdError",
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
