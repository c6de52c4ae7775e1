"""What a file of a log holds, one entry after the other, for `millstream log dump`.

Every kind of file is read as it lies, with no trust in it: an entry with a `problem` says where it
stops making sense.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from millstream.log.config import CONSUMER_OFFSETS, TRANSACTION_STATE
from millstream.log.errors import CorruptRecordError
from millstream.log.format.codec import BatchHeader, decode_batch
from millstream.log.format.control import control_type
from millstream.log.record import RecordBatch, TopicPartition
from millstream.log.storage.files import Files, parent
from millstream.log.storage.layout import (
    INDEX,
    LOG,
    SNAPSHOT,
    TIME_INDEX,
    TXN_INDEX,
    offset_of,
    partition_of,
)
from millstream.log.storage.offset_index import ENTRY as OFFSET_ENTRY
from millstream.log.storage.producer_snapshot import decode_snapshot
from millstream.log.storage.time_index import ENTRY as TIME_ENTRY
from millstream.log.storage.txn_index import ENTRY as TXN_ENTRY
from millstream.log.storage.verify_batches import FoundBatch, found_batches
from millstream.log.storage.verify_indexes import stored_entries

from .internal_records import decoded
from .record_formats import record_as_json

__all__ = ["Dumping", "Entry", "files_in"]

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
SMALL_FILE_BYTES = 1 << 20
Entry = dict[str, Any]


def files_in(files: Files, path: str) -> Iterator[str]:
    """The files to show: this one, or those in this folder and in the partitions' folders in it."""
    if not files.is_dir(path):
        yield path
        return
    for name in files.list_dir(path):
        inner = f"{path}/{name}"
        if not files.is_dir(inner):
            if name != ".lock":
                yield inner
        elif partition_of(name) is not None:
            yield from files_in(files, inner)


class Dumping:
    """Shows files.

    Args:
        records: the records of each batch, too.
        decode: what the records of the log's own topics say.
    """

    def __init__(self, files: Files, *, records: bool, decode: bool) -> None:
        self._files = files
        self._records = records
        self._decode = decode

    def entries(self, path: str) -> Iterator[Entry]:
        """What is in a file.

        Raises:
            OSError: it could not be read.
        """
        name = path.rpartition("/")[2]
        base = offset_of(name, "." + name.rpartition(".")[2]) or 0
        if name.endswith(LOG):
            return self._batches(path)
        if name.endswith(TIME_INDEX):
            return (
                {"position": at, "timestamp": timestamp, "offset": base + relative}
                for at, (timestamp, relative) in stored_entries(self._files, path, TIME_ENTRY)
            )
        if name.endswith(TXN_INDEX):
            return (
                dict(
                    zip(
                        ("position", "version", "producer_id", "first_offset", "last_offset"),
                        (at, *fields),
                        strict=False,
                    ),
                    last_stable_offset=fields[-1],
                )
                for at, fields in stored_entries(self._files, path, TXN_ENTRY)
            )
        if name.endswith(INDEX):
            return (
                {"position": at, "offset": base + relative, "points_to": points_to}
                for at, (relative, points_to) in stored_entries(self._files, path, OFFSET_ENTRY)
            )
        return self._snapshot(path) if name.endswith(SNAPSHOT) else self._text(path)

    def _batches(self, path: str) -> Iterator[Entry]:
        topic_partition = _partition_at(path)
        handle = self._files.open(path)
        try:
            for found in found_batches(handle):
                if found.header is None:
                    yield {"position": found.position, "problem": found.problem}
                    return
                yield _batch_entry(found, found.header)
                if self._records or found.header.is_control:
                    size_bytes = found.header.size_bytes
                    data = found.data or handle.read(found.position, size_bytes)
                    yield from self._records_of(topic_partition, data, found.header)
        finally:
            handle.close()

    def _records_of(
        self, topic_partition: TopicPartition, data: bytes | memoryview, header: BatchHeader
    ) -> Iterator[Entry]:
        try:
            columns = decode_batch(data, 0, header)
            if header.is_control:
                yield {
                    "offset": header.base_offset,
                    "marker": control_type(columns) or "unknown",
                    "producer_id": header.producer_id,
                }
                return
        except CorruptRecordError as error:
            yield {"offset": header.base_offset, "problem": str(error)}
            return
        topic, partition = topic_partition
        for record in RecordBatch(topic, partition, *columns):
            entry = record_as_json(record)
            if self._decode and topic_partition.topic in {CONSUMER_OFFSETS, TRANSACTION_STATE}:
                entry["decoded"] = decoded(topic_partition.topic, record.key, record.value)
            yield entry

    def _snapshot(self, path: str) -> Iterator[Entry]:
        try:
            state = decode_snapshot(self._files.read_whole(path), path, _partition_at(path))
        except CorruptRecordError as error:
            yield {"problem": str(error)}
            return
        for producer_id, entry in state.producers.items():
            last = entry.batches[-1] if entry.batches else None
            yield {
                "producer_id": producer_id,
                "epoch": entry.epoch,
                "last_sequence": last.last_sequence if last else -1,
                "last_offset": last.last_offset if last else -1,
                "timestamp": entry.last_timestamp,
                "coordinator_epoch": entry.coordinator_epoch,
                "transaction_first_offset": state.open_transactions.get(producer_id, -1),
            }

    def _text(self, path: str) -> Iterator[Entry]:
        """Checkpoints and the like are text."""
        size_bytes = self._files.size(path)
        if size_bytes > SMALL_FILE_BYTES:
            yield {"problem": f"{size_bytes} bytes: no small file of a log"}
            return
        try:
            text = self._files.read_whole(path).decode()
        except UnicodeDecodeError as error:
            yield {"problem": f"no text: {error}"}
            return
        for line in text.splitlines():
            yield {"line": line}


def _partition_at(path: str) -> TopicPartition:
    name = parent(path).rpartition("/")[2]
    return partition_of(name) or TopicPartition(name, 0)


def _batch_entry(found: FoundBatch, header: BatchHeader) -> Entry:
    """A batch under the names of Kafka's message format."""
    entry: Entry = {
        "position": found.position,
        "size_bytes": header.size_bytes,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset,
        "count": header.records_count,
        "codec": CODECS[header.compression],
        "crc": f"{header.crc:#010x}",
        "crc_ok": not found.problem,
        "max_timestamp": header.max_timestamp,
        "timestamp_type": "LogAppendTime" if header.is_log_append_time else "CreateTime",
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "last_sequence": header.last_sequence,
        "leader_epoch": header.leader_epoch,
        "transactional": header.is_transactional,
        "control": header.is_control,
    }
    if header.delete_horizon_ms is not None:
        entry["delete_horizon_ms"] = header.delete_horizon_ms
    else:
        entry["base_timestamp"] = header.base_timestamp
    if found.problem:
        entry["problem"] = found.problem
    return entry
