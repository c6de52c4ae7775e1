"""Committed offsets of all groups, and those that wait for the end of a transaction.

A function of the records of `__consumer_offsets` in order. While a log is open, records are applied
as they become durable; when it is opened, they are read from the start, whole columns at a time,
and only what survived is taken apart.

An offset committed in a transaction waits, invisible, under its producer's id. Its COMMIT marker
makes it count, unless a later record about the same partition already does; ABORT forgets it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from millstream.log.format.codec import BatchHeader, Columns
from millstream.log.format.control import control_type
from millstream.log.record import OffsetAndMetadata, TopicPartition

from .modern_records import group_of_key
from .offset_records import (
    GroupRecord,
    OffsetKey,
    OffsetRecord,
    decode_group_value,
    decode_key,
    decode_offset_value,
)

__all__ = ["OffsetLoader", "OffsetTable"]


class _Committed(NamedTuple):
    """A committed offset and where its record lies: of two, the later record counts."""

    value: OffsetAndMetadata
    log_offset: int
    committed_ms: int


class OffsetTable:
    """What every group committed."""

    def __init__(self) -> None:
        self._committed: dict[str, dict[TopicPartition, _Committed]] = {}
        self._pending: dict[int, dict[OffsetKey, _Committed]] = {}
        self._producers: dict[str, dict[TopicPartition, set[int]]] = {}  # of what is pending
        self._in_flight: dict[str, list[Collection[TopicPartition]]] = {}

    @property
    def pending(self) -> int:
        """Offsets that wait for the end of a transaction."""
        return sum(map(len, self._pending.values()))

    def rows(self) -> Iterator[tuple[OffsetKey, OffsetRecord]]:
        """Every committed offset, and when it was committed."""
        for group, offsets in self._committed.items():
            for topic_partition, found in offsets.items():
                row = OffsetRecord(found.value, found.committed_ms)
                yield OffsetKey(group, topic_partition), row

    def of_group(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """Everything the group committed."""
        return {each: found.value for each, found in self._committed.get(group, {}).items()}

    def get(self, group: str, topic_partition: TopicPartition) -> OffsetAndMetadata | None:
        """What the group committed for one partition."""
        found = self._committed.get(group, {}).get(topic_partition)
        return found.value if found is not None else None

    def is_pending(self, group: str, topic_partition: TopicPartition) -> bool:
        """Whether a transaction that has not ended holds an offset of it."""
        return topic_partition in self._producers.get(group, {})

    def times(self, group: str) -> dict[TopicPartition, int]:
        """When the group committed what counts (Unix milliseconds)."""
        return {each: found.committed_ms for each, found in self._committed.get(group, {}).items()}

    def groups(self) -> list[str]:
        """Groups that committed something."""
        return list(self._committed)

    def undecided_of(self, group: str) -> set[TopicPartition]:
        """Partitions of which the group wrote offsets that do not count yet."""
        return set(self._producers.get(group, ())).union(*self._in_flight.get(group, ()))

    def begin_commit(self, group: str, partitions: Collection[TopicPartition]) -> None:
        """These records are written, and not durable yet."""
        self._in_flight.setdefault(group, []).append(partitions)

    def end_commit(self, group: str, partitions: Collection[TopicPartition]) -> None:
        """They are durable."""
        of_group = self._in_flight[group]
        of_group.remove(partitions)
        if not of_group:
            del self._in_flight[group]

    def commit(
        self,
        group: str,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        log_offset: int,
        committed_ms: int,
    ) -> None:
        """These records are durable at `log_offset`."""
        for topic_partition, value in offsets.items():
            committed = _Committed(value, log_offset, committed_ms)
            self._put(OffsetKey(group, topic_partition), committed)

    def add_pending(
        self,
        producer_id: int,
        group: str,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        log_offset: int,
        committed_ms: int,
    ) -> None:
        """These records are part of the producer's open transaction."""
        pending = self._pending.setdefault(producer_id, {})
        for topic_partition, value in offsets.items():
            pending[OffsetKey(group, topic_partition)] = _Committed(value, log_offset, committed_ms)
            of_group = self._producers.setdefault(group, {})
            of_group.setdefault(topic_partition, set()).add(producer_id)

    def end_transaction(self, producer_id: int, *, commit: bool) -> None:
        """The producer's transaction has ended."""
        for key, committed in self._pending.pop(producer_id, {}).items():
            self._let_go(key, producer_id)
            if commit:
                self._put(key, committed)

    def remove(self, keys: Iterable[OffsetKey], log_offset: int) -> None:
        """Forget these: tombstones are durable at `log_offset`. What was committed before them is
        gone, also in a transaction that ends later; what was committed after them stays."""
        for key in keys:
            of_group = self._committed.get(key.group, {})
            known = of_group.get(key.topic_partition)
            if known is not None and known.log_offset < log_offset:
                del of_group[key.topic_partition]
                if not of_group:
                    del self._committed[key.group]
            for producer_id in list(
                self._producers.get(key.group, {}).get(key.topic_partition, ())
            ):
                if self._pending[producer_id][key].log_offset < log_offset:
                    del self._pending[producer_id][key]
                    self._let_go(key, producer_id)

    def topics(self) -> set[str]:
        """Of which offsets were written, whether they count already or not."""
        keys = (*(key for key, _ in self.rows()), *self._undecided())
        return {key.topic_partition.topic for key in keys}

    def of_topic(self, topic: str) -> set[OffsetKey]:
        """Who wrote offsets of this topic, whether they count already or not."""
        counting = (
            OffsetKey(group, topic_partition)
            for group, offsets in self._committed.items()
            for topic_partition in offsets
        )
        return {
            key for key in (*counting, *self._undecided()) if key.topic_partition.topic == topic
        }

    def _undecided(self) -> Iterator[OffsetKey]:
        for group in self._in_flight.keys() | self._producers.keys():
            yield from (OffsetKey(group, each) for each in self.undecided_of(group))

    def _let_go(self, key: OffsetKey, producer_id: int) -> None:
        """This transaction holds no offset of it any more."""
        of_group = self._producers[key.group]
        producers = of_group[key.topic_partition]
        producers.discard(producer_id)
        if not producers:
            del of_group[key.topic_partition]
        if not of_group:
            del self._producers[key.group]

    def _put(self, key: OffsetKey, committed: _Committed) -> None:
        of_group = self._committed.setdefault(key.group, {})
        known = of_group.get(key.topic_partition)
        if known is None or known.log_offset < committed.log_offset:
            of_group[key.topic_partition] = committed


class OffsetLoader:
    """Reads one partition of `__consumer_offsets`, by columns of raw bytes."""

    def __init__(self) -> None:
        self._newest: dict[bytes | None, tuple[bytes | None, int]] = {}
        self._pending: dict[int, dict[bytes | None, tuple[bytes | None, int]]] = {}
        self.modern: dict[str, dict[bytes, bytes]] = {}
        """The records of groups of KIP-848, by group."""

    def add(self, header: BatchHeader, columns: Columns) -> None:
        """The next batch."""
        if header.is_control:
            self._end(header.producer_id, commit=control_type(columns) == "commit")
            return
        rows = zip(columns.keys, zip(columns.values, columns.offsets, strict=True), strict=True)
        if header.is_transactional:
            self._pending.setdefault(header.producer_id, {}).update(rows)
        else:
            self._newest.update(rows)

    def _end(self, producer_id: int, *, commit: bool) -> None:
        pending = self._pending.pop(producer_id, {})
        if commit:
            for key, row in pending.items():
                known = self._newest.get(key)
                if known is None or known[1] < row[1]:
                    self._newest[key] = row

    def finish(self, table: OffsetTable) -> dict[str, GroupRecord]:
        """Put the committed offsets into `table`, and those that wait for the end of a transaction
        that goes on; returns the groups' own records.

        Raises:
            CorruptRecordError: a record is not what its key says.
        """
        groups: dict[str, GroupRecord] = {}
        for raw_key, (raw_value, log_offset) in self._newest.items():
            if raw_key is None or raw_value is None:
                continue
            key = decode_key(raw_key)
            if isinstance(key, OffsetKey):
                value = decode_offset_value(raw_value)
                offsets = {key.topic_partition: value.value}
                table.commit(key.group, offsets, log_offset, value.committed_ms)
            elif key is not None:
                groups[key] = decode_group_value(raw_value)
            elif (modern := group_of_key(raw_key)) is not None:
                self.modern.setdefault(modern, {})[raw_key] = raw_value
        for producer_id, pending in self._pending.items():
            for raw_key, (raw_value, log_offset) in pending.items():
                key = decode_key(raw_key or b"")
                assert isinstance(key, OffsetKey)  # nothing else is written in a transaction
                value = decode_offset_value(raw_value or b"")
                offsets = {key.topic_partition: value.value}
                table.add_pending(producer_id, key.group, offsets, log_offset, value.committed_ms)
        return groups
