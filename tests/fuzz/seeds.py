"""Valid bytes of every stored thing, made by the encoders that write them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache

from millstream.log.broker.consumer_protocol import (
    Subscription,
    encode_assignment,
    encode_subscription,
)
from millstream.log.broker.offset_records import (
    GroupRecord,
    MemberRecord,
    encode_group_key,
    encode_group_value,
    encode_offset_key,
    encode_offset_value,
)
from millstream.log.broker.topics import TopicTable, new_topic
from millstream.log.broker.txn_records import (
    TransactionMetadata,
    TransactionState,
    encode_key,
    encode_value,
)
from millstream.log.format.codec import encode_batch
from millstream.log.format.compression import compress
from millstream.log.format.control import encode_control_batch
from millstream.log.record import OffsetAndMetadata, TopicPartition
from millstream.log.storage.checkpoints import encode_offsets, encode_partition_metadata
from millstream.log.storage.offset_index import ENTRY as OFFSET_ENTRY
from millstream.log.storage.producer_snapshot import encode_snapshot
from millstream.log.storage.time_index import ENTRY as TIME_ENTRY
from millstream.log.storage.txn_index import ENTRY as TXN_ENTRY
from shared.partitions import NOW_MS, batch, end, fresh, send

ORDERS = TopicPartition("orders", 0)
MANY_FRAMES = (1, 4)
"""gzip and zstd: one after the other decompress to what each does."""


@cache
def batches() -> list[bytes]:
    """One batch of every codec and kind."""
    keys = [b"k", None, b"key" * 9]
    values = [b"v" * 40, b"", None]
    times = [NOW_MS, NOW_MS - 7, NOW_MS + 100_000]
    headers = [(("h", b"1"), ("ü", None)), (), (("h", b""),)]
    found = [
        encode_batch(keys, values, times, headers, 0, 3, compression=codec) for codec in range(5)
    ]
    found += [
        encode_batch(
            None, [b"x"] * 5, [5] * 5, None, 0, 5, producer_id=1 << 40, producer_epoch=3,
            base_sequence=2**31 - 2, transactional=True,
        )
    ]  # fmt: skip
    return [*found, *markers()]


def markers() -> list[bytes]:
    return [
        encode_control_batch(
            producer_id=7, producer_epoch=2, commit=commit, coordinator_epoch=0, timestamp=NOW_MS
        )
        for commit in (True, False)
    ]


def compressed(codec: int) -> Callable[[], list[bytes]]:
    """What a codec makes of short, long and repeated data; and of two members or frames."""

    @cache
    def made() -> list[bytes]:
        plain = [b"", b"a", b"many words " * 30, bytes(range(256)) * 3, bytes(70_000)]
        found = [compress(codec, each) for each in plain]
        return [*found, found[2] + found[1]] if codec in MANY_FRAMES else found

    return made


def keys() -> list[bytes]:
    return [b"", b"21", b"foobar", b"a-little-bit-long-string", bytes(range(256))]


def offset_indexes() -> list[bytes]:
    entries = [(2, 0), (9, 150), (40, 1000), (41, 1100)]
    return [b"", b"".join(OFFSET_ENTRY.pack(*entry) for entry in entries)]


def time_indexes() -> list[bytes]:
    entries = [(NOW_MS, 2), (NOW_MS + 5, 9), (NOW_MS + 90, 40)]
    return [b"", b"".join(TIME_ENTRY.pack(*entry) for entry in entries)]


def txn_indexes() -> list[bytes]:
    entries = [(0, 7, 0, 4, 0), (0, 8, 2, 9, 5)]
    return [b"", b"".join(TXN_ENTRY.pack(*entry) for entry in entries)]


@cache
def segments() -> list[bytes]:
    """See `stored.segment` for how the files of one lie in an input."""
    partition = fresh()
    for number in range(6):
        partition.append(batch([b"%d" % number * 20] * 2, compression=number % 5), NOW_MS + number)
    send(partition, 5, 0, 0, b"in a transaction")
    end(partition, 5, 1, commit=False)
    segment = partition._segments.active
    log = segment.read(0, segment.size_bytes)
    found = []
    for flags in (0, 1):
        indexes = (offset_indexes()[1], time_indexes()[1], txn_indexes()[1])
        sizes = struct.pack(">BHHH", flags, *map(len, indexes))
        found += [sizes + b"".join(indexes) + log, struct.pack(">BHHH", flags, 0, 0, 0) + log]
    return found


@cache
def snapshots() -> list[bytes]:
    partition = fresh()
    found = [encode_snapshot(partition._producers)]
    for producer_id in (1, 2, 1 << 50):
        send(partition, producer_id, 3, 0, b"x")
    end(partition, 2, 4, commit=True)
    return [*found, encode_snapshot(partition._producers)]


def points() -> list[bytes]:
    return [
        encode_offsets({}),
        encode_offsets(
            {ORDERS: 57, TopicPartition("orders", 11): 2**62, TopicPartition("b", 0): 0}
        ),
    ]


def topic_ids() -> list[bytes]:
    return [encode_partition_metadata("mD3CLkLrRUaWSiLQkBNZCg")]


@cache
def topics() -> list[bytes]:
    table = TopicTable()
    found = [table.encode()]
    config = {"retention.ms": 1000, "cleanup.policy": "compact"}
    table = table.with_topic(new_topic("orders", 4, config)).with_topic(new_topic("b", 1, None))
    return [*found, table.encode(), table.without("b").encode()]


def producer_ids() -> list[bytes]:
    return [b"0\n", b"1000\n", b"123456789000\n"]


def offset_keys() -> list[bytes]:
    return [encode_offset_key("group", ORDERS), encode_group_key("group")]


def offset_values() -> list[bytes]:
    value = encode_offset_value(OffsetAndMetadata(12345, "a note"), NOW_MS)
    return [value, b"\x00\x01" + value[2:10] + value[14:] + value[-8:]]


def group_values() -> list[bytes]:
    member = MemberRecord(
        "m-1", None, "client", "host", 300_000, 45_000, subscriptions()[1], assignments()[1]
    )
    static = member._replace(member_id="m-2", group_instance_id="one")
    return [
        encode_group_value(GroupRecord("consumer", 0, None, None, NOW_MS, [])),
        encode_group_value(GroupRecord("consumer", 7, "range", "m-1", NOW_MS, [member, static])),
    ]


def offset_columns() -> list[bytes]:
    rows = [
        *zip([offset_keys()[0]] * 2, offset_values(), strict=True),
        *zip([offset_keys()[1]] * 2, group_values(), strict=True),
    ]
    short = [(key, value) for key, value in rows if len(value) < 256]
    return [b"".join(bytes([len(part)]) + part for row in short for part in row)]


def transaction_keys() -> list[bytes]:
    return [encode_key("app"), encode_key("")]


def transaction_values() -> list[bytes]:
    metadata = TransactionMetadata(
        "app", 5, 1, 60_000, TransactionState.ONGOING,
        frozenset({ORDERS, TopicPartition("b", 3), TopicPartition("b", 4)}), NOW_MS, NOW_MS,
    )  # fmt: skip
    empty = metadata._replace(state=TransactionState.EMPTY, partitions=frozenset())
    both = metadata._replace(previous_producer_id=4, next_producer_id=6)
    version_0 = struct.pack(">hqhib", 0, 5, 1, 60_000, 1) + struct.pack(
        ">ih1siiqq", 1, 1, b"b", 1, 3, 1, 2
    )
    return [*map(encode_value, (metadata, empty, both)), version_0]


def subscriptions() -> list[bytes]:
    full = Subscription(("orders", "b"), (ORDERS,), 3, "rack", b"note")
    return [encode_subscription(each, 3) for each in (Subscription(()), full)] + [
        encode_subscription(full, version) for version in range(3)
    ]


def assignments() -> list[bytes]:
    return [b"", encode_assignment([ORDERS, TopicPartition("orders", 3), TopicPartition("b", 0)])]


def folder_damages() -> list[bytes]:
    """See `folders.damaged`: steps of eight bytes."""
    return [
        b"",
        bytes(8),
        *(bytes([file, kind, 0, 40, 1, 2, 3, 4]) for file in range(8) for kind in range(9)),
    ]
