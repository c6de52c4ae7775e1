"""What a seed decides before anything runs: topics, settings, lives of the process, and chaos."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Literal

from millstream.log.settings import INT32_MAX, LONG_MAX

from .case import Rules

DAY_MS = 86_400_000
IN, OUT, AGED, KEYED, TEMP = "in", "out", "aged", "keyed", "temp"
CHAIN_GROUP, STEADY_GROUP, AUTO_GROUP, FREE_GROUP = "chain", "steady", "auto", "free"
GROUPS = (CHAIN_GROUP, STEADY_GROUP, AUTO_GROUP, FREE_GROUP)
STRATEGIES = ("range", "roundrobin", "sticky", "cooperative-sticky", "range,cooperative-sticky")
COMPRESSIONS = ("none", "none", "gzip", "snappy", "lz4", "zstd")


@dataclass(slots=True)
class Life:
    """One run of the process.

    `end`: close; kill (SIGKILL: what was written stays in the page cache); crash (power loss, at
    the write operation with this number). `fault`: which disk operation fails, if any.
    """

    end: str
    duration_ms: int
    crash_after: int
    cancel_rate: float
    jump_rate: float
    fault: tuple[Literal["EIO", "ENOSPC"], str, int] | None
    """(EIO or ENOSPC, kind of operation or "any", how many of them go well before)"""
    fault_count: int
    downtime_ms: int
    actors: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Plan:
    """All of it."""

    durability: str
    broker: dict[str, str | int | float | bool]
    topics: dict[str, tuple[int, dict[str, str | int | float | bool]]]
    lives: list[Life]
    strategy: str = "range"
    """partition.assignment.strategy of every group."""

    @property
    def offsets_retention_ms(self) -> int | None:
        """How long an offset lives, if that can come to an end in a run."""
        minutes = int(self.broker["offsets.retention.minutes"])
        return minutes * 60_000 if minutes < INT32_MAX else None

    def rules(self) -> dict[str, Rules]:
        return {name: rules_of(name, config) for name, (_, config) in self.topics.items()}


def rules_of(name: str, config: dict[str, str | int | float | bool]) -> Rules:
    """What these settings allow."""
    policy = str(config.get("cleanup.policy", "delete"))
    deletes = "delete" in policy
    retention_ms = int(config.get("retention.ms", 7 * DAY_MS))
    retention_bytes = int(config.get("retention.bytes", -1))
    return Rules(
        name,
        compacts="compact" in policy,
        retention_ms=retention_ms if deletes and retention_ms >= 0 else None,
        retention_bytes=retention_bytes if deletes and retention_bytes >= 0 else None,
        delete_retention_ms=int(config.get("delete.retention.ms", DAY_MS)),
        min_compaction_lag_ms=int(config.get("min.compaction.lag.ms", 0)),
        append_time=config.get("message.timestamp.type") == "LogAppendTime",
        remade=name == TEMP,
    )


def make_plan(rng: Random) -> Plan:
    """The plan of one seed."""
    durability = "fsync" if rng.random() < 0.75 else "os"
    broker: dict[str, str | int | float | bool] = {
        "flush.threads": rng.choice((0, 1, 4, 4)),
        "auto.create.topics.enable": False,
        "log.flush.offset.checkpoint.interval.ms": rng.choice((1000, 5000, 60_000)),
        "group.initial.rebalance.delay.ms": rng.choice((0, 0, 100)),
        "log.cleaner.backoff.ms": rng.choice((20, 200, 15_000)),
        "log.retention.check.interval.ms": rng.choice((50, 500, 300_000)),
        "offsets.topic.segment.bytes": rng.choice((1024, 4 << 20)),
        "transaction.state.log.segment.bytes": rng.choice((1024, 4 << 20)),
        "producer.id.expiration.ms": rng.choice((1000, DAY_MS)),
        "producer.id.expiration.check.interval.ms": rng.choice((500, 600_000)),
        "transactional.id.expiration.ms": rng.choice((10_000, 7 * DAY_MS)),
        "transaction.remove.expired.transaction.cleanup.interval.ms": rng.choice((5000, 3_600_000)),
        "offsets.retention.minutes": 10 if rng.random() < 0.1 else INT32_MAX,
        "offsets.retention.check.interval.ms": rng.choice((1000, 600_000)),
    }
    keep: dict[str, str | int | float | bool] = {"retention.ms": -1}
    topics = {
        IN: (rng.choice((1, 1, 2, 3)), {**keep, **_any_topic(rng)}),
        OUT: (rng.choice((1, 2)), {**keep, **_any_topic(rng)}),
        AGED: (1, _aged(rng)),
        KEYED: (rng.choice((1, 2)), _keyed(rng)),
        TEMP: (1, {**keep, **_any_topic(rng)}),
    }
    count = rng.choice((1, 2, 2, 3))
    lives = [_life(rng, durability) for _ in range(count)]
    return Plan(durability, broker, topics, lives, rng.choice(STRATEGIES))


def _any_topic(rng: Random) -> dict[str, str | int | float | bool]:
    config: dict[str, str | int | float | bool] = {
        "segment.bytes": rng.choice((1024, 2048, 4096, 1 << 20)),
        "message.timestamp.after.max.ms": LONG_MAX,
    }
    if rng.random() < 0.2:
        config["message.timestamp.type"] = "LogAppendTime"
    if rng.random() < 0.2:
        config["segment.ms"] = rng.choice((100, 1000, 60_000))
    if rng.random() < 0.3:
        config["index.interval.bytes"] = rng.choice((0, 100, 1000))
    if rng.random() < 0.1:
        config["segment.index.bytes"] = 24
    if rng.random() < 0.2:
        config["compression.type"] = rng.choice(("uncompressed", "gzip", "lz4", "zstd"))
    return config


def _aged(rng: Random) -> dict[str, str | int | float | bool]:
    config = {**_any_topic(rng), "retention.ms": -1, "segment.bytes": rng.choice((1024, 2048))}
    if rng.random() < 0.6:
        config["retention.ms"] = rng.choice((0, 1000, 60_000, 3_600_000))
    if rng.random() < 0.6:
        config["retention.bytes"] = rng.choice((0, 1000, 3000, 10_000))
    return config


def _keyed(rng: Random) -> dict[str, str | int | float | bool]:
    config = {
        **_any_topic(rng),
        "cleanup.policy": "compact" if rng.random() < 0.8 else "compact,delete",
        "segment.bytes": rng.choice((1024, 1024, 2048)),
        "min.cleanable.dirty.ratio": rng.choice((0.01, 0.1, 0.5)),
        "delete.retention.ms": rng.choice((0, 1000, 60_000, DAY_MS)),
        "retention.ms": rng.choice((-1, 3_600_000)),
    }
    if rng.random() < 0.3:
        config["min.compaction.lag.ms"] = rng.choice((100, 5000, 60_000))
    if rng.random() < 0.3:
        lag_ms = int(config.get("min.compaction.lag.ms", 1))
        config["max.compaction.lag.ms"] = max(lag_ms, rng.choice((1000, 60_000)))
    return config


def _life(rng: Random, durability: str) -> Life:
    fault = None
    if rng.random() < 0.2:
        kinds = ["append", "create", "rename"]
        if durability == "fsync":  # what one that fails leaves, "os" does not promise to mend
            kinds += ["any", "fsync", "fsync", "fsync", "fsync_dir"]
        kind = rng.choice(kinds)
        fault = (rng.choice(("EIO", "ENOSPC")), kind, int(rng.random() ** 2 * 60))
    return Life(
        end=rng.choice(("close", "kill", "crash", "crash")),
        duration_ms=rng.choice((500, 3000, 20_000)),
        crash_after=int(rng.random() ** 2 * 500),
        cancel_rate=rng.choice((0.0, 0.0, 0.1, 0.3)),
        jump_rate=rng.choice((0.0, 0.0, 0.0, 0.3)),
        fault=fault,
        fault_count=rng.choice((1, 1, 1, 3)),
        downtime_ms=rng.choice((0, 1000, 3_600_000, 3 * DAY_MS)),
        actors=_actors(rng),
    )


def _actors(rng: Random) -> list[str]:
    actors = ["produce", "transact:a"]
    actors += ["chain:0"] + ["chain:1"] * (rng.random() < 0.5)
    for name, rate in (
        ("produce", 0.5),
        ("transact:a", 0.3),
        ("transact:b", 0.4),
        ("steady", 0.6),
        ("steady", 0.3),
        ("auto", 0.3),
        ("auto", 0.2),
        ("read", 0.4),
        ("administrate", 0.5),
    ):
        if rng.random() < rate:
            actors.append(name)
    return actors
