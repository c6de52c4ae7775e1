"""Members of groups of KIP-848 that speak to a broker by hand, and a clock that stands still."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Literal

from millstream.log import OffsetAndMetadata, TopicPartition
from millstream.log.broker.broker import Broker
from millstream.log.broker.modern_values import Heartbeat, HeartbeatResult, Place
from millstream.log.config import BrokerConfig
from millstream.log.record import ConsumerGroupMetadata
from millstream.log.storage.files import Files
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.testing.fake_clock import FakeClock
from shared.logs import settled

__all__ = ["REBALANCE_MS", "SESSION_MS", "Member", "World"]

SESSION_MS = 10_000
REBALANCE_MS = 4_000


class World:
    """A broker and the members of its group `g`, by name."""

    def __init__(
        self,
        files: Files | None = None,
        durability: Literal["fsync", "os"] = "os",
        **config: int,
    ) -> None:
        self.files = MemoryFiles() if files is None else files
        self.durability = durability
        self.clock = FakeClock()
        self.config = BrokerConfig(
            flush_threads=0, group_consumer_session_timeout_ms=SESSION_MS, **config
        )
        self.members: dict[str, Member] = {}

    async def open(self) -> None:
        self.broker = await Broker.open(
            self.files, "/log", durability=self.durability, config=self.config, clock=self.clock
        )
        self.groups = self.broker.groups.modern

    async def restart(self) -> None:
        await self.broker.close()
        await self.open()

    async def pass_time(self, ms: int) -> None:
        await settled()  # who sleeps has to be asleep when the clock moves
        self.clock.advance(ms)
        await settled()

    def member(self, name: str, *topics: str, **more: Any) -> Member:
        self.members[name] = Member(self, name, topics or ("t",), more)
        return self.members[name]

    def place(self, number: int, topic: str = "t") -> Place:
        return self.broker.partitions.topic(topic).topic_id, number

    @property
    def state(self) -> str:
        group = self.groups.get("g")
        assert group is not None
        return group.state


class Member:
    """A client as KIP-848 has it: it gives up what it no longer has before its next heartbeat."""

    def __init__(self, world: World, name: str, topics: tuple[str, ...], more: Any) -> None:
        self.world = world
        self.name = name
        self.topics = topics
        self.more = more
        self.epoch = 0
        self.has: frozenset[Place] = frozenset()

    async def beat(self, **changes: Any) -> HeartbeatResult:
        """One heartbeat that says everything."""
        said = {
            "client_id": "tests",
            "rebalance_timeout_ms": REBALANCE_MS,
            "topics": frozenset(self.topics),
            "owned": self.has if self.epoch else frozenset(),
            **self.more,
            **changes,
        }
        request = Heartbeat(self.name, said.pop("epoch", self.epoch), **said)
        told = await self.world.groups.heartbeat("g", request, self.world.broker.partitions)
        self.epoch = told.epoch
        if told.assigned is not None:
            self.has = told.assigned
        return told

    async def leave(self, **how: bool) -> None:
        instance = self.more.get("instance_id")
        self.epoch, self.has = 0, frozenset()
        await self.world.groups.leave("g", self.name, instance, **how)

    @property
    def numbers(self) -> list[int]:
        return sorted(number for _, number in self.has)

    def commit(self, offset: int = 3, **more: int) -> Awaitable[None]:
        offsets = {TopicPartition("t", 0): OffsetAndMetadata(offset)}
        who = ConsumerGroupMetadata("g", more.get("epoch", self.epoch), self.name)
        return self.world.broker.offsets.commit(who, offsets)
