"""The small files beside the log, in Kafka's layouts. Each is replaced as a whole.

recovery-point-offset-checkpoint       0             version
log-start-offset-checkpoint            2             lines that follow
replication-offset-checkpoint          orders 0 57   topic partition offset
                                       orders 1 12

leader-epoch-checkpoint                0             version
                                       1             lines that follow
                                       0 0           epoch, start offset

partition.metadata                     version: 0
                                       topic_id: mD3CLkLrRUaWSiLQkBNZCg

meta.properties                        version=1 / cluster.id / node.id / directory.id
.kafka_cleanshutdown                   {"version":0,"brokerEpoch":-1}
"""

from __future__ import annotations

from collections.abc import Mapping

from millstream.log.errors import StorageError
from millstream.log.ids import is_id
from millstream.log.record import TopicPartition
from millstream.log.settings import LONG_MAX

__all__ = [
    "CLEAN_SHUTDOWN_CONTENT",
    "decode_offsets",
    "decode_topic_id",
    "encode_leader_epochs",
    "decode_cluster_id",
    "encode_meta_properties",
    "encode_offsets",
    "encode_partition_metadata",
]

VERSION = 0
CLEAN_SHUTDOWN_CONTENT = b'{"version":0,"brokerEpoch":-1}'


def encode_offsets(offsets: Mapping[TopicPartition, int]) -> bytes:
    """The bytes of an offset checkpoint."""
    lines = [f"{topic} {partition} {offset}" for (topic, partition), offset in offsets.items()]
    return "\n".join([str(VERSION), str(len(lines)), *sorted(lines), ""]).encode()


def decode_offsets(data: bytes, path: str) -> dict[TopicPartition, int]:
    """From the bytes of an offset checkpoint; `path` is for messages.

    Raises:
        StorageError: the file is damaged. It is replaced whole, so no crash does that.
    """
    try:
        version, count, *lines = data.decode().splitlines()
        offsets = {}
        for line in lines:
            topic, partition, offset = line.split(" ")
            offsets[TopicPartition(topic, _number(partition))] = _number(offset)
        if _number(version) != VERSION or _number(count) != len(offsets):
            raise ValueError(f"version {version}, {count} lines announced, {len(lines)} there")
    except ValueError as error:
        raise StorageError(
            f"{path} is damaged ({error}). Restore it from a backup, or remove it and open the log "
            "again: then everything is checked, which takes longer, and deleted records that are "
            "still on disk come back."
        ) from error
    return offsets


def _number(text: str) -> int:
    """No number in these files is negative, and none has more than 64 bits."""
    if not (text.isascii() and text.isdigit() and (number := int(text)) <= LONG_MAX):
        raise ValueError(f"{text[:40]!r} where a number must be")
    return number


def encode_leader_epochs(epoch: int, start_offset: int) -> bytes:
    """The bytes of a leader epoch checkpoint with one epoch."""
    return f"{VERSION}\n1\n{epoch} {start_offset}\n".encode()


def encode_partition_metadata(topic_id: str) -> bytes:
    """The bytes of partition.metadata."""
    return f"version: {VERSION}\ntopic_id: {topic_id}\n".encode()


def decode_topic_id(data: bytes) -> str | None:
    """The topic id in partition.metadata; None when the file was not written to its end, or is
    damaged."""
    version, _, topic_id = data.decode("ascii", "replace").partition("\n")
    is_whole = topic_id.startswith("topic_id: ") and topic_id.endswith("\n")
    if version != f"version: {VERSION}" or not is_whole:
        return None
    found = topic_id.removeprefix("topic_id: ").removesuffix("\n")
    return found if is_id(found) else None


def decode_cluster_id(data: bytes) -> str:
    """From the bytes of meta.properties; "" where it is not named."""
    lines = dict(line.partition("=")[::2] for line in data.decode("utf-8", "replace").split("\n"))
    return lines.get("cluster.id", "")


def encode_meta_properties(*, cluster_id: str, node_id: int, directory_id: str) -> bytes:
    """The bytes of meta.properties, as Kafka's storage tool formats a folder."""
    return (
        f"version=1\ncluster.id={cluster_id}\nnode.id={node_id}\ndirectory.id={directory_id}\n"
    ).encode()
