"""What a start after an unclean stop finds, case by case. The sweep in tests/crash has the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from millstream.log.config import TopicConfig
from millstream.log.errors import CorruptRecordError, StorageError
from millstream.log.storage.log_dir import LogDir
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.storage.partition import Partition
from millstream.log.storage.producer_snapshot import encode_snapshot
from millstream.log.storage.producer_state import ProducerState
from millstream.log.storage.segment import Segment
from millstream.log.testing.sim_files import SimFiles, disk_error
from shared.partitions import (
    FOLDER,
    NOW_MS,
    PARTITION,
    ROOT,
    batch,
    check_indexes,
    end,
    flush,
    log_file,
    new_partition,
    open_log,
    read_all,
    send,
)

COUNT = 40


def filled(files: SimFiles) -> tuple[LogDir, Partition]:
    """Forty acknowledged batches in several segments; nothing is checkpointed."""
    log_dir, partition = new_partition(files)
    for i in range(COUNT):
        sent = batch([b"%d" % i], producer_id=1, epoch=0, sequence=i)
        partition.append(sent, NOW_MS)
        flush(partition)
    return log_dir, partition


def reopened(files: SimFiles) -> Partition:
    """Kill the process, start again."""
    return open_log(files.restart()).partitions[PARTITION]


def values(partition: Partition) -> list[bytes]:
    return [read.value for read in read_all(partition)]


def expected(count: int = COUNT) -> list[bytes]:
    return [b"%d" % i for i in range(count)]


def change(files: MemoryFiles, path: str, position: int, data: bytes) -> None:
    """Damage a file and make that durable, as a disk would that rots."""
    handle = files.open(path)
    handle.overwrite(position, data)
    handle.fsync()


@pytest.mark.parametrize(
    "tail",
    [
        b"x",
        b"\0" * 10,
        b"\0" * 500,
        b"\xff" * 100,
        batch([b"of another place"]),
        batch([b"torn"])[:-3],
        batch([b"torn"])[:61],
        b"\0\0\0\0\0\0\0\x28\x7f\xff\xff\xff" + bytes(100),
    ],
    ids=["byte", "zeros", "many zeros", "ones", "old batch", "cut", "header", "long length"],
)
def test_a_torn_tail_is_cut_off(tail: bytes, caplog: pytest.LogCaptureFixture) -> None:
    files = SimFiles()
    partition = filled(files)[1]
    active = partition._segments.active.path
    size_bytes = files.size(active)
    files.open(active).append(tail)
    with caplog.at_level(logging.WARNING):
        again = reopened(files)
    assert values(again) == expected()
    assert files.size(active) == size_bytes
    assert f"{active} from position {size_bytes} on" in caplog.text
    assert f"removed_bytes={len(tail)} removed_segments=0" in caplog.text
    check_indexes(again)


def test_a_good_start_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    files = SimFiles()
    filled(files)
    with caplog.at_level(logging.WARNING):
        assert values(reopened(files)) == expected()
    assert caplog.text == ""


def test_later_segments_go_with_a_torn_one() -> None:
    files = SimFiles()
    partition = filled(files)[1]
    second = list(partition._segments)[1]
    change(files, second.path, 100, b"\xff\xff")
    again = reopened(files)
    kept = values(again)
    assert second.base_offset < len(kept) < len(list(partition._segments)) * 10
    assert kept == expected(len(kept))
    assert [name for name in files.list_dir(FOLDER) if name.endswith(".log")] == [
        log_file(0).rpartition("/")[2],
        second.path.rpartition("/")[2],
    ]
    again.append(batch([b"next"], producer_id=1, epoch=0, sequence=len(kept)), NOW_MS)
    flush(again)
    assert values(again) == [*kept, b"next"]


def test_a_missing_segment_ends_the_log() -> None:
    files = SimFiles()
    partition = filled(files)[1]
    second, third = list(partition._segments)[1:3]
    files.remove(second.path)
    assert values(reopened(files)) == expected(second.base_offset)
    assert not files.exists(third.path)


def test_damage_below_the_recovery_point_is_an_error_and_nothing_is_touched() -> None:
    files = SimFiles()
    log_dir, partition = filled(files)
    log_dir.checkpoint()
    active = partition._segments.active
    change(files, active.path, 80, b"\xff\xff")
    before = files.after_crash("kept", "kept").contents()
    with pytest.raises(CorruptRecordError) as raised:
        reopened(files)
    message = str(raised.value)
    assert active.path in message
    assert f"offsets up to {COUNT} had been made durable" in message
    assert "recovery-point-offset-checkpoint" in message
    after = files.after_crash("kept", "kept").contents()
    assert [name for name in before if FOLDER in name[0]] == [
        name for name in after if FOLDER in name[0]
    ]
    # The way out that the message names: give up what is behind the damage.
    files.remove(f"{ROOT}/recovery-point-offset-checkpoint")
    files.remove(f"{ROOT}/replication-offset-checkpoint")
    assert values(reopened(files)) == expected(active.base_offset + 1)


def test_a_file_shorter_than_the_recovery_point_is_an_error() -> None:
    files = SimFiles()
    log_dir, partition = filled(files)
    log_dir.checkpoint()
    files.open(partition._segments.active.path).truncate(0)
    with pytest.raises(CorruptRecordError, match="the file ends; offsets up to 40"):
        reopened(files)


def test_a_folder_without_segments_is_an_error() -> None:
    files = SimFiles()
    log_dir, partition = filled(files)
    log_dir.checkpoint()
    for segment in partition._segments:
        files.remove(segment.path)
    with pytest.raises(CorruptRecordError, match="holds no segment"):
        reopened(files)


def read_operations(files: SimFiles) -> set[str]:
    return {each.path for each in files.operations if each.kind in {"read", "read_whole"}}


def test_segments_below_the_recovery_point_are_not_read() -> None:
    files = SimFiles()
    log_dir, partition = filled(files)
    partition.append(batch([b"40"]), NOW_MS)
    flush(partition)
    log_dir.checkpoint()
    partition.append(batch([b"41"]), NOW_MS)
    again = files.restart()
    open_log(again)
    active = partition._segments.active.path
    assert {path for path in read_operations(again) if path.endswith(".log")} == {active}


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
def test_a_missing_index_is_built_anew(suffix: str) -> None:
    files = SimFiles()
    log_dir, _ = filled(files)
    log_dir.close()
    files.remove(log_file(0, suffix))
    again = reopened(files)
    check_indexes(again)
    assert values(again) == expected()


@pytest.mark.parametrize("damage", [b"\0\0\0\x05\0\0\0\x07", b"\x7f\xff\xff\xff\x7f\xff\xff\xff"])
def test_an_active_index_that_does_not_fit_is_built_anew(damage: bytes) -> None:
    files = SimFiles()
    log_dir, partition = filled(files)
    log_dir.close()
    base_offset = partition._segments.active.base_offset
    index = files.open(log_file(base_offset, ".index"))
    assert index.size() >= 8
    index.overwrite(index.size() - 8, damage)
    again = reopened(files)
    check_indexes(again)
    assert values(again) == expected()


def test_a_snapshot_of_batches_that_were_lost_is_not_believed() -> None:
    """It may come to lie exactly where a later segment begins."""
    files = SimFiles()
    partition = filled(files)[1]
    lost = ProducerState(PARTITION)
    for offset in range(COUNT + 1, COUNT + 30):
        handle = files.open(log_file(offset, ".snapshot"), create=True)
        handle.append(encode_snapshot(lost))
        handle.fsync()
    files.fsync_dir(FOLDER)
    log_dir = open_log(files.restart())
    again = log_dir.partitions[PARTITION]
    first = batch([b"first"], producer_id=2, epoch=0, sequence=0)
    again.append(first, NOW_MS)
    for i in range(COUNT, COUNT + 29):
        again.append(batch([b"%d" % i], producer_id=1, epoch=0, sequence=i), NOW_MS)
    flush(again)
    log_dir.checkpoint()
    assert len(again._segments) > len(partition._segments) + 1
    third = open_log(files.after_crash("dropped", "dropped")).partitions[PARTITION]
    assert third.append(first, NOW_MS) == (COUNT, COUNT, -1, True)


def test_a_damaged_snapshot_is_replaced_by_reading_more() -> None:
    files = SimFiles()
    log_dir, partition = filled(files)
    wanted = encode_snapshot(partition._producers)
    log_dir.checkpoint()
    for segment in list(partition._segments)[1:]:
        change(files, log_file(segment.base_offset, ".snapshot"), 3, b"\xff\xff")
    assert encode_snapshot(reopened(files)._producers) == wanted


def test_the_only_snapshot_is_not_rewritten() -> None:
    """After older segments are gone it is the one place that knows older producers."""
    files = SimFiles()
    log_dir, partition = new_partition(files)
    partition.append(batch([b"old"], producer_id=5, epoch=3, sequence=0), NOW_MS)
    for i in range(COUNT):
        partition.append(batch([b"%d" % i], producer_id=1, epoch=0, sequence=i), NOW_MS)
    flush(partition)
    partition.delete_records(partition._segments.active.base_offset)
    log_dir.checkpoint()
    again = files.restart()
    start = len(again.operations)
    reopened_partition = open_log(again).partitions[PARTITION]
    assert not [
        each
        for each in again.operations[start:]
        if each.path.endswith(".snapshot") and each.is_write
    ]
    assert reopened_partition._producers.producers[5].epoch == 3


def test_a_lost_log_start_offset_is_found_from_the_first_segment() -> None:
    files = SimFiles()
    log_dir, partition = filled(files)
    first = list(partition._segments)[2].base_offset
    partition.delete_records(first)
    log_dir.checkpoint()
    files.remove(f"{ROOT}/log-start-offset-checkpoint")
    again = reopened(files)
    assert again.log_start_offset == first
    assert values(again) == expected()[first:]


def test_open_transactions_come_back() -> None:
    files = SimFiles()
    log_dir, partition = filled(files)
    for producer_id in (7, 6):
        sent = batch([b"open"], producer_id=producer_id, epoch=4, sequence=0, transactional=True)
        partition.append(sent, NOW_MS)
    flush(partition)
    log_dir.close()
    for again in (reopened(files), reopened(files)):  # from the snapshot, then by replay
        assert again.open_transactions() == {7: 4, 6: 4}
        assert (again.last_stable_offset, again.high_watermark) == (COUNT, COUNT + 2)


def test_nothing_recovered_is_readable_before_it_is_durable() -> None:
    files = SimFiles()
    partition = filled(files)[1]
    partition.append(batch([b"not synced"]), NOW_MS)
    again = files.restart()
    recovered = open_log(again).partitions[PARTITION]
    assert values(recovered) == [*expected(), b"not synced"]
    disk = again.after_crash("dropped", "dropped")
    assert values(open_log(disk).partitions[PARTITION]) == [*expected(), b"not synced"]


def test_durability_os_starts_at_the_log_start_offset_when_all_is_lost() -> None:
    """What was below it is deleted, what was above it was never promised."""
    files = SimFiles()
    log_dir, partition = new_partition(files, durability="os")
    for i in range(5):
        partition.append(batch([b"%d" % i]), NOW_MS)
    partition.delete_records(5)
    log_dir.checkpoint()
    disk = files.after_crash("dropped", "kept")
    again = open_log(disk, durability="os").partitions[PARTITION]
    assert (again.log_start_offset, again.log_end_offset) == (5, 5)
    assert again.append(batch([b"next"]), NOW_MS).base_offset == 5
    assert values(again) == [b"next"]


@pytest.mark.parametrize("kind", ["read", "fsync", "fsync_dir", "list_dir", "read_whole"])
def test_a_disk_that_fails_during_recovery_surfaces(kind: str) -> None:
    files = SimFiles()
    filled(files)
    again = files.restart()
    fail: Callable[..., OSError | None] = lambda operation: (  # noqa: E731
        OSError(5, "Input/output error") if operation.kind == kind else None
    )
    again.on_operation = fail
    with pytest.raises(StorageError, match="Input/output error"):
        open_log(again)
    again.on_operation = None
    assert values(open_log(again).partitions[PARTITION]) == expected()


def bytes_read_by_recovery(before: int, after: int) -> int:
    """So many batches in one segment below the recovery point, and so many behind it; then a
    kill."""
    files = SimFiles()
    config = TopicConfig.parse({"index.interval.bytes": 1000})
    log_dir, partition = new_partition(files, config=config)
    for i in range(before + after):
        partition.append(batch([b"%d" % i], producer_id=1, epoch=0, sequence=i), NOW_MS)
        if i == before - 1:
            partition.seal()
            flush(partition)
            log_dir.checkpoint()
    again = files.restart()
    count = 0
    real = Segment.read

    def read(segment: Segment, position: int, size_bytes: int) -> bytes:
        nonlocal count
        data = real(segment, position, size_bytes)
        count += len(data)
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segment, "read", read)
        found = open_log(again, config=config).partitions[PARTITION]
    check_indexes(found)
    assert values(found) == expected(before + after)
    return count


def test_recovery_reads_what_came_after_the_recovery_point_not_the_segment() -> None:
    few, many = bytes_read_by_recovery(100, 20), bytes_read_by_recovery(5000, 20)
    assert many < few + 10_000 < bytes_read_by_recovery(100, 2000)


@pytest.mark.parametrize("suffix", [".index", ".timeindex", ".snapshot"])
def test_without_what_the_checkpoint_wrote_the_whole_segment_is_read(suffix: str) -> None:
    files = SimFiles()
    log_dir, partition = filled(files)
    partition.seal()
    flush(partition)
    log_dir.checkpoint()
    base_offset = partition._segments.active.base_offset
    files.remove(log_file(COUNT if suffix == ".snapshot" else base_offset, suffix))
    again = reopened(files)
    check_indexes(again)
    assert values(again) == expected()
    assert again._producers.producers[1].batches[-1].last_sequence == COUNT - 1


@pytest.mark.parametrize("suffix", [".index", ".timeindex", ".txnindex"])
def test_a_true_entry_that_comes_twice_is_no_entry(suffix: str) -> None:
    """What lies behind the synced entries may be an old sector, and that holds entries too."""
    files = SimFiles()
    config = TopicConfig.parse({"index.interval.bytes": 100})
    log_dir, partition = new_partition(files, config=config)
    for epoch in range(3):
        send(partition, 1, epoch, 0, b"." * 100)
        end(partition, 1, epoch, commit=False)
    partition.seal()
    flush(partition)
    log_dir.checkpoint()
    path = log_file(0, suffix)
    entries = files.read_whole(path)
    size_bytes = {".index": 8, ".timeindex": 12, ".txnindex": 34}[suffix]
    assert entries
    files.open(path).append(entries[:size_bytes])
    again = open_log(files.restart(), config=config).partitions[PARTITION]
    check_indexes(again)


def test_snapshots_of_old_checkpoints_go() -> None:
    files = SimFiles()
    log_dir, partition = filled(files)
    for i in range(5):
        partition.append(batch([b"%d" % i]), NOW_MS)
        partition.seal()
        flush(partition)
        log_dir.checkpoint()
    between = {log_file(COUNT + i, ".snapshot") for i in range(1, 6)}
    begin = {log_file(each.base_offset, ".snapshot") for each in partition._segments}
    found = {f"{FOLDER}/{name}" for name in files.list_dir(FOLDER) if name.endswith(".snapshot")}
    assert found & (between - begin) <= {log_file(COUNT + 5, ".snapshot")}
    assert begin - {log_file(0, ".snapshot")} <= found


def test_bytes_that_a_failed_fsync_lost_are_written_again_whatever_the_durability() -> None:
    """The kernel shows them after a kill, and calls them clean."""
    files = SimFiles()
    _, partition = new_partition(files, durability="os")
    for i in range(COUNT):
        partition.append(batch([b"%d" % i]), NOW_MS)
    files.on_operation = lambda each: disk_error("EIO", each.path) if each.kind == "fsync" else None
    partition.seal()
    flush(partition)
    assert partition.failed
    again = files.restart()
    log_dir = open_log(again, durability="os")
    found = log_dir.partitions[PARTITION]
    found.append(batch([b"more"]), NOW_MS)
    found.seal()
    flush(found)
    log_dir.checkpoint()
    after = open_log(again.after_crash("dropped", "dropped"), durability="os")
    assert values(after.partitions[PARTITION]) == [*expected(), b"more"]
