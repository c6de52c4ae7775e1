"""Reads partitions for a consumer: fetches bytes, decodes them into columns, keeps the positions.

Two positions per partition. `next` is where the next fetch begins; `consumed` is what the consumer
shows and commits: it moves when records are returned, not when they are fetched.

Under read_committed a fetch answers, beside the batches, which transactions among them were
aborted: pairs of producer id and first offset. Batches of such a producer are dropped from that
offset until its ABORT marker (KIP-98). Control batches are never returned, but their offsets are
used up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterable

from millstream.log.broker.partitions import Fetched, FetchRequest, Partitions
from millstream.log.errors import CorruptRecordError, LogError, OffsetOutOfRangeError
from millstream.log.format.codec import (
    BatchHeader,
    Columns,
    check_batch,
    decode_batch,
    parse_header,
)
from millstream.log.format.control import control_type
from millstream.log.interface import Isolation
from millstream.log.record import Record, RecordBatch, TopicPartition
from millstream.log.settings import INT32_MAX
from millstream.log.storage.partition import ReadResult

from .settings import ConsumerConfig

__all__ = ["Fetcher"]


OutOfRange = dict[TopicPartition, OffsetOutOfRangeError]


class _AbortedTransactions:
    """Which batches of one fetch belong to aborted transactions."""

    def __init__(self, aborted: tuple[tuple[int, int], ...]) -> None:
        self._to_come = sorted(aborted, key=lambda each: each[1], reverse=True)
        self._open: set[int] = set()

    def contains(self, header: BatchHeader) -> bool:
        """Whether this batch was aborted; called with every data batch in order."""
        while self._to_come and self._to_come[-1][1] <= header.last_offset:
            self._open.add(self._to_come.pop()[0])
        return header.is_transactional and header.producer_id in self._open

    def marker(self, header: BatchHeader, columns: Columns) -> None:
        """A control batch: an ABORT ends what was aborted."""
        self.contains(header)
        if control_type(columns) == "abort":
            self._open.discard(header.producer_id)


class _Position:
    """One assigned partition. Offsets are None until they are known (committed, or reset).

    `taken` records of the first batch in `fetched` were returned already.
    """

    __slots__ = ("consumed", "fetched", "next", "paused", "taken")

    def __init__(self) -> None:
        self.next: int | None = None
        self.consumed: int | None = None
        self.paused = False
        self.fetched: deque[RecordBatch] = deque()
        self.taken = 0

    def drop_fetched(self) -> None:
        """Forget what was fetched and not returned."""
        self.fetched.clear()
        self.taken = 0

    def take(self, count_max: int) -> RecordBatch:
        """Up to `count_max` records of the first fetched batch; the position moves past them."""
        batch, start = self.fetched[0], self.taken
        stop = min(len(batch), start + count_max)
        if stop == len(batch):
            self.fetched.popleft()
            self.taken = 0
        else:
            self.taken = stop
        self.consumed = batch.offsets[stop - 1] + 1 if self.fetched else self.next
        return batch if stop - start == len(batch) else batch.slice(start, stop)


class Fetcher:
    """Positions and fetched batches of one consumer."""

    def __init__(
        self, partitions: Partitions, isolation: Isolation, config: ConsumerConfig
    ) -> None:
        self._partitions = partitions
        self._isolation = isolation
        self._config = config
        self._positions: dict[TopicPartition, _Position] = {}
        self.records_returned = 0
        self.bytes_fetched = 0

    # Assignment and positions

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Exactly these from now on; positions of those that stay are kept."""
        old = self._positions
        self._positions = {each: old.get(each) or _Position() for each in sorted(set(partitions))}

    def assignment(self) -> set[TopicPartition]:
        """The assigned partitions."""
        return set(self._positions)

    def without_position(self) -> list[TopicPartition]:
        """Partitions whose first offset is still to be found."""
        return [each for each, state in self._positions.items() if state.next is None]

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on at `offset`; what was fetched is dropped."""
        state = self._positions[partition]
        state.next = state.consumed = offset
        state.drop_fetched()

    def positions(self) -> dict[TopicPartition, int]:
        """The next offset to return, of every partition that has one."""
        return {
            each: state.consumed
            for each, state in self._positions.items()
            if state.consumed is not None
        }

    def pause(self, partitions: Collection[TopicPartition], *, paused: bool) -> None:
        """Hold back, or let go again, what these partitions have."""
        for partition in partitions:
            self._positions[partition].paused = paused

    # Reading

    @property
    def has_fetched(self) -> bool:
        """Whether there is something to return without reading."""
        return any(state.fetched and not state.paused for state in self._positions.values())

    @property
    def can_fetch(self) -> bool:
        """Whether there is a partition to read."""
        return any(
            state.next is not None and not state.paused for state in self._positions.values()
        )

    def fetch_now(self) -> OutOfRange:
        """Read the partitions that have nothing fetched, one after the other.

        Each is decoded before the next is read, so that memory just used is used again.

        Returns:
            The partitions whose position does not exist; what then is the consumer's decision.

        Raises:
            CorruptRecordError, UnknownTopicError: the position stays.
        """
        out_of_range: OutOfRange = {}
        room = self._config.fetch_max_bytes
        for request in self._requests(room):
            before = self.bytes_fetched
            fetched = self._partitions.read(request, self._isolation)
            self._answer(request, fetched, out_of_range)
            if self.bytes_fetched > before:
                room -= self.bytes_fetched - before
                self._to_the_back(request.topic_partition)
            if room <= 0:
                break  # those that were not asked come first the next time
        return out_of_range

    async def fetch(self, wait_ms_max: int) -> OutOfRange:
        """As `fetch_now`, but wait until there are `fetch.min.bytes` to read."""
        out_of_range: OutOfRange = {}
        requests = self._requests(self._config.fetch_max_bytes // max(1, len(self._positions)))
        answers = await self._partitions.fetch(
            requests,
            isolation=self._isolation,
            wait_ms_max=wait_ms_max,
            size_bytes_min=self._config.fetch_min_bytes,
        )
        for request in requests:
            self._answer(request, answers[request.topic_partition], out_of_range)
        return out_of_range

    def _answer(self, request: FetchRequest, fetched: Fetched, out_of_range: OutOfRange) -> None:
        state = self._positions.get(request.topic_partition)
        if state is None or state.next != request.offset:
            return  # revoked or sought elsewhere while the fetch waited
        if isinstance(fetched, OffsetOutOfRangeError):
            out_of_range[request.topic_partition] = fetched
        elif isinstance(fetched, LogError):
            raise fetched
        elif fetched.data:
            self._take(request.topic_partition, state, fetched)

    def _requests(self, size_bytes_max: int) -> list[FetchRequest]:
        """For all partitions: one that is idle must not take the room of one that has records."""
        size_bytes_max = min(self._config.max_partition_fetch_bytes, size_bytes_max)
        return [
            FetchRequest(partition, state.next, size_bytes_max)
            for partition, state in self._positions.items()
            if state.next is not None and not state.paused and not state.fetched
        ]

    def _take(self, partition: TopicPartition, state: _Position, fetched: ReadResult) -> None:
        data, offset = fetched.data, state.next or 0
        self.bytes_fetched += len(data)
        aborted = _AbortedTransactions(fetched.aborted)
        position = 0
        while position < len(data):
            try:
                header = parse_header(data, position)
                if self._config.check_crcs:
                    check_batch(data, position, header)
                if header.is_control:
                    aborted.marker(header, decode_batch(data, position, header))
                elif not aborted.contains(header):
                    columns = decode_batch(data, position, header)
                    batch = RecordBatch(partition.topic, partition.partition, *columns)
                    self._keep(state, batch, offset)
            except CorruptRecordError as error:
                if state.fetched:
                    break  # first return what is sound; the next fetch begins here
                raise CorruptRecordError(
                    f"Partition {partition}, at offset {state.next}: {error} What is before it was "
                    "returned; seek behind it to go on."
                ) from error
            position += header.size_bytes
            state.next = header.last_offset + 1
        if not state.fetched:
            state.consumed = state.next  # nothing to show: markers and aborted records are passed

    @staticmethod
    def _keep(state: _Position, batch: RecordBatch, offset: int) -> None:
        """Batches come whole; the first may begin before the offset that was asked for."""
        if batch.offsets and batch.offsets[0] < offset:
            batch = batch.slice(bisect_left(batch.offsets, offset), len(batch))
        if len(batch):
            state.fetched.append(batch)

    # Returning

    def take_batches(self) -> list[RecordBatch]:
        """Everything fetched and not paused. The positions move."""
        taken: list[RecordBatch] = []
        for state in self._positions.values():
            while state.fetched and not state.paused:
                taken.append(state.take(INT32_MAX))
        self.records_returned += sum(map(len, taken))
        return taken

    def take_records(self, count_max: int) -> list[Record]:
        """Up to `count_max` records, partition by partition. The positions move."""
        taken: list[Record] = []
        for partition, state in self._positions.items():
            while state.fetched and not state.paused:
                taken += state.take(count_max - len(taken))
                if len(taken) >= count_max:
                    self._to_the_back(partition)
                    self.records_returned += len(taken)
                    return taken
        self.records_returned += len(taken)
        return taken

    def take_record(self) -> Record | None:
        """One record, if there is one. The position moves past it."""
        for state in self._positions.values():
            if state.fetched and not state.paused:
                batch, row = state.fetched[0], state.taken
                state.taken += 1
                if state.taken == len(batch):
                    state.fetched.popleft()
                    state.taken = 0
                state.consumed = batch.offsets[row] + 1 if state.fetched else state.next
                self.records_returned += 1
                return batch.record(row)
        return None

    def _to_the_back(self, partition: TopicPartition) -> None:
        """The next poll begins with another partition, so that none starves."""
        self._positions[partition] = self._positions.pop(partition)
