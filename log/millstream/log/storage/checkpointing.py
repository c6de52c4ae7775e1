"""Writing down where partitions stand; only then files go that nobody needs any more.

    log-start-offset-checkpoint          what was deleted
    recovery-point-offset-checkpoint     what recovery need not read
    replication-offset-checkpoint        what is durable
    cleaner-offset-checkpoint            what is compacted, once its files are in place

Runs in a thread, while the owner of the partitions goes on. A disk that is full has no room for
these files either: then the files of deleted segments go first. From the oldest segment on, and
each for good before the next, so that a crash leaves a log that begins later and has no gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from millstream.log.record import TopicPartition

from .checkpoints import decode_offsets, encode_offsets
from .disk_full import DiskFullError
from .files import Files, replace_file
from .layout import CLEANER_OFFSETS, LOG_START_OFFSETS, RECOVERY_POINTS, REPLICATION_OFFSETS
from .partition import Partition
from .segment import Segment

__all__ = ["Checkpoints"]

Dropped = deque[tuple[Partition, Segment]]


class Checkpoints:
    """The four files in a log's folder, as they are on the disk."""

    def __init__(self, files: Files, folder: str) -> None:
        self._files = files
        self._folder = folder
        self.log_starts: Mapping[TopicPartition, int] = self._read(LOG_START_OFFSETS)
        self.recovery_points: Mapping[TopicPartition, int] = self._read(RECOVERY_POINTS)
        self.durable_offsets: Mapping[TopicPartition, int] = self._read(REPLICATION_OFFSETS)
        self.clean_offsets: Mapping[TopicPartition, int] = self._read(CLEANER_OFFSETS)

    def write(self, partitions: Mapping[TopicPartition, Partition]) -> None:
        """Write down where these partitions stand, and let go of what they dropped.

        Raises:
            OSError: the disk refused; the old checkpoints hold.
        """
        # First the segments, then the offsets: an offset read later covers at least those.
        dropped: Dropped = deque(
            (partition, segment)
            for partition in partitions.values()
            for segment in partition.take_dropped()
        )
        with _handed_back(dropped):
            try:
                self._write_offsets(partitions)
            except DiskFullError:
                if not dropped:
                    raise
                self._make_room(dropped)
                self._write_offsets(partitions)
            self._settle(partitions)
            while dropped:
                dropped.popleft()[1].remove()
        for key, partition in partitions.items():
            for path in partition.take_old_snapshots(self.recovery_points[key]):
                self._files.remove(path)

    def _write_offsets(self, partitions: Mapping[TopicPartition, Partition]) -> None:
        recovery_points = {key: each.recovery_point for key, each in partitions.items()}
        log_starts = {key: each.log_start_offset for key, each in partitions.items()}
        durable_offsets = {key: each.durable_offset for key, each in partitions.items()}
        self._replace(LOG_START_OFFSETS, log_starts)
        self._replace(RECOVERY_POINTS, recovery_points)
        self._replace(REPLICATION_OFFSETS, durable_offsets)
        self.recovery_points = recovery_points
        for key, partition in partitions.items():
            partition.checkpointed_recovery_point = recovery_points[key]

    def _make_room(self, dropped: Dropped) -> None:
        while dropped:
            partition, segment = dropped[0]
            segment.remove()
            dropped.popleft()
            self._files.fsync_dir(partition.folder)

    def _settle(self, partitions: Mapping[TopicPartition, Partition]) -> None:
        """Put the files of compactions in place, then write down how far partitions are clean."""
        clean = {key: at for key, at in self.clean_offsets.items() if key in partitions}
        for key, partition in partitions.items():
            settling = partition.settling
            if settling is not None:
                settling.settle()
                if settling.clean_offset is not None:
                    clean[key] = settling.clean_offset
                partition.settled()
        if clean != self.clean_offsets:
            self._replace(CLEANER_OFFSETS, clean)
            self.clean_offsets = clean

    def _read(self, name: str) -> dict[TopicPartition, int]:
        path = f"{self._folder}/{name}"
        if not self._files.exists(path):
            return {}
        return decode_offsets(self._files.read_whole(path), path)

    def _replace(self, name: str, offsets: Mapping[TopicPartition, int]) -> None:
        replace_file(self._files, f"{self._folder}/{name}", encode_offsets(offsets))


@contextmanager
def _handed_back(dropped: Dropped) -> Iterator[None]:
    """What is left when the disk has failed is for the next checkpoint."""
    try:
        yield
    finally:
        for partition, segment in dropped:
            partition.drop_again(segment)
