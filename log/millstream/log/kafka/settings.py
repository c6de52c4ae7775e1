"""Settings under Kafka's names, and what librdkafka calls them.

Names and defaults are those of the embedded clients, where there is no reason against it. A name
that is unknown, or that librdkafka has nothing for, is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millstream.log.errors import ConfigError
from millstream.log.settings import INT32_MAX, SettingValue, describe, parse, setting

__all__ = ["ConnectionConfig", "KafkaConsumerConfig", "KafkaProducerConfig"]

_MESSAGE_BYTES_MAX = 1_000_000_000  # librdkafka's limit; the topic's max.message.bytes decides
_FORGOTTEN_MS = 3_000
"""Milliseconds until a producer of transactions asks again who coordinates a group."""
_FETCHES_AHEAD = 4
"""How many fetches of a partition wait in memory until they are polled."""


@dataclass(frozen=True, slots=True)
class ConnectionConfig:
    """How all clients of a log reach it: options of the URL, or `open_log(url, config=...)`. Empty
    ones are left to librdkafka."""

    client_id: str = setting("millstream", "A name for the servers' logs.")
    security_protocol: str = setting(
        "", "Default plaintext.", choices=("", "plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
    )
    sasl_mechanism: str = setting("", "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, GSSAPI.")
    sasl_username: str = setting("", "Who connects.")
    sasl_password: str = setting("", "With which password.", sensitive=True)
    sasl_oauthbearer_method: str = setting("", "default or oidc.")
    sasl_oauthbearer_client_id: str = setting("", "Of the OIDC client.")
    sasl_oauthbearer_client_secret: str = setting("", "Of the OIDC client.", sensitive=True)
    sasl_oauthbearer_token_endpoint_url: str = setting("", "Where tokens are had.")
    sasl_oauthbearer_scope: str = setting("", "What tokens are asked for.")
    sasl_kerberos_service_name: str = setting("", "Of the brokers.")
    sasl_kerberos_principal: str = setting("", "Of the client.")
    sasl_kerberos_keytab: str = setting("", "A file.")
    ssl_ca_location: str = setting("", "File or directory of certificates that are trusted (PEM).")
    ssl_ca_pem: str = setting("", "The same as text.")
    ssl_certificate_location: str = setting("", "File of the client's certificate (PEM).")
    ssl_certificate_pem: str = setting("", "The same as text.")
    ssl_key_location: str = setting("", "File of the client's private key (PEM).")
    ssl_key_pem: str = setting("", "The same as text.", sensitive=True)
    ssl_key_password: str = setting("", "Opens the private key.", sensitive=True)
    ssl_keystore_location: str = setting("", "File of key and certificate (PKCS#12).")
    ssl_keystore_password: str = setting("", "Opens it.", sensitive=True)
    ssl_endpoint_identification_algorithm: str = setting(
        "https", "Whether the certificate must name the host.", choices=("https", "none")
    )
    enable_ssl_certificate_verification: bool = setting(True, "Whether it must be trusted.")
    client_dns_lookup: str = setting(
        "use_all_dns_ips",
        "What is done with names of several addresses.",
        choices=("use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"),
    )
    metadata_max_age_ms: int = setting(
        300_000, "Milliseconds after which topics are looked at anew.", minimum=10
    )
    reconnect_backoff_ms: int = setting(50, "Milliseconds, at first.", minimum=0)
    reconnect_backoff_max_ms: int = setting(1_000, "Milliseconds, at last.", minimum=0)
    request_timeout_ms: int = setting(
        30_000, "Milliseconds an answer is waited for.", minimum=10, maximum=300_000
    )

    @classmethod
    def parse(cls, values: Mapping[str, SettingValue] | None, where: str) -> ConnectionConfig:
        """From Kafka's names. Raises ConfigError."""
        lowered = dict(values or {})
        if "security.protocol" in lowered:
            lowered["security.protocol"] = str(lowered["security.protocol"]).lower()
        return parse(cls, lowered, where)

    def for_librdkafka(self, bootstrap_servers: str) -> dict[str, Any]:
        """As librdkafka takes them."""
        given = {name: value for name, value in describe(self).items() if value}
        given["socket.timeout.ms"] = given.pop("request.timeout.ms")
        # Else librdkafka forgets every server when none can be reached, but not that one of them
        # was a group's coordinator: offsets sent in a transaction then wait for it for ever.
        given["metadata.recovery.strategy"] = "none"
        return {"bootstrap.servers": bootstrap_servers, **given}


@dataclass(frozen=True, slots=True)
class KafkaProducerConfig:
    """Settings of a producer. Idempotence is always on and cannot be switched off."""

    acks: str = setting("all", "Always all.", choices=("all", "-1"))
    batch_size: int = setting(
        256 << 10, "Bytes of one batch, uncompressed.", minimum=1, maximum=INT32_MAX
    )
    buffer_memory: int = setting(
        32 << 20, "Bytes handed over and not acknowledged; more waits.", minimum=1 << 16
    )
    client_id: str = setting("", "A name for the servers' logs; default the log's.")
    compression_type: str = setting(
        "none", "Codec of a batch.", choices=("none", "gzip", "snappy", "lz4", "zstd")
    )
    delivery_timeout_ms: int = setting(
        120_000, "Milliseconds until a send gives up.", minimum=1, maximum=INT32_MAX
    )
    enable_idempotence: str = setting("true", "Always true.", choices=("true",))
    linger_ms: int = setting(5, "Milliseconds a batch waits for more.", minimum=0, maximum=900_000)
    max_block_ms: int = setting(60_000, "Milliseconds a send waits for the buffer.", minimum=0)
    transaction_timeout_ms: int = setting(
        60_000,
        "Milliseconds until an open transaction is aborted.",
        minimum=1_000,
        maximum=INT32_MAX,
    )

    @classmethod
    def parse(cls, values: Mapping[str, SettingValue] | None) -> KafkaProducerConfig:
        """From Kafka's names. Raises ConfigError."""
        return parse(cls, values, "Producer")

    def for_librdkafka(
        self, transactional_id: str | None, connection: Mapping[str, Any]
    ) -> dict[str, Any]:
        """As librdkafka takes them, those of the connection included."""
        settings: dict[str, Any] = {
            **connection,
            "enable.idempotence": True,
            "batch.size": self.batch_size,
            "message.max.bytes": _MESSAGE_BYTES_MAX,
            "queue.buffering.max.kbytes": max(1, self.buffer_memory >> 10),
            "queue.buffering.max.messages": 0,  # bytes are what counts
            "compression.type": self.compression_type,
            "delivery.timeout.ms": self.delivery_timeout_ms,
            "linger.ms": self.linger_ms,
            "partitioner": "murmur2_random",  # Kafka's, and ours
        }
        if self.client_id:
            settings["client.id"] = self.client_id
        if transactional_id is not None:
            settings["transactional.id"] = transactional_id
            # librdkafka waits for a group's coordinator that it has struck off, because it was
            # away, until what it remembers of it is this old and a connection comes or goes, and
            # heeds no time-out (its issues 5456 and 5511).
            settings["metadata.max.age.ms"] = _FORGOTTEN_MS
            settings["topic.metadata.refresh.interval.ms"] = _FORGOTTEN_MS // 3
            settings["connections.max.idle.ms"] = 2 * _FORGOTTEN_MS
            settings["transaction.timeout.ms"] = self.transaction_timeout_ms
            # What cannot be delivered within the transaction need not be tried for longer.
            for name in ("delivery.timeout.ms", "socket.timeout.ms"):
                settings[name] = min(int(settings[name]), self.transaction_timeout_ms)
        return settings


@dataclass(frozen=True, slots=True)
class KafkaConsumerConfig:
    """Settings of a consumer."""

    auto_commit_interval_ms: int = setting(5_000, "Milliseconds.", minimum=0)
    check_crcs: bool = setting(True, "Whether each batch's checksum is tested on reading.")
    client_id: str = setting("", "Begins the member id; default the log's.")
    enable_auto_commit: bool = setting(
        True, "With a group: commit every auto.commit.interval.ms what earlier polls returned."
    )
    fetch_max_bytes: int = setting(50 << 20, "Bytes of one fetch.", minimum=1024)
    fetch_max_wait_ms: int = setting(
        100,
        "Milliseconds a fetch waits for fetch.min.bytes. Partitions that are sought or resumed "
        "meanwhile wait, too.",
        minimum=0,
        maximum=60_000,
    )
    fetch_min_bytes: int = setting(1, "Bytes a fetch waits for.", minimum=1, maximum=100_000_000)
    group_instance_id: str = setting("", "Names this member over restarts (KIP-345).")
    heartbeat_interval_ms: int = setting(3_000, "Milliseconds.", minimum=1, maximum=3_600_000)
    max_partition_fetch_bytes: int = setting(
        1 << 20, "Bytes of one partition in one fetch.", minimum=1, maximum=1_000_000_000
    )
    max_poll_interval_ms: int = setting(
        300_000, "Milliseconds between polls before the member must leave.", minimum=1
    )
    max_poll_records: int = setting(500, "Records of one poll.", minimum=1)
    partition_assignment_strategy: tuple[str, ...] = setting(
        ("cooperative-sticky",),
        "One, or several of those that give up everything at a rebalance (range, roundrobin).",
        choices=("range", "roundrobin", "cooperative-sticky"),
    )
    session_timeout_ms: int = setting(
        45_000,
        "Milliseconds without a heartbeat before a member is given up.",
        minimum=1,
        maximum=3_600_000,
    )

    @classmethod
    def parse(cls, values: Mapping[str, SettingValue] | None) -> KafkaConsumerConfig:
        """From Kafka's names. Raises ConfigError."""
        config = parse(cls, values, "Consumer")
        if config.is_cooperative and len(config.partition_assignment_strategy) > 1:
            raise ConfigError(
                "Consumer: partition.assignment.strategy is "
                f"{','.join(config.partition_assignment_strategy)!r}; on a Kafka cluster "
                "cooperative-sticky goes with no other. Name it alone, or range and roundrobin."
            )
        return config

    @property
    def is_cooperative(self) -> bool:
        """Whether a rebalance takes only what moves (KIP-429)."""
        return "cooperative-sticky" in self.partition_assignment_strategy

    def for_librdkafka(self) -> dict[str, Any]:
        """As librdkafka takes them."""
        ahead_kbytes = max(1, _FETCHES_AHEAD * self.max_partition_fetch_bytes >> 10)
        settings: dict[str, Any] = {
            "check.crcs": self.check_crcs,
            "fetch.max.bytes": self.fetch_max_bytes,
            "fetch.wait.max.ms": self.fetch_max_wait_ms,
            "fetch.min.bytes": self.fetch_min_bytes,
            "fetch.queue.backoff.ms": 5,
            "queued.max.messages.kbytes": min(ahead_kbytes, 2_097_151),
            "heartbeat.interval.ms": self.heartbeat_interval_ms,
            "max.partition.fetch.bytes": self.max_partition_fetch_bytes,
            "max.poll.interval.ms": max(self.max_poll_interval_ms, self.session_timeout_ms),
            "partition.assignment.strategy": ",".join(self.partition_assignment_strategy),
            "session.timeout.ms": self.session_timeout_ms,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
        if self.fetch_max_bytes < _LIBRDKAFKA_MESSAGE_BYTES:
            settings["message.max.bytes"] = self.fetch_max_bytes
        if self.client_id:
            settings["client.id"] = self.client_id
        if self.group_instance_id:
            settings["group.instance.id"] = self.group_instance_id
        return settings


_LIBRDKAFKA_MESSAGE_BYTES = 1_000_000
"""Its default of message.max.bytes, below which a fetch cannot be."""
