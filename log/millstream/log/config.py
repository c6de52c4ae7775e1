"""Topic and broker settings: Kafka's names and Kafka's defaults, each with its unit and its reason.

Where an embedded log wants another default than a Kafka cluster, the field says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .errors import ConfigError, InvalidTopicError
from .limits import (
    PARTITIONS_PER_TOPIC_MAX,
    QUEUED_REQUEST_BYTES_MAX,
    QUEUED_RESPONSE_BYTES_MAX,
    TOPIC_NAME_LENGTH_MAX,
)
from .security_config import SecurityConfig
from .settings import INT32_MAX, LONG_MAX, SettingValue, describe, parse, setting

__all__ = [
    "CONSUMER_OFFSETS",
    "EVENT_TIME_TOPIC",
    "INTERNAL_TOPICS",
    "TRANSACTION_STATE",
    "BrokerConfig",
    "Durability",
    "TopicConfig",
    "check_durability",
    "check_topic_name",
]

Durability = Literal["fsync", "os"]

CONSUMER_OFFSETS = "__consumer_offsets"
TRANSACTION_STATE = "__transaction_state"
INTERNAL_TOPICS = frozenset({CONSUMER_OFFSETS, TRANSACTION_STATE})

EVENT_TIME_TOPIC: Mapping[str, SettingValue] = {
    "retention.ms": -1,
    "message.timestamp.after.max.ms": LONG_MAX,
}
"""How apps and connectors create topics unless they are told otherwise. Their records carry the
time of what happened, which may be years ago, or ahead: neither the age of a record nor its
distance from the clock says that it may go."""

_TOPIC_NAME_CHARACTERS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
)
_DAY_MS = 86_400_000


def check_topic_name(name: str) -> None:
    """Raise InvalidTopicError unless Kafka would take this name for a topic."""
    if not name or len(name) > TOPIC_NAME_LENGTH_MAX:
        raise InvalidTopicError(
            f"Topic name {name!r} has {len(name)} characters; it can have 1 to "
            f"{TOPIC_NAME_LENGTH_MAX}."
        )
    if name in {".", ".."} or not _TOPIC_NAME_CHARACTERS.issuperset(name):
        raise InvalidTopicError(
            f'Topic name {name!r}: use letters, digits, ".", "_" and "-" only, and not "." or '
            '".." alone.'
        )


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """Settings of one topic (Kafka's topic configs, Kafka's defaults)."""

    cleanup_policy: tuple[str, ...] = setting(
        ("delete",), "How old records go; empty keeps them.", choices=("delete", "compact")
    )
    compression_gzip_level: int = setting(
        -1, "1 to 9, or -1 for gzip's own default.", minimum=-1, maximum=9
    )
    compression_lz4_level: int = setting(9, "1 to 17.", minimum=1, maximum=17)
    compression_type: str = setting(
        "producer",
        "`producer` keeps a batch as it was sent.",
        choices=("producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"),
    )
    compression_zstd_level: int = setting(3, "-131072 to 22.", minimum=-131_072, maximum=22)
    delete_retention_ms: int = setting(_DAY_MS, "Milliseconds a tombstone is kept.", minimum=0)
    file_delete_delay_ms: int = setting(60_000, "Milliseconds before a file goes.", minimum=0)
    flush_messages: int = setting(LONG_MAX, "Records between forced fsyncs.", minimum=1)
    flush_ms: int = setting(LONG_MAX, "Milliseconds between forced fsyncs.", minimum=0)
    index_interval_bytes: int = setting(
        4096, "Bytes of log between index entries.", minimum=0, maximum=INT32_MAX
    )
    max_compaction_lag_ms: int = setting(LONG_MAX, "Milliseconds.", minimum=1)
    max_message_bytes: int = setting(
        1_048_588, "Bytes of one record batch, compressed.", minimum=0, maximum=INT32_MAX
    )
    message_timestamp_after_max_ms: int = setting(
        3_600_000, "Milliseconds a timestamp may lie in the future.", minimum=0
    )
    message_timestamp_before_max_ms: int = setting(
        LONG_MAX, "Milliseconds a timestamp may lie in the past.", minimum=0
    )
    message_timestamp_type: str = setting(
        "CreateTime", "Whose time a record carries.", choices=("CreateTime", "LogAppendTime")
    )
    min_cleanable_dirty_ratio: float = setting(0.5, "Share of the log.", minimum=0, maximum=1)
    min_compaction_lag_ms: int = setting(0, "Milliseconds.", minimum=0)
    min_insync_replicas: int = setting(
        1, "Copies a record must have; this log has one.", minimum=1, maximum=INT32_MAX
    )
    preallocate: bool = setting(False, "Whether files get their full size at once.")
    retention_bytes: int = setting(-1, "Bytes of a partition; -1 is no limit.", minimum=-1)
    retention_ms: int = setting(7 * _DAY_MS, "Milliseconds; -1 keeps for ever.", minimum=-1)
    segment_bytes: int = setting(
        1 << 30,
        "Bytes of one segment file; below 1 KiB nothing fits.",
        minimum=1024,
        maximum=INT32_MAX,
    )
    segment_index_bytes: int = setting(
        10 << 20, "Bytes of one index file; an entry takes 8.", minimum=12, maximum=INT32_MAX
    )
    segment_jitter_ms: int = setting(0, "Milliseconds taken off segment.ms at random.", minimum=0)
    segment_ms: int = setting(7 * _DAY_MS, "Milliseconds before a segment is closed.", minimum=1)
    unclean_leader_election_enable: bool = setting(False, "Means nothing on one node.")

    @classmethod
    def parse(
        cls, values: Mapping[str, SettingValue] | None = None, *, topic: str = "topic"
    ) -> TopicConfig:
        """From Kafka's names. Raises ConfigError that names the setting and what it can be."""
        what = f"Topic {topic}" if topic != "topic" else "Topic"
        config = parse(cls, values, what)
        if config.compression_gzip_level == 0:
            raise ConfigError(f"{what}: compression.gzip.level is 0; it can be 1 to 9, or -1.")
        if config.min_compaction_lag_ms > config.max_compaction_lag_ms:
            raise ConfigError(
                f"{what}: min.compaction.lag.ms is {config.min_compaction_lag_ms}, "
                f"max.compaction.lag.ms {config.max_compaction_lag_ms}. Lower the first or raise "
                "the second: a record cannot stay longer than the longest it may stay."
            )
        return config

    def to_strings(self) -> dict[str, str]:
        """Every key, defaults included, as Kafka's tools show it."""
        return describe(self)

    @property
    def is_log_append_time(self) -> bool:
        """Whether records carry the broker's time instead of the producer's."""
        return self.message_timestamp_type == "LogAppendTime"

    @property
    def deletes(self) -> bool:
        """Whether records go by age and size (retention.ms, retention.bytes)."""
        return "delete" in self.cleanup_policy

    @property
    def compacts(self) -> bool:
        """Whether only the newest record of each key is kept."""
        return "compact" in self.cleanup_policy

    @property
    def segment_age_max_ms(self) -> int:
        """How long a segment is appended to: segment.ms, and in a compacted topic no longer than
        max.compaction.lag.ms, because only closed segments are compacted (KIP-354)."""
        if self.compacts:
            return min(self.segment_ms, self.max_compaction_lag_ms)
        return self.segment_ms

    @property
    def compression_level(self) -> int | None:
        """The level of `compression_type`; None where it has none."""
        levels = {
            "gzip": self.compression_gzip_level,
            "lz4": self.compression_lz4_level,
            "zstd": self.compression_zstd_level,
        }
        return levels.get(self.compression_type)


@dataclass(frozen=True, slots=True)
class BrokerConfig(SecurityConfig):
    """Settings of one log as a whole (Kafka's broker configs)."""

    auto_create_topics_enable: bool = setting(
        True, "Whether writing to a topic that is not there creates it, as Kafka does."
    )
    connections_max_idle_ms: int = setting(
        600_000, "Milliseconds until a served connection that asks nothing is closed.", minimum=1
    )
    fetch_max_bytes: int = setting(
        55 << 20, "Bytes of one answer to a fetch request.", minimum=1024, maximum=INT32_MAX
    )
    flush_threads: int = setting(
        4,
        "Threads that fsync; the disk serves a few at once. 0 calls fsync on the event loop.",
        minimum=0,
        maximum=64,
    )
    group_consumer_heartbeat_interval_ms: int = setting(
        5_000,
        "Milliseconds between heartbeats of members with group.protocol=consumer.",
        minimum=1,
    )
    group_consumer_max_size: int = setting(
        INT32_MAX, "Members with group.protocol=consumer in one group.", minimum=1
    )
    group_consumer_session_timeout_ms: int = setting(
        45_000,
        "Milliseconds a member with group.protocol=consumer may be silent.",
        minimum=1,
    )
    group_initial_rebalance_delay_ms: int = setting(
        0, "Kafka waits 3000 for members on other machines; an embedded group has none.", minimum=0
    )
    group_max_session_timeout_ms: int = setting(1_800_000, "Milliseconds.", minimum=1)
    group_max_size: int = setting(INT32_MAX, "Members of one group.", minimum=1)
    group_min_session_timeout_ms: int = setting(6_000, "Milliseconds.", minimum=1)
    log_cleaner_backoff_ms: int = setting(
        15_000, "Milliseconds between two looks for something to compact.", minimum=1
    )
    log_cleaner_dedupe_buffer_size: int = setting(
        32 << 20,
        "Bytes for the keys of one compaction. Kafka takes 128 MiB of a machine of its own; here "
        "the memory is the application's, and more keys only take more passes.",
        minimum=1 << 16,
    )
    log_cleaner_enable: bool = setting(True, "Whether topics are compacted.")
    log_flush_offset_checkpoint_interval_ms: int = setting(
        60_000, "Milliseconds; what recovery has to scan after a crash.", minimum=1_000
    )
    log_retention_check_interval_ms: int = setting(
        300_000, "Milliseconds between two looks for records to delete.", minimum=1
    )
    max_connections: int = setting(
        1000,
        "Served at once. Kafka has no end here; a process has one, of open files.",
        minimum=0,
        maximum=INT32_MAX,
    )
    max_connections_per_ip: int = setting(
        INT32_MAX, "Served at once from one address.", minimum=0, maximum=INT32_MAX
    )
    num_partitions: int = setting(
        1,
        "Partitions of a topic created by writing to it.",
        minimum=1,
        maximum=PARTITIONS_PER_TOPIC_MAX,
    )
    offset_metadata_max_bytes: int = setting(4096, "Bytes of the note on an offset.", minimum=0)
    offsets_retention_check_interval_ms: int = setting(
        600_000, "Milliseconds between two looks for offsets that are too old.", minimum=1
    )
    offsets_retention_minutes: int = setting(
        10_080,
        "Minutes an offset is kept after its group became empty, or the commit without a group.",
        minimum=1,
        maximum=INT32_MAX,
    )
    offsets_topic_num_partitions: int = setting(
        1, "Kafka spreads them over 50 for many brokers; one node gains nothing.", minimum=1
    )
    offsets_topic_segment_bytes: int = setting(
        4 << 20,
        "Bytes. Kafka's 100 MiB would be read whenever a log is opened: the last segment is never "
        "compacted.",
        minimum=1024,
        maximum=INT32_MAX,
    )
    producer_id_expiration_check_interval_ms: int = setting(
        600_000, "Milliseconds between two looks for producers to forget.", minimum=1
    )
    producer_id_expiration_ms: int = setting(
        _DAY_MS,
        "Milliseconds after which a partition forgets a producer that writes nothing.",
        minimum=1,
        maximum=INT32_MAX,
    )
    queued_max_request_bytes: int = setting(
        QUEUED_REQUEST_BYTES_MAX,
        "Of all clients' requests, read and not answered. Kafka has no end here unless it is told.",
        minimum=1,
        maximum=LONG_MAX,
    )
    queued_max_response_bytes: int = setting(
        QUEUED_RESPONSE_BYTES_MAX,
        "Of all clients' answers, not taken. Kafka sends from files, and has no such setting.",
        minimum=1,
        maximum=LONG_MAX,
    )
    socket_request_max_bytes: int = setting(
        100 << 20, "Bytes of one request to a server.", minimum=1024, maximum=INT32_MAX
    )
    transaction_max_timeout_ms: int = setting(900_000, "Milliseconds.", minimum=1)
    transaction_remove_expired_transaction_cleanup_interval_ms: int = setting(
        3_600_000, "Milliseconds between two looks for transactional ids to forget.", minimum=1
    )
    transaction_state_log_num_partitions: int = setting(
        1, "Kafka spreads them over 50 for many brokers; one node gains nothing.", minimum=1
    )
    transaction_state_log_segment_bytes: int = setting(
        4 << 20, "Bytes; as offsets.topic.segment.bytes.", minimum=1024, maximum=INT32_MAX
    )
    transactional_id_expiration_ms: int = setting(
        7 * _DAY_MS, "Milliseconds a transactional id without a transaction is kept.", minimum=1
    )

    @classmethod
    def parse(cls, values: Mapping[str, SettingValue] | None = None) -> BrokerConfig:
        """From Kafka's names. Raises ConfigError that names the setting and what it can be."""
        return parse(cls, values, "Log")

    def to_strings(self) -> dict[str, str]:
        """Every key, defaults included, as Kafka's tools show it."""
        return describe(self)


def check_durability(value: str) -> Durability:
    """Raise ConfigError unless `value` is a durability."""
    if value == "fsync":
        return "fsync"
    if value == "os":
        return "os"
    raise ConfigError(
        f"durability is {value!r}; it can be fsync (acknowledged records survive a power cut) or "
        "os (they survive a killed process only)."
    )
