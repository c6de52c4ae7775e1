"""Finding records by time, against a plain list: any order of times, any codec, any gap."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.log.config import TopicConfig
from millstream.log.errors import CorruptRecordError, StorageError
from millstream.log.format.codec import encode_batch
from millstream.log.storage.log_dir import LogDir
from millstream.log.storage.partition import Partition
from millstream.log.testing.sim_files import SimFiles, disk_error
from shared.partitions import NOW_MS, PARTITION, batch, flush, fresh, new_partition, open_log

CREATE = TopicConfig(
    segment_bytes=1024,
    index_interval_bytes=100,
    segment_ms=1 << 60,
    message_timestamp_after_max_ms=1 << 60,
)
APPEND = replace(CREATE, message_timestamp_type="LogAppendTime")
TIMES = st.integers(-1, 30)


class Known(NamedTuple):
    """A record the log holds."""

    offset: int
    time: int


class Batch(NamedTuple):
    """What is appended: times of its records, codec, and whose time counts."""

    times: list[int]
    compression: int
    append_time: bool
    now_ms: int


BATCHES = st.builds(
    Batch,
    st.lists(TIMES, min_size=1, max_size=6),
    st.sampled_from([0, 0, 4]),
    st.booleans(),
    st.integers(0, 30),
)


@dataclass
class Model:
    """A partition and the records in it, as a list."""

    files: SimFiles = field(default_factory=SimFiles)
    known: list[Known] = field(default_factory=list)
    log_dir: LogDir = field(init=False)
    partition: Partition = field(init=False)

    def __post_init__(self) -> None:
        self.log_dir, self.partition = new_partition(self.files, config=CREATE)

    def append(self, sent: Batch) -> None:
        self.partition.config = APPEND if sent.append_time else CREATE
        count = len(sent.times)
        data = encode_batch(
            None, [b"v"] * count, sent.times, None, 0, count, compression=sent.compression
        )
        base = self.partition.append(data, sent.now_ms).base_offset
        times = [sent.now_ms] * count if sent.append_time else sent.times
        self.known += [Known(base + i, time) for i, time in enumerate(times)]

    def marker(self, producer_id: int) -> None:
        """A transaction marker: an offset without a record, with the latest time of all."""
        self.partition.append_marker(
            producer_id, 0, commit=True, coordinator_epoch=0, now_ms=1_000_000
        )

    def gap(self) -> None:
        """Offsets that compaction took."""
        self.partition.log_end_offset += 3

    def reopen(self, *, clean: bool) -> None:
        flush(self.partition)
        if clean:
            self.log_dir.close()
        self.log_dir.checkpoint()
        self.files = self.files.restart()
        self.log_dir = open_log(self.files, config=CREATE)
        self.partition = self.log_dir.partitions[PARTITION]

    def readable(self) -> list[Known]:
        start, end = self.partition.log_start_offset, self.partition.high_watermark
        return [record for record in self.known if start <= record.offset < end]

    def check(self) -> None:
        readable = self.readable()
        for wanted in range(-2, 33):
            first = next((record.offset for record in readable if record.time >= wanted), None)
            assert self.partition.offset_for_time(wanted) == first, wanted
        latest = max((record.time for record in readable), default=-1)
        expected = None
        if latest >= 0:
            offset = next(record.offset for record in readable if record.time == latest)
            expected = (offset, latest)
        assert self.partition.max_timestamp() == expected


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_against_a_list(data: st.DataObject) -> None:
    model = Model()
    for step in range(data.draw(st.integers(1, 40))):
        kind = data.draw(
            st.sampled_from(["append"] * 6 + ["flush", "marker", "delete", "reopen", "check"])
        )
        if kind == "append":
            model.append(data.draw(BATCHES))
        elif kind == "flush":
            flush(model.partition)
        elif kind == "marker":
            model.marker(step)
        elif kind == "delete":
            model.partition.delete_records(
                data.draw(st.integers(0, model.partition.high_watermark))
            )
        elif kind == "reopen":
            model.reopen(clean=data.draw(st.booleans()))
        else:
            model.check()
    model.check()
    flush(model.partition)
    model.check()


@settings(max_examples=40, deadline=None)
@given(batches=st.lists(BATCHES, min_size=1, max_size=20), gaps=st.sets(st.integers(0, 19)))
def test_with_gaps_that_compaction_left(batches: list[Batch], gaps: set[int]) -> None:
    model = Model()
    for i, sent in enumerate(batches):
        model.append(sent)
        if i in gaps:
            model.gap()
    flush(model.partition)
    model.check()
    model.partition.delete_records(model.partition.high_watermark // 2)
    model.check()


def test_the_first_of_several_with_the_latest_time() -> None:
    model = Model()
    for times in ([1, 7, 7], [7, 3], [2]):
        model.append(Batch(times, 0, False, 0))
    flush(model.partition)
    assert model.partition.max_timestamp() == (1, 7)
    model.partition.delete_records(2)
    assert model.partition.max_timestamp() == (2, 7)
    model.partition.delete_records(5)
    assert model.partition.max_timestamp() == (5, 2)
    model.partition.delete_records(6)
    assert model.partition.max_timestamp() is None


def test_the_latest_may_not_be_flushed_yet() -> None:
    partition = fresh(CREATE)
    assert partition.max_timestamp() is None
    for i in range(100):
        partition.append(batch([b"v"], timestamp=i), NOW_MS)
        if i == 90:
            flush(partition)
    assert partition.max_timestamp() == (90, 90)
    flush(partition)
    assert partition.max_timestamp() == (99, 99)


def test_the_latest_that_can_be_read_is_in_an_earlier_segment_too() -> None:
    partition = fresh(CREATE)
    for time in (7, *[1] * 20, 7):
        partition.append(batch([b"v"], timestamp=time), NOW_MS)
    flush(partition)
    partition.append(batch([b"v"], timestamp=10), NOW_MS)
    last = partition._segments.active
    assert last is not partition._segments.first
    assert last.largest_timestamp == 10
    assert partition.max_timestamp() == (0, 7)


def test_times_that_ascend_cost_one_batch() -> None:
    """The latest record of a large log is found by the index, not by reading."""
    files = SimFiles()
    log_dir, partition = new_partition(files, config=CREATE)
    for i in range(300):
        partition.append(batch([b"v"], timestamp=i), NOW_MS)
    flush(partition)
    log_dir.close()
    partition = open_log(files.restart(), config=CREATE).partitions[PARTITION]
    files = partition._files
    before = len(files.operations)
    assert partition.max_timestamp() == (299, 299)
    read = [each for each in files.operations[before:] if each.path.endswith(".log")]
    assert len(read) < 6


def test_what_was_damaged_is_said() -> None:
    files = SimFiles()
    _, partition = new_partition(files, config=CREATE)
    partition.append(batch([b"value"], timestamp=5), NOW_MS)
    flush(partition)
    path = partition._segments.active.path
    handle = files.open(path)
    handle.overwrite(handle.size() - 3, b"xxx")
    with pytest.raises(CorruptRecordError, match="was damaged after it was written"):
        partition.max_timestamp()
    files.on_operation = lambda operation: (
        disk_error("EIO", operation.path) if operation.kind == "read" else None
    )
    with pytest.raises(StorageError, match="could not be read"):
        partition.max_timestamp()
    with pytest.raises(StorageError, match="could not be read"):
        partition.offset_for_time(1)
