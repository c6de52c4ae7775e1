"""The RocksDB backing. The only module that imports rocksdict.

One database per store and task, without a write-ahead log: the changelog is the log. Data and the
changelog offset it reaches lie in one column family and are written in one batch, so RocksDB, which
flushes column families one by one, can never persist one without the other. After a crash the
database is at an older commit, as a whole; a clean stop flushes first.

    _CHECKPOINT_PREFIX + partition (int32)   offset, written_ms (int64 each), topic id
    anything else                            a key of the store

The database is opened when it is first needed: a store whose directory does not exist yet costs
nothing until its first commit (10 ms for each of them at start-up otherwise)."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .removing import REMOVED, remove_folder
from .store import Checkpoint, StateStoreError

if TYPE_CHECKING:
    from rocksdict import Rdict

__all__ = ["RocksBacking"]

_CHECKPOINT_PREFIX: Final = b"\xff\xff\xff\xffmillstream.checkpoint\xff"
_PARTITION = struct.Struct(">i")
_CHECKPOINT = struct.Struct(">qq")
_CHECKPOINT_KEY_SIZE_BYTES: Final = len(_CHECKPOINT_PREFIX) + _PARTITION.size

_SCAN_CHUNK_MIN: Final = 8
_SCAN_CHUNK_MAX: Final = 4_096
"""Entries read under one iterator, few at first for those who want only the first. An iterator pins
files and keeps the database open; none is held while the caller works."""

_BLOCK_CACHE_SIZE_BYTES: Final = 50 << 20
"""Kafka Streams' default, here shared by all stores of the process."""
_MEMTABLE_SIZE_BYTES: Final = 16 << 20
_MEMTABLES_MAX: Final = 3

_shared_cache: list[Any] = []


class RocksBacking:
    """A RocksDB in the directory `path`, created with its parents at the first write."""

    blocking = True

    def __init__(self, path: str) -> None:
        self.path = path
        self._database: Rdict | None = None
        self._opening = threading.Lock()  # apply() opens in a thread while the owner may read
        if Path(path).is_dir():
            self._open()
        elif Path(path + REMOVED).is_dir():
            remove_folder(path)

    def get(self, key: bytes) -> bytes | None:
        database = self._database
        if database is None:
            return None
        value: bytes | None = database.get(key)
        return value

    def scan(self, first: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        start = first
        size = _SCAN_CHUNK_MIN
        while True:
            chunk = self._chunk(start, end, size)
            for item in chunk:
                if not _is_checkpoint(item[0]):
                    yield item
            if len(chunk) < size:
                return
            start = chunk[-1][0] + b"\0"
            size = min(size * 8, _SCAN_CHUNK_MAX)

    def write(
        self,
        keys: Sequence[bytes],
        values: Sequence[bytes | None],
        *,
        ranges: Sequence[tuple[bytes, bytes]] = (),
        checkpoints: Mapping[int, Checkpoint],
    ) -> None:
        from rocksdict import WriteBatch

        batch = WriteBatch(raw_mode=True)
        for first, end in ranges:
            batch.delete_range(first, end)
        put = batch.put
        for key, value in zip(keys, values, strict=True):
            if value is None:
                batch.delete(key)
            else:
                put(key, value)
        for partition, checkpoint in checkpoints.items():
            reserved = _checkpoint_key(partition)
            if reserved in keys:
                raise StateStoreError(
                    f"the key {reserved!r} is reserved by the state store in {self.path}"
                )
            put(reserved, _CHECKPOINT.pack(*checkpoint[:2]) + checkpoint.topic_id.encode())
        database = self._open()
        try:
            database.write(batch)
        except Exception as error:
            raise self._failed("written", error) from error

    def checkpoint(self, partition: int) -> Checkpoint | None:
        data = self.get(_checkpoint_key(partition))
        if data is None:
            return None
        offset, written_ms = _CHECKPOINT.unpack_from(data)
        return Checkpoint(offset, written_ms, data[_CHECKPOINT.size :].decode())

    def clear(self) -> None:
        self.close()
        remove_folder(self.path)

    def flush(self) -> None:
        if self._database is not None:
            try:
                self._database.flush()
            except Exception as error:
                raise self._failed("flushed", error) from error

    def close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _chunk(self, start: bytes, end: bytes | None, size: int) -> list[tuple[bytes, bytes]]:
        if self._database is None:
            return []
        chunk: list[tuple[bytes, bytes]] = []
        rows: Iterator[tuple[Any, Any]] = iter(self._database.items(from_key=start))
        for row in rows:
            if len(chunk) == size or (end is not None and row[0] >= end):
                break
            chunk.append(row)
        return chunk

    def _open(self) -> Rdict:
        with self._opening:
            if self._database is None:
                self._database = self._new_database()
            return self._database

    def _new_database(self) -> Rdict:
        from rocksdict import Rdict, WriteOptions

        try:
            Path(self.path).mkdir(parents=True, exist_ok=True)
            database = Rdict(self.path, _options())
        except Exception as error:
            raise self._failed("opened", error) from error
        without_wal: Any = WriteOptions()  # its stub calls the property below a method
        without_wal.disable_wal = True
        database.set_write_options(without_wal)
        return database

    def _failed(self, what: str, error: Exception) -> StateStoreError:
        return StateStoreError(
            f"the state store in {self.path} cannot be {what}: {error}. Check that the "
            "directory is writable, has space, and that no other process runs this app there "
            "(state_dir=...). Nothing is lost: with that directory moved away, the next start "
            "restores it from the changelog"
        )


def _checkpoint_key(partition: int) -> bytes:
    return _CHECKPOINT_PREFIX + _PARTITION.pack(partition)


def _is_checkpoint(key: bytes) -> bool:
    return len(key) == _CHECKPOINT_KEY_SIZE_BYTES and key.startswith(_CHECKPOINT_PREFIX)


def _options() -> Any:
    """Kafka Streams' RocksDB defaults: 4 KiB blocks, 16 MiB memtables x 3, universal compaction, no
    compression; and a bloom filter, since folds ask for keys that are not there."""
    from rocksdict import BlockBasedOptions, Cache, DBCompactionStyle, DBCompressionType, Options

    if not _shared_cache:
        _shared_cache.append(Cache(_BLOCK_CACHE_SIZE_BYTES))
    table = BlockBasedOptions()
    table.set_block_size(4096)
    table.set_block_cache(_shared_cache[0])
    table.set_bloom_filter(10, False)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    options.set_compression_type(DBCompressionType.none())
    options.set_compaction_style(DBCompactionStyle.universal())
    options.set_write_buffer_size(_MEMTABLE_SIZE_BYTES)
    options.set_max_write_buffer_number(_MEMTABLES_MAX)
    options.set_keep_log_file_num(1)
    options.set_stats_dump_period_sec(0)
    return options
