"""Producer and consumer settings: Kafka's names and defaults; where embedded differs, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from millstream.log.settings import INT32_MAX, SettingValue, parse, setting

__all__ = ["CODECS", "ConsumerConfig", "ProducerConfig"]

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
"""`compression.type` of a producer, as the number in a batch's attributes."""


@dataclass(frozen=True, slots=True)
class ProducerConfig:
    """Settings of a producer. Idempotence is always on and cannot be switched off."""

    acks: str = setting("all", "Always all: the log has one copy.", choices=("all", "-1"))
    batch_size: int = setting(
        256 << 10,
        "Bytes of one batch, uncompressed. Kafka's 16384 suits many small senders on a network; "
        "in one process larger batches cost less per record.",
        minimum=0,
        maximum=INT32_MAX,
    )
    buffer_memory: int = setting(
        32 << 20, "Bytes handed over and not acknowledged; more waits.", minimum=1 << 16
    )
    client_id: str = setting("", "A name for messages.")
    compression_type: str = setting("none", "Codec of a batch.", choices=tuple(CODECS))
    delivery_timeout_ms: int = setting(120_000, "Milliseconds until a send gives up.", minimum=1)
    enable_idempotence: str = setting("true", "Always true.", choices=("true",))
    linger_ms: int = setting(5, "Milliseconds a batch waits for more.", minimum=0)
    max_block_ms: int = setting(60_000, "Milliseconds a send waits for the buffer.", minimum=0)
    transaction_timeout_ms: int = setting(
        60_000, "Milliseconds until an open transaction is aborted.", minimum=1, maximum=INT32_MAX
    )

    @classmethod
    def parse(cls, values: Mapping[str, SettingValue] | None) -> ProducerConfig:
        """From Kafka's names. Raises ConfigError."""
        return parse(cls, values, "Producer")


@dataclass(frozen=True, slots=True)
class ConsumerConfig:
    """Settings of a consumer."""

    auto_commit_interval_ms: int = setting(5_000, "Milliseconds.", minimum=0)
    check_crcs: bool = setting(True, "Whether each batch's checksum is tested on reading.")
    client_id: str = setting("consumer", "Begins the member id.")
    enable_auto_commit: bool = setting(
        True, "With a group: commit every auto.commit.interval.ms what earlier polls returned."
    )
    fetch_max_bytes: int = setting(50 << 20, "Bytes of one fetch.", minimum=1024)
    fetch_max_wait_ms: int = setting(
        500, "Milliseconds a fetch waits for fetch.min.bytes.", minimum=0
    )
    fetch_min_bytes: int = setting(1, "Bytes a fetch waits for.", minimum=1)
    group_instance_id: str = setting(
        "", "Names this member over restarts; no two at a time may have the same (KIP-345)."
    )
    heartbeat_interval_ms: int = setting(3_000, "Milliseconds.", minimum=1)
    max_partition_fetch_bytes: int = setting(
        1 << 20, "Bytes of one partition in one fetch.", minimum=1
    )
    max_poll_interval_ms: int = setting(
        300_000, "Milliseconds between polls before the member must leave.", minimum=1
    )
    max_poll_records: int = setting(500, "Records of one poll.", minimum=1)
    partition_assignment_strategy: tuple[str, ...] = setting(
        ("range", "cooperative-sticky"),
        "In order of preference.",
        choices=("range", "roundrobin", "sticky", "cooperative-sticky"),
    )
    session_timeout_ms: int = setting(
        45_000, "Milliseconds without a heartbeat before a member is given up.", minimum=1
    )

    @classmethod
    def parse(cls, values: Mapping[str, SettingValue] | None) -> ConsumerConfig:
        """From Kafka's names. Raises ConfigError."""
        return parse(cls, values, "Consumer")
