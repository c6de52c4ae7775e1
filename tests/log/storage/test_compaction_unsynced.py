"""With durability os compaction goes by nothing that a power loss may undo."""

from __future__ import annotations

from millstream.log.testing.sim_files import SimFiles
from shared.compacting import COMPACTED, Keyed, compact, keyed, read_from
from shared.partitions import NOW_MS, PARTITION, end, flush, new_partition, open_log


def test_a_commit_that_may_be_lost_replaces_nothing() -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files, config=COMPACTED, durability="os")
    old, new = Keyed(b"k", b"old"), Keyed(b"k", b"new")
    partition.append(keyed([old]), NOW_MS)
    sent = keyed([new], producer_id=1, epoch=0, sequence=0, transactional=True)
    partition.append(sent, NOW_MS)
    partition.append(keyed([Keyed(b"last", b"")]), NOW_MS)
    partition._close_active()
    flush(partition)
    log_dir.checkpoint()
    end(partition, 1, 0, commit=True)
    compact(partition, NOW_MS)
    log_dir.checkpoint()
    disk = files.after_crash("dropped", "dropped")
    again = open_log(disk, config=COMPACTED, durability="os").partitions[PARTITION]
    end(again, 1, 0, commit=False)
    assert read_from(again, 0, "read_committed")[0] == old

    partition.seal()
    flush(partition)
    log_dir.checkpoint()
    assert compact(partition, NOW_MS) is not None
    assert old not in read_from(partition, 0, "read_committed").values()
