"""Committed offsets on a simulated disk: stopped at any operation, opened again, held to account.

The workload commits offsets plain and in transactions, aborts some, deletes offsets and whole
groups, lets offsets grow old, and has `__consumer_offsets` compacted. After every
step it notes what each group has; what was acknowledged must be there after a crash, and of the
step that was on its way either all or nothing, partition by partition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from millstream.log import Log, OffsetAndMetadata, TopicPartition
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log_on
from millstream.log.testing.fake_clock import FakeClock
from millstream.log.testing.sim_files import SimFiles
from shared.log_sweep import disks_after, run_until_crash
from shared.logs import settled
from shared.sweeping import noting

FOLDER = "log"
GROUPS = ("plain", "txn", "old", "gone")
T = [TopicPartition("t", number) for number in range(3)]
CONFIG = {
    "flush.threads": 0,
    "offsets.retention.minutes": 10,
    "offsets.retention.check.interval.ms": 60_000,
    "offsets.topic.segment.bytes": 1024,
}
MINUTE_MS = 60_000

Offsets = dict[str, dict[TopicPartition, int]]


@dataclass
class Account:
    """What counts for sure, and what the step on its way would make of it."""

    known: Offsets = field(default_factory=lambda: {group: {} for group in GROUPS})
    coming: Offsets = field(default_factory=lambda: {group: {} for group in GROUPS})
    together: set[str] = field(default_factory=set)  # groups that change as a whole, or not at all
    steps: int = 0

    def begin(self, group: str, offsets: dict[TopicPartition, int | None], *, whole: bool) -> None:
        """A step begins: these offsets are set, or forgotten (None)."""
        after = {**self.known[group], **offsets}
        self.coming[group] = {each: at for each, at in after.items() if at is not None}
        if whole:
            self.together.add(group)

    def done(self) -> None:
        """It was acknowledged."""
        self.known = {group: dict(offsets) for group, offsets in self.coming.items()}
        self.together.clear()
        self.steps += 1


async def workload(log: EmbeddedLog, account: Account, clock: FakeClock) -> None:
    await log.create_topic("t", partitions=len(T))
    for number in range(3):
        await committed(log, account, "plain", dict.fromkeys(T[: number + 1], number))
        await in_transaction(log, account, {T[0]: number, T[2]: number}, commit=number != 1)
    await committed(log, account, "old", {T[0]: 5, T[1]: 5})
    await committed(log, account, "gone", {T[0]: 7, T[1]: 7, T[2]: 7})
    account.begin("plain", {T[0]: None}, whole=False)
    await log.delete_group_offsets("plain", [T[0]])
    account.done()
    account.begin("gone", dict.fromkeys(T), whole=True)
    await log.delete_group("gone")
    account.done()
    await committed(log, account, "gone", {T[1]: 1})
    await compacted(log)
    await grown_old(log, account, clock)
    await in_transaction(log, account, {T[0]: 9}, commit=True)
    await compacted(log)
    await committed(log, account, "plain", {T[0]: 11})


async def committed(
    log: Log, account: Account, group: str, offsets: dict[TopicPartition, int]
) -> None:
    account.begin(group, dict(offsets), whole=True)
    await log.alter_group_offsets(group, offsets)
    account.done()


async def in_transaction(
    log: Log, account: Account, offsets: dict[TopicPartition, int], *, commit: bool
) -> None:
    producer = log.producer(transactional_id="app")
    await producer.begin_transaction()
    await producer.send_offsets(offsets, group="txn")
    if commit:
        account.begin("txn", dict(offsets), whole=True)
        await producer.commit_transaction()
        account.done()
    else:
        await producer.abort_transaction()
    await producer.close()


async def grown_old(log: EmbeddedLog, account: Account, clock: FakeClock) -> None:
    """All but those of `old` and `gone` are committed again before they are too old."""
    for _ in range(6):
        clock.advance(MINUTE_MS)
        await settled()
    await committed(log, account, "plain", dict.fromkeys(T, 20))
    await in_transaction(log, account, dict.fromkeys(T, 20), commit=True)
    for group in ("old", "gone"):
        account.begin(group, dict.fromkeys(T), whole=False)
    for _ in range(6):
        clock.advance(MINUTE_MS)
        await settled()
    for group in ("old", "gone"):  # not so when the disk stopped under it
        assert await log.group_offsets(group) == {}, "an offset that is too old"
    account.done()


async def compacted(log: EmbeddedLog) -> None:
    """What was overwritten and what was forgotten goes; notes of another group fill segments."""
    for number in range(3):
        await log.alter_group_offsets("other", {T[0]: OffsetAndMetadata(number, "n" * 900)})
    assert (await log._broker.cleaner.run_once()).partitions_compacted >= 1


def run_workload(files: SimFiles, account: Account) -> None:
    clock = FakeClock()

    async def work() -> None:
        async with open_log_on(files, FOLDER, config=CONFIG, clock=clock) as log:
            await workload(log, account, clock)

    run_until_crash(files, work)


async def offsets_of(log: Log) -> Offsets:
    return {
        group: {each: at.offset for each, at in (await log.group_offsets(group)).items()}
        for group in GROUPS
    }


def check(found: Offsets, account: Account) -> None:
    """Every offset is the acknowledged one, or the one that was on its way."""
    for group in GROUPS:
        known, coming, mine = account.known[group], account.coming[group], found[group]
        if group in account.together:
            assert mine in (known, coming), f"{group}: half of a commit"
        for each in T:
            allowed = {known.get(each), coming.get(each)}
            assert mine.get(each) in allowed, f"{group}, {each}: {mine.get(each)} not in {allowed}"


def recovered(disk: SimFiles, account: Account) -> None:
    """Open what is left, check it, crash again: nothing changes; then it can be written to."""

    def opened(files: SimFiles, then: Callable[[Log], object] | None = None) -> Offsets:
        async def main() -> Offsets:
            async with open_log_on(files, FOLDER, config=CONFIG) as log:
                found = await offsets_of(log)
                if then is not None:
                    await more(log)
                return found

        return asyncio.run(main())

    async def more(log: Log) -> None:
        await log.create_topic("t", partitions=len(T), exist_ok=True)
        await log.alter_group_offsets("plain", {T[0]: 99})
        await in_transaction(log, Account(), {T[0]: 99}, commit=True)
        after = await offsets_of(log)
        assert after["plain"][T[0]] == after["txn"][T[0]] == 99

    first = opened(disk)
    check(first, account)
    again = disk.after_crash("dropped", "dropped")
    assert opened(again, more) == first, "the second recovery changed something"
    assert opened(again.after_crash("dropped", "dropped"))["plain"][T[0]] == 99


def sweep(*, step: int = 1, offset: int = 0, all_of_them: bool = False) -> int:
    """Stop at every `step`-th write operation; returns the number of disks that were checked."""
    files, account = SimFiles(), Account()
    run_workload(files, account)
    assert not files.crashed
    assert account.known == account.coming
    recovered(files.after_crash("dropped", "dropped"), account)
    checked = 0
    for point in range(offset, files.writes, step):
        stopped, account = SimFiles(crash_at=point), Account()
        run_workload(stopped, account)
        assert stopped.crashed
        for number, disk in enumerate(disks_after(stopped, point, all_of_them=all_of_them)):
            where = f"crash at write {point}, disk {number}, after {account.steps} steps"
            with noting(f"{where}: {stopped.operations[-1]}"):
                recovered(disk, account)
            checked += 1
    return checked
