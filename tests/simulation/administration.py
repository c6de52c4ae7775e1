"""Who keeps the log: makes, alters and removes topics, deletes records, sets offsets, looks."""

from __future__ import annotations

from contextlib import suppress

from millstream.log import TopicPartition
from millstream.log.errors import LogClosedError, LogError
from millstream.log.settings import SettingValue

from .history import Removal, Violation
from .plan import AGED, FREE_GROUP, GROUPS, IN, KEYED, TEMP, rules_of
from .producers import FAILED, steps
from .snapshot import read_partition
from .world import World


async def administrate(world: World) -> None:
    """Random things an administrator does."""
    rng = world.rng
    actions = (
        _remake_topic,
        _delete_records,
        _set_offsets,
        _forget_group,
        _alter_topic,
        _add_partitions,
        _terminate,
        _look_up_times,
        _look_around,
        _clean,
    )
    for _ in steps(world, 2, 6):
        await world.pause(100)
        try:
            await rng.choice(actions)(world)
        except LogClosedError:
            return
        except FAILED:
            continue


async def _remake_topic(world: World) -> None:
    removal = Removal(TEMP, None, None, world.history.tick())
    world.history.removals.append(removal)
    await world.attempt(world.log.delete_topic(TEMP))
    removal.ended = world.history.tick()
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
    removal.ended = world.history.tick()
    world.note("deleted records", partition, before)


async def _set_offsets(world: World) -> None:
    offsets = {TopicPartition(IN, 0): world.rng.randrange(1000)}
    attempts = world.offsets_tried(FREE_GROUP, offsets)
    await world.attempt(world.log.alter_group_offsets(FREE_GROUP, offsets))
    world.offsets_answered(attempts, "acknowledged")


async def _forget_group(world: World) -> None:
    attempts = world.offsets_forgotten(FREE_GROUP)
    if world.rng.random() < 0.5:
        await world.attempt(world.log.delete_group(FREE_GROUP))
    else:
        partitions = [each.partition for each in attempts]
        await world.attempt(world.log.delete_group_offsets(FREE_GROUP, partitions))
    world.offsets_answered(attempts, "acknowledged")
    world.note("forgot", FREE_GROUP)


async def _alter_topic(world: World) -> None:
    """Other settings; from the moment they may be in force, the log may do what they allow."""
    rng = world.rng
    topic = rng.choice((AGED, KEYED))
    change: dict[str, SettingValue | None] = rng.choice(
        (
            {"retention.ms": rng.choice((1000, 60_000, -1))},
            {"retention.bytes": rng.choice((1000, 5000, -1))},
            {"segment.bytes": rng.choice((1024, 4096))},
            {"delete.retention.ms": rng.choice((0, 60_000))},
            {"compression.type": rng.choice(("gzip", "producer"))},
            {"min.compaction.lag.ms": None},
        )
    )
    both = {**world.plan.topics[topic][1], **change}
    config = {name: value for name, value in both.items() if value is not None}
    world.rules[topic].loosen(rules_of(topic, config))
    await world.attempt(world.log.alter_topic(topic, config=change))
    world.note("altered", topic, change)


async def _add_partitions(world: World) -> None:
    count, config = world.plan.topics[AGED]
    if count < 3:
        await world.attempt(world.log.alter_topic(AGED, partitions=count + 1))
        world.plan.topics[AGED] = (count + 1, config)
        world.note("added partition", AGED)


async def _terminate(world: World) -> None:
    listed = await world.attempt(world.log.transactions())
    if listed:
        name = world.rng.choice(listed).transactional_id
        await world.attempt(world.log.terminate_transaction(name))
        world.note("terminated", name)


async def _look_up_times(world: World) -> None:
    """The offset for a time, and of the latest one, are what the records say."""
    partition = TopicPartition(world.rng.choice((IN, AGED)), 0)
    time = world.clock.wall_ms() - world.rng.choice((0, 10, 1000, 100_000))
    found = (await world.log.offsets_for_time({partition: time}))[partition]
    latest = (await world.log.max_timestamps([partition]))[partition]
    held = read_partition(world.log, partition)
    rows = held.rows()
    expected = next((row.offset for row in rows if row.timestamp >= time), None)
    if found != expected:
        raise Violation("time", f"{partition} at {time}: {found}, not {expected}: {rows}")
    if latest is not None and latest.timestamp < max((row.timestamp for row in rows), default=-1):
        raise Violation("time", f"the latest of {partition}: {latest}: {rows}")
    world.note("looked up a time", partition)


async def _look_around(world: World) -> None:
    log = world.log
    log.stats()
    log.metrics()
    for name in await log.topics():
        with suppress(LogError):
            await log.describe_topic(name)
    for group in GROUPS:
        with suppress(LogError):
            await log.describe_group(group)
    await world.attempt(log.groups())
    await world.attempt(log.hanging_transactions())


async def _clean(world: World) -> None:
    await world.attempt(world.log._broker.cleaner.run_once())
    world.note("cleaned")
