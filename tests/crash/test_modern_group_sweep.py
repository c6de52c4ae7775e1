"""Groups of KIP-848 survive a stop at every operation on the disk; and the sweep finds bugs.

Members join, hand partitions over, leave, come back, and commit, while `__consumer_offsets` is
compacted. The power goes at some operation; the members live on, as clients do, with what they
were told. Whoever was told something goes on from there: nobody has to join again, no partition is
read by two at any moment, no acknowledged offset is lost, and in the end all is shared out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from millstream.log import OffsetAndMetadata, TopicPartition
from millstream.log.broker import modern_records
from millstream.log.broker.modern_coordinator import ModernCoordinator
from millstream.log.broker.modern_group import ModernGroup
from millstream.log.errors import LogError
from millstream.log.record import ConsumerGroupMetadata
from millstream.log.testing.sim_files import SimFiles
from shared.log_sweep import disks_after, run_until_crash
from shared.modern_members import SESSION_MS, World
from shared.sweeping import coarse_first, noting

Patch = pytest.MonkeyPatch

PARTITIONS = 4
T0 = TopicPartition("t", 0)


class Clients(World):
    """Members that outlive their broker, and what it acknowledged to them."""

    def __init__(self, files: SimFiles) -> None:
        super().__init__(files, "fsync", offsets_topic_segment_bytes=1024)
        self.there: list[str] = []
        """Who is in the group, or on the way into it."""
        self.leaving: str | None = None
        """Whose leave was not acknowledged."""
        self.committed = self.committing = -1

    def on(self, files: SimFiles) -> Clients:
        """The same clients, whose broker has this disk now."""
        after = Clients(files)
        for name, member in self.members.items():
            joined = after.member(name, *member.topics, **member.more)
            joined.epoch, joined.has = member.epoch, member.has
        after.there = list(self.there)
        after.leaving = self.leaving
        after.committed, after.committing = self.committed, self.committing
        return after

    def joins(self, name: str, **more: Any) -> None:
        self.member(name, **more)
        self.there.append(name)

    async def leaves(self, name: str) -> None:
        self.there.remove(name)
        self.leaving = name
        await self.members[name].leave()
        self.leaving = None

    async def beat(self, rounds: int) -> None:
        for _ in range(rounds):
            for name in self.there:
                await self.members[name].beat()
                self.check_owners()

    def check_members(self) -> None:
        group = self.groups.get("g")
        known = set(group.members) if group is not None else set()
        assert known <= {*self.there, self.leaving}, "who had left is back"

    def check_owners(self) -> None:
        owned = [place for name in self.there for place in self.members[name].has]
        assert len(owned) == len(set(owned)), "a partition has two owners"

    async def commit(self, name: str, offset: int) -> None:
        self.committing = offset
        await self.members[name].commit(offset)
        self.committed = offset

    async def compact(self) -> None:
        """Notes of another group fill segments; what was overwritten or deleted goes."""
        for number in range(3):
            note = {T0: OffsetAndMetadata(number, "n" * 900)}
            await self.broker.offsets.commit(ConsumerGroupMetadata("other"), note)
        assert (await self.broker.cleaner.run_once()).partitions_compacted >= 1


async def workload(world: Clients) -> None:
    await world.open()
    try:
        await world.broker.create_topic("t", PARTITIONS)
        world.joins("one")
        await world.beat(1)
        await world.commit("one", 1)
        world.joins("two")
        world.joins("three", instance_id="i3")
        await world.beat(3)
        await world.compact()
        await world.leaves("two")
        await world.beat(2)
        await world.commit("three", 2)
        world.joins("two")
        await world.beat(2)
        await world.leaves("one")
        await world.leaves("two")
        await world.beat(1)
        await world.compact()
        world.joins("four", topics=frozenset(), regex="t")
        await world.beat(3)
        await world.commit("four", 3)
    finally:
        await world.broker.close()


def run_workload(files: SimFiles) -> Clients:
    world = Clients(files)
    run_until_crash(files, lambda: workload(world))
    return world


async def gone_on(world: Clients) -> None:
    """The broker is opened again; clients go on where they were, and a newcomer comes."""
    await world.open()
    world.check_members()
    world.there.reverse()  # who waits for something is heard of before who has it
    await world.broker.create_topic("t", PARTITIONS, exist_ok=True)
    await world.beat(3)
    found = world.broker.offsets.of_group("g").get(T0)
    assert (-1 if found is None else found.offset) in (world.committed, world.committing)
    world.joins("late")
    for _ in range(3):  # who left, or came, without a word is out by its session
        await world.pass_time(SESSION_MS - 1)
        await world.beat(3)
    shared_out = {name: world.members[name].numbers for name in world.there}
    numbers = sorted(number for each in shared_out.values() for number in each)
    assert numbers == list(range(PARTITIONS)), shared_out
    assert world.state == "Stable"


def recovered(disk: SimFiles, world: Clients) -> None:
    async def main(world: Clients) -> None:
        try:
            await gone_on(world)
            await world.leaves("late")
        finally:
            await world.broker.close()

    first = world.on(disk)
    asyncio.run(main(first))
    asyncio.run(main(first.on(disk.after_crash("dropped", "dropped"))))


def sweep(*, step: int = 1, offset: int = 0) -> int:
    """Stop at every `step`-th write operation; returns the number of disks that were checked."""
    files = SimFiles()
    run_workload(files)
    assert not files.crashed
    checked = 0
    for point in range(offset, files.writes, step):
        stopped = SimFiles(crash_at=point)
        world = run_workload(stopped)
        assert stopped.crashed
        for number, disk in enumerate(disks_after(stopped, point, all_of_them=False)):
            with noting(f"crash at write {point}, disk {number}: {stopped.operations[-1]}"):
                recovered(disk, world)
            checked += 1
    return checked


def test_crashes_at_many_points() -> None:
    assert sweep(step=9) > 20


@pytest.mark.slow
@pytest.mark.parametrize("offset", range(2))
def test_every_crash_point(offset: int) -> None:
    assert sweep(step=2, offset=offset) > 300


def answers_before_they_are_durable(patch: Patch) -> None:
    async def durable(self: Any, group: ModernGroup) -> None:
        self._write(group)

    patch.setattr(ModernCoordinator, "_durable", durable)


def a_restart_forgets_who_has_what(patch: Patch) -> None:
    patch.setattr(modern_records, "_with_current", lambda member, _reader: member)


def what_is_gone_stays_written(patch: Patch) -> None:
    original = ModernCoordinator._write

    def write(self: Any, group: ModernGroup) -> None:
        self._written[group.name] = {
            key: b""
            for key in modern_records.group_rows(group)
            if key in self._written.get(group.name, {})
        }
        original(self, group)

    patch.setattr(ModernCoordinator, "_write", write)


def a_restart_gives_out_what_others_have(patch: Patch) -> None:
    original = ModernGroup.restore

    def restore(self: ModernGroup, *arguments: Any) -> None:
        original(self, *arguments)
        self._holders.clear()

    patch.setattr(ModernGroup, "restore", restore)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutation",
    [
        answers_before_they_are_durable,
        a_restart_forgets_who_has_what,
        what_is_gone_stays_written,
        a_restart_gives_out_what_others_have,
    ],
    ids=lambda mutation: mutation.__name__,
)
def test_the_sweep_catches(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    with pytest.raises((AssertionError, LogError)):
        coarse_first(sweep)
