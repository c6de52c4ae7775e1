"""A partition against a list: random appends, reads, flushes, rolls, deletions and restarts."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from millstream.log.errors import OffsetOutOfRangeError
from millstream.log.format.codec import parse_header
from millstream.log.testing.sim_files import SimFiles
from shared.partition_sweep import found
from shared.partition_workload import History, Producing
from shared.partitions import PARTITION, check_indexes, flush, new_partition, open_log

PRODUCERS = st.sampled_from([1, 2, 3])


class PartitionMachine(RuleBasedStateMachine):
    """Producer 1 is idempotent, 2 and 3 write in transactions; `History` is the list."""

    def __init__(self) -> None:
        super().__init__()
        self.files = SimFiles()
        self.log_dir, partition = new_partition(self.files)
        self.history = History(created=True)
        self.producing = Producing(self.history, partition)
        self.epochs = {1: 0, 2: 0, 3: 0}
        self.open: set[int] = set()

    @rule(producer=PRODUCERS, count=st.integers(1, 5))
    def send(self, producer: int, count: int) -> None:
        transactional = producer != 1
        self.producing.send(producer, self.epochs[producer], count, transactional=transactional)
        if transactional:
            self.open.add(producer)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), commit=st.booleans())
    def end(self, data: st.DataObject, commit: bool) -> None:
        producer = data.draw(st.sampled_from(sorted(self.open)))
        self.open.remove(producer)
        self.epochs[producer] += 1
        self.producing.end(producer, self.epochs[producer], commit=commit)

    @precondition(lambda self: self.history.sent)
    @rule()
    def retry(self) -> None:
        base_offset, data = self.history.sent[-1]
        self.producing.again(data, base_offset)

    @rule()
    def flush(self) -> None:
        self.producing.flush()

    @rule(offset=st.integers(0, 300), size_bytes=st.integers(1, 2_000), committed=st.booleans())
    def read_somewhere(self, offset: int, size_bytes: int, committed: bool) -> None:
        partition = self.producing.partition
        isolation = "read_committed" if committed else "read_uncommitted"
        limit = partition.last_stable_offset if committed else partition.high_watermark
        if not partition.log_start_offset <= offset <= partition.log_end_offset:
            try:
                partition.read(offset, size_bytes_max=size_bytes, isolation=isolation)
            except OffsetOutOfRangeError:
                return
            raise AssertionError("an offset out of range was read")
        data = partition.read(offset, size_bytes_max=size_bytes, isolation=isolation).data
        assert bool(data) == (offset < limit)
        if data:
            header = parse_header(data)
            assert header.base_offset <= offset <= header.last_offset
            assert len(data) <= max(size_bytes, header.size_bytes)

    @rule(share=st.floats(0, 1))
    def delete_records(self, share: float) -> None:
        partition = self.producing.partition
        before = round(partition.high_watermark * share)
        partition.delete_records(before)
        self.history.log_start_tried = max(self.history.log_start_tried, before)

    @rule()
    def checkpoint(self) -> None:
        self.log_dir.checkpoint()
        self.history.log_start_promised = self.history.log_start_tried

    @rule(timestamp=st.integers(-5, 120))
    def find_time(self, timestamp: int) -> None:
        partition = self.producing.partition
        wanted = 1_700_000_000_000 + timestamp
        first = next(
            (
                each.base_offset + i
                for each in self.history.tried
                for i in range(len(each.values))
                if each.commit is None
                and partition.log_start_offset <= each.base_offset + i < partition.high_watermark
                and 1_700_000_000_000 + (each.base_offset * 37) % 100 + i >= wanted
            ),
            None,
        )
        assert partition.offset_for_time(wanted) == first

    @rule(how=st.sampled_from(["clean", "killed", "power loss"]), seed=st.integers(0, 99))
    def restart(self, how: str, seed: int) -> None:
        if how == "clean":
            before = found(self.producing.partition)
            self.log_dir.close()
            self.history.log_start_promised = self.history.log_start_tried
            self.files = self.files.restart()
        elif how == "killed":
            self.files = self.files.restart()
        else:
            self.producing.flush()  # else producers would have to learn what was lost
            self.files = self.files.after_crash("mixed", "mixed", seed=seed)
        self.log_dir = open_log(self.files)
        partition = self.log_dir.partitions[PARTITION]
        self.producing.partition = partition
        assert partition.high_watermark == partition.log_end_offset == self.history.next_offset
        assert (
            self.history.log_start_promised
            <= partition.log_start_offset
            <= self.history.log_start_tried
        )
        self.history.log_start_tried = partition.log_start_offset
        if how == "clean":
            assert before.log_end_offset == partition.log_end_offset

    @invariant()
    def offsets_are_in_order(self) -> None:
        partition = self.producing.partition
        assert (
            partition.log_start_offset
            <= partition.last_stable_offset
            <= partition.high_watermark
            <= partition.log_end_offset
        )

    def teardown(self) -> None:
        flush(self.producing.partition)
        self.producing.check_reads()
        check_indexes(self.producing.partition)


TestPartition = PartitionMachine.TestCase
TestPartition.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
