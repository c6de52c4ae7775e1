"""A recovery that a crash cuts short: the next start finds nothing that it would trust wrongly."""

from __future__ import annotations

import pytest

from millstream.log.config import TopicConfig
from millstream.log.testing.sim_files import Contents, Crash, Entries, SimFiles
from shared.partitions import (
    FOLDER,
    PARTITION,
    check_indexes,
    end,
    flush,
    log_file,
    new_partition,
    open_log,
    read_all,
    send,
)

CONFIG = TopicConfig.parse({"index.interval.bytes": 100, "segment.bytes": 2000})


def with_aborted_transactions() -> SimFiles:
    """Four segments below the recovery point, each with an index of aborted transactions."""
    files = SimFiles()
    log_dir, partition = new_partition(files, config=CONFIG)
    for epoch in range(12):
        send(partition, 1, epoch, 0, b"." * 400)
        end(partition, 1, epoch, commit=False)
    flush(partition)
    partition.seal()
    flush(partition)
    log_dir.checkpoint()
    assert len(partition._segments) == 4
    return files


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize(
    ("contents", "entries"), [("dropped", "kept"), ("kept", "kept"), ("mixed", "mixed")]
)
def test_indexes_are_built_anew_as_a_whole(
    suffix: str, contents: Contents, entries: Entries
) -> None:
    """Below the recovery point the files that are there are trusted."""
    files = with_aborted_transactions()
    files.remove(log_file(0, suffix))
    files.fsync_dir(FOLDER)
    crash_at, crashed = 0, True
    while crashed:
        again = files.after_crash("kept", "kept")
        again.crash_at = crash_at
        try:
            open_log(again, config=CONFIG)
        except Crash:
            crash_at += 1
        else:
            crashed = False
        disk = again.after_crash(contents, entries, seed=crash_at)
        partition = open_log(disk, config=CONFIG).partitions[PARTITION]
        check_indexes(partition)
        assert read_all(partition) == []
    assert crash_at > 40


def test_the_indexes_of_the_newest_segment_are_written_before_they_are_promised() -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files, config=CONFIG)
    send(partition, 1, 0, 0, b"." * 400)
    end(partition, 1, 0, commit=False)
    log_dir.close()
    files.remove(log_file(0, ".timeindex"))
    files.fsync_dir(FOLDER)
    crash_at, crashed = 0, True
    while crashed:
        again = files.after_crash("kept", "kept")
        again.crash_at = crash_at
        try:
            open_log(again, config=CONFIG).close()
        except Crash:
            crash_at += 1
        else:
            crashed = False
        for seed in range(10):
            disk = again.after_crash("mixed", "kept", seed=seed)
            partition = open_log(disk, config=CONFIG).partitions[PARTITION]
            check_indexes(partition)
            assert read_all(partition) == []
    assert crash_at > 20
