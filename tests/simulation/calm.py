"""When nothing disturbs it any more: everybody comes to the end, and readers see what is there."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from millstream.log import TopicPartition
from millstream.log.client.consumer import EmbeddedConsumer
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.errors import (
    IllegalGenerationError,
    RebalanceInProgressError,
    UnknownMemberError,
)

from .consumers import chain_consumer, chain_step, consume_step, member
from .history import Violation
from .plan import AUTO_GROUP, CHAIN_GROUP, GROUPS, IN, KEYED, STEADY_GROUP
from .producers import Transactor
from .snapshot import PartitionSnapshot, Row, read_by_consumer, read_log
from .world import World

REBALANCED = (RebalanceInProgressError, IllegalGenerationError, UnknownMemberError)


async def everybody_comes_to_the_end(world: World) -> None:
    """The chain and the groups, with two members each, read all there is."""
    log = world.log
    chains = [(Transactor(world, f"chain-{slot}"), [chain_consumer(world)]) for slot in "01"]
    groups = {group: [member(world, group) for _ in "01"] for group in (STEADY_GROUP, AUTO_GROUP)}

    async def follow_chain(who: Transactor, consumer: list[EmbeddedConsumer]) -> None:
        _, handle = await who.start()
        while not _at_the_end(log, [each for _, (each,) in chains], (IN,)):
            try:
                await chain_step(world, who, handle, consumer[0], records_max=100)
            except REBALANCED:  # begin again where the group is
                await consumer[0].close()
                consumer[0] = chain_consumer(world)
                _, handle = await who.start()

    async def follow_group(group: str, consumer: EmbeddedConsumer) -> None:
        while not all(_at_the_end(log, members, (IN, KEYED)) for members in groups.values()):
            with suppress(*REBALANCED):
                await consume_step(world, consumer, group)

    await asyncio.gather(
        *(follow_chain(*each) for each in chains),
        *(follow_group(group, each) for group, members in groups.items() for each in members),
    )
    for each in (*groups[STEADY_GROUP], *groups[AUTO_GROUP]):
        await each.close()
    for who, (consumer,) in chains:
        await consumer.close()
        await who.close()
    await _the_chain_has_read_all(world)


async def _the_chain_has_read_all(world: World) -> None:
    snapshot = await read_log(world.log, (CHAIN_GROUP,))
    for found in snapshot.of_topic(IN):
        offset = snapshot.groups[CHAIN_GROUP].get(found.partition, 0)
        left = [row for row in found.committed() if row.offset >= offset]
        if left and world.exact and world.plan.offsets_retention_ms is None:
            raise Violation("not at the end", f"the chain is at {offset}: {left}")


async def consumers_see_what_is_there(world: World) -> None:
    log = world.log
    snapshot = await read_log(log, GROUPS)
    partitions = list(snapshot.partitions)
    for isolation in ("read_committed", "read_uncommitted"):
        found = await read_by_consumer(log, partitions, isolation)
        after = await read_log(log, ())
        for partition, rows in found.items():
            expected = _shown(snapshot.partitions[partition], isolation)
            left = _shown(after.partitions[partition], isolation)  # by the cleaner
            if left == expected != rows or not set(left) <= set(rows) <= set(expected):
                raise Violation(
                    "reader", f"{isolation} of {partition} gave {rows}, there is {expected}"
                )
    world.count["compared"] += 1


def _shown(held: PartitionSnapshot, isolation: str) -> list[Row]:
    return held.committed() if isolation == "read_committed" else held.rows()


def _at_the_end(
    log: EmbeddedLog, consumers: list[EmbeddedConsumer], topics: tuple[str, ...]
) -> bool:
    """Whether the members of a group, together, have read all there is."""
    at: dict[TopicPartition, int] = {}
    for each in consumers:
        at.update(each.position())
    return all(
        at.get(each.topic_partition, -1) >= each.last_stable_offset
        for each in log._broker.partitions
        if each.topic_partition.topic in topics
    )
