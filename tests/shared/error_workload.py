"""A workload on a whole log that goes on after errors, and what it was told.

Every call stands alone: it succeeds, or raises a LogError that says where and what to do, and the
next call is made all the same. `Told` is what the calls answered; `check` holds a log that was
opened later against it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from millstream.log import Log, TopicPartition
from millstream.log.errors import LogError, UnknownTopicError
from shared.logs import values

IN, OTHER = TopicPartition("in", 0), TopicPartition("other", 0)
OUT = [TopicPartition("out", 0), TopicPartition("out", 1)]
SMALL = {"segment.bytes": 1024, "index.interval.bytes": 200}
SETTINGS = {
    "old": {**SMALL, "retention.ms": 1000, "file.delete.delay.ms": 0},
    "compacted": {
        **SMALL,
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": 0,
        "delete.retention.ms": 0,
    },
}
CALL_S = 3600
"""Simulated; what takes longer hangs."""
A_WHILE_S = 600
"""Long enough for every timer of the log: checkpoints, retention, compaction."""
ADVICE = (
    "open", "mend", "make", "check", "restore", "create", "wait", "close", "use", "seek", "look",
    "numbered",
)  # fmt: skip
KEYS = 3
AFTER_RECOVERY = {"produce", "transact", "abort", "consume", "commit offsets", "a while"}
"""What the third session does: the log is what recovery made of it."""


@dataclass
class Told:
    """What was tried, what was promised, and every error."""

    sent: dict[str, list[bytes]] = field(default_factory=dict)
    acknowledged: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    tried: list[int] = field(default_factory=list)
    committed: list[int] = field(default_factory=list)
    offsets_tried: list[int] = field(default_factory=list)
    offset_acknowledged: int | None = None
    deleted_before: int = 0
    topics: set[str] = field(default_factory=set)
    errors: list[tuple[str, LogError]] = field(default_factory=list)

    async def attempt(self, name: str, call: Awaitable[object]) -> bool:
        """Whether the call succeeded. What it raises must be a LogError with a useful message."""
        try:
            async with asyncio.timeout(CALL_S):
                await call
        except LogError as error:
            check_message(error)
            self.errors.append((name, error))
            return False
        return True


def check_message(error: LogError) -> None:
    """It says where (a file, a topic, a partition, an id) and what to do."""
    text = str(error)
    known = ("log", "in", "out", "other", "late", "app", "group", "producer", *SETTINGS)
    assert any(f"{name}" in text for name in known), f"where? {text}"
    assert any(word in text.lower() for word in ADVICE), f"what is to be done? {text}"


async def create_topics(log: Log, told: Told) -> None:
    for name, partitions in {"in": 1, "out": 2, "other": 1, "old": 1, "compacted": 1}.items():

        async def create(name: str = name, partitions: int = partitions) -> None:
            config = SETTINGS.get(name, SMALL)
            await log.create_topic(name, partitions=partitions, config=config, exist_ok=True)
            told.topics.add(name)

        if not await told.attempt(f"create {name}", create()):
            await told.attempt(f"create {name} again", create())


async def work(log: Log, told: Told, session: int) -> None:
    """One session's calls, each on its own."""
    steps: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        ("produce", lambda: produce(log, told, "in", session, 4)),
        ("transact", lambda: transact(log, told, session * 10, commit=True)),
        ("abort", lambda: transact(log, told, session * 10 + 1, commit=False)),
        ("consume", lambda: consume(log)),
        ("commit offsets", lambda: commit_offsets(log, told, session)),
        ("old records", lambda: produce(log, told, "old", session, 3)),
        ("keyed records", lambda: produce_keyed(log, session)),
        ("a while", lambda: asyncio.sleep(A_WHILE_S)),
        ("delete records", lambda: delete_records(log, told)),
        ("look up", lambda: look_up(log)),
        ("short-lived topic", lambda: short_lived(log)),
        ("alter", lambda: log.alter_topic("other", config={"retention.ms": 10**10 + session})),
        ("more partitions", lambda: more_partitions(log, session)),
        ("transact again", lambda: transact(log, told, session * 10 + 2, commit=True)),
        ("produce again", lambda: produce(log, told, "in", session + 50, 3)),
    ]
    for number, (name, step) in enumerate(steps):
        if session < 3 or name in AFTER_RECOVERY:
            await told.attempt(name, step())
        if number % 3 == 2:
            # One failure at a time: what has nothing to do with it goes on working.
            await told.attempt("elsewhere", produce(log, told, "other", session, 1))


async def produce(log: Log, told: Told, topic: str, session: int, count: int) -> None:
    """Records one by one, each waiting for its acknowledgement."""
    sent, acknowledged = told.sent.setdefault(topic, []), told.acknowledged.setdefault(topic, [])
    async with log.producer(config={"linger.ms": 0}) as producer:
        for _ in range(count):
            value = b"%d-%d" % (session, len(sent)) + b"." * 250
            sent.append(value)
            metadata = await producer.send(topic, value, partition=0)
            acknowledged.append((metadata.offset, value))


async def produce_keyed(log: Log, session: int) -> None:
    async with log.producer() as producer:
        for row in range(8):
            value = b"%d" % session * 200
            await producer.send("compacted", value, key=b"%d" % (row % KEYS))


def transaction_values(number: int, partition: int) -> list[bytes]:
    return [b"%d/%d" % (number, row) + b"." * 60 for row in range(2 + partition)]


async def transact(log: Log, told: Told, number: int, *, commit: bool) -> None:
    async with log.producer(transactional_id="app") as producer:
        await producer.begin_transaction()
        for partition in OUT:
            values = transaction_values(number, partition.partition)
            await producer.send_batch("out", values, partition=partition.partition)
        await producer.send_offsets({IN: number + 1}, group="app")
        if commit:
            told.tried.append(number)
            await producer.commit_transaction()
            told.committed.append(number)
        else:
            await producer.abort_transaction()


async def consume(log: Log) -> None:
    async with log.consumer("in", "old", group="readers") as consumer:
        await consumer.poll(1000)
        await consumer.commit()
        await consumer.poll(0)


async def commit_offsets(log: Log, told: Told, offset: int) -> None:
    told.offsets_tried.append(offset)
    await log.alter_group_offsets("plain", {IN: offset})
    told.offset_acknowledged = offset
    await log.group_offsets("plain")


async def delete_records(log: Log, told: Told) -> None:
    end = (await log.end_offsets([IN]))[IN]
    told.deleted_before = max(told.deleted_before, min(3, end))
    await log.delete_records({IN: told.deleted_before})


async def look_up(log: Log) -> None:
    await log.beginning_offsets([IN, OTHER])
    await log.offsets_for_time({IN: 1_700_000_000_500, OTHER: 0})
    await log.describe_topic("in")


async def short_lived(log: Log) -> None:
    await log.create_topic("late", config=SMALL, exist_ok=True)
    async with log.producer() as producer:
        await producer.send_batch("late", [b"late"] * 3)
    await log.delete_topic("late")


async def more_partitions(log: Log, session: int) -> None:
    description = await log.describe_topic("other")
    await log.alter_topic("other", partitions=description.partitions + 1)


async def check(log: Log, told: Told) -> None:
    """Nothing acknowledged is lost, nothing is invented, nothing comes twice."""
    assert told.topics <= set(await log.topics()), "a created topic"
    for topic in sorted(told.topics & {"in", "other"}):
        found = await values(log, TopicPartition(topic, 0))
        sent, acknowledged = told.sent.get(topic, []), told.acknowledged.get(topic, [])
        start = told.deleted_before if topic == "in" else 0
        missing = [each for each in acknowledged if each[0] >= start and each[1] not in found]
        assert not missing, f"{topic}: acknowledged and lost: {missing}"
        assert found == [value for value in sent if value in set(found)], f"{topic}: out of order"
    if "compacted" in told.topics:
        await values(log, TopicPartition("compacted", 0))
    if "out" in told.topics:
        await check_transactions(log, told)
    await check_offsets(log, told)


async def check_transactions(log: Log, told: Told) -> None:
    seen: list[list[int]] = []
    for partition in OUT:
        found = await values(log, partition)
        numbers = list(dict.fromkeys(int((value or b"").split(b"/")[0]) for value in found))
        wanted = [
            value for number in numbers for value in transaction_values(number, partition.partition)
        ]
        assert found == wanted, f"{partition}: parts of a transaction"
        seen.append(numbers)
    assert seen[0] == seen[1], "one partition has a transaction that the other has not"
    assert set(told.committed) <= set(seen[0]), "a committed transaction is lost"
    assert set(seen[0]) <= set(told.tried), "an aborted transaction is visible"


async def check_offsets(log: Log, told: Told) -> None:
    try:
        found = (await log.group_offsets("plain")).get(IN)
    except UnknownTopicError:
        found = None
    offset = None if found is None else found.offset
    if told.offset_acknowledged is not None:
        allowed = told.offsets_tried[told.offsets_tried.index(told.offset_acknowledged) :]
        assert offset in allowed, f"the committed offset is {offset}, not of {allowed}"
    else:
        assert offset is None or offset in told.offsets_tried
