"""The folder of a log: its lock, its partitions, and what is written down between starts.

A start reads the checkpoints and whether the last stop was clean. The mark of a clean stop is taken
away, durably, before anything else is written: otherwise a later crash would find it and trust what
was never synced. At the end of a clean close it is written last.

Owns which partition folders there are. Does not know which topics there should be: the broker does,
and hands the configs of those that exist to `load`.

Threads: every method may block on the disk and may run in any thread, one at a time. Only the
partitions themselves may be appended to, read and flushed by their owner meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

from millstream.log.config import Durability, TopicConfig
from millstream.log.errors import StorageError
from millstream.log.ids import random_id
from millstream.log.record import TopicPartition

from .checkpointing import Checkpoints
from .checkpoints import (
    CLEAN_SHUTDOWN_CONTENT,
    decode_topic_id,
    encode_meta_properties,
)
from .files import Files, Lock, parent, replace_file
from .layout import (
    CLEAN_SHUTDOWN,
    DELETED,
    LOCK,
    LOG,
    META_PROPERTIES,
    PARTITION_METADATA,
    STRAY,
    partition_of,
)
from .loading import LoadRequest, create_partition, open_partition
from .partition import Partition

__all__ = ["Fate", "LogDir"]

logger = logging.getLogger(__name__)

NODE_ID = 0

Fate = Literal["open", "put aside", "remove", "remove if empty"]
"""What becomes of a partition's folder that is found when the log is opened."""


class LogDir:
    """An open log folder."""

    def __init__(
        self, files: Files, path: str, lock: Lock, *, durability: Durability, now_ms: int
    ) -> None:
        self.partitions: dict[TopicPartition, Partition] = {}
        self._files = files
        self._path = path
        self._lock = lock
        self._durability = durability
        self._now_ms = now_ms
        self._checkpoints: Checkpoints | None = None
        self._closed = False

    @classmethod
    def open(cls, files: Files, path: str, *, durability: Durability, now_ms: int) -> LogDir:
        """Lock the folder, which is made if it is missing. `load` opens the partitions.

        Raises:
            LogLockedError: another process has it.
            StorageError: it cannot be made or written.
        """
        path = path.rstrip("/") or "/"
        with disk_errors(path):
            _make_dirs(files, path)
            lock = files.lock(f"{path}/{LOCK}")
            try:
                if not files.exists(f"{path}/{META_PROPERTIES}"):
                    # The first start, or one that did not get far: the folder's own name, and those
                    # above it, may not be on the disk yet.
                    _fsync_names(files, path)
            except BaseException:
                lock.release()
                raise
        return cls(files, path, lock, durability=durability, now_ms=now_ms)

    def load(
        self,
        configs: Mapping[str, TopicConfig],
        fate: Callable[[TopicPartition, str], Fate] | None = None,
    ) -> None:
        """Open every partition of these topics, with recovery where the last stop was not clean.

        What a crash left half made or half removed goes away. `fate` is asked what to do with the
        folder of a partition of the topic with this id; without it those of a topic in `configs`
        are opened. One that is put aside is renamed to end in "-stray" and otherwise left alone.

        Raises:
            StorageError: the disk failed, or a checkpoint is damaged.
            CorruptRecordError: records that had been made durable have changed.
        """
        with disk_errors(self._path):
            clean = self._files.exists(self._file(CLEAN_SHUTDOWN))
            found = self._checkpoints = Checkpoints(self._files, self._path)
            if clean:
                self._files.remove(self._file(CLEAN_SHUTDOWN))
            # Also for the names above: a process that was killed may have left them un-synced, and
            # what is done now rests on them.
            self._files.fsync_dir(self._path)
            if not self._files.exists(self._file(META_PROPERTIES)):
                replace_file(self._files, self._file(META_PROPERTIES), _new_meta_properties())
            for topic_partition in self._sort_folders(
                fate or (lambda found, _: "open" if found.topic in configs else "put aside")
            ):
                self.partitions[topic_partition] = open_partition(
                    LoadRequest(
                        self._files,
                        self._path,
                        topic_partition,
                        configs[topic_partition.topic],
                        self._durability,
                        self._now_ms,
                        recovery_point=found.recovery_points.get(topic_partition, 0),
                        durable_offset=found.durable_offsets.get(topic_partition, 0),
                        log_start_offset=found.log_starts.get(topic_partition, 0),
                        clean_offset=found.clean_offsets.get(topic_partition, 0),
                        clean=clean and topic_partition in found.recovery_points,
                    )
                )
            outdated = found.clean_offsets.keys() - self.partitions.keys()
            recovery_points = {key: each.recovery_point for key, each in self.partitions.items()}
            if not clean or outdated or found.recovery_points != recovery_points:
                # Old entries must not wait for a new topic of the same name, nor promise indexes
                # that are still to be written.
                self.checkpoint()

    def create_partition(
        self,
        topic_partition: TopicPartition,
        config: TopicConfig,
        *,
        topic_id: str,
        now_ms: int,
    ) -> Partition:
        """Make a partition; it is there for good when this returns. Calls fsync.

        Raises:
            StorageError: the disk refused; the partition does not exist.
        """
        partition = self.make_partition(topic_partition, config, topic_id=topic_id, now_ms=now_ms)
        self.attach(partition)
        return partition

    def make_partition(
        self,
        topic_partition: TopicPartition,
        config: TopicConfig,
        *,
        topic_id: str,
        now_ms: int,
    ) -> Partition:
        """As `create_partition`, but it is not among `partitions` before it is attached."""
        with disk_errors(self._path):
            if self._files.exists(self._file(str(topic_partition))):
                self._remove_unfinished(self._file(str(topic_partition)))
            return create_partition(
                LoadRequest(
                    self._files, self._path, topic_partition, config, self._durability, now_ms
                ),
                topic_id=topic_id,
            )

    def attach(self, partition: Partition) -> None:
        """Take a partition that was made among `partitions`."""
        self.partitions[partition.topic_partition] = partition

    def detach(self, topic_partitions: Iterable[TopicPartition]) -> list[Partition]:
        """Take these out of `partitions` and close them; `remove` ends what this begins. A flush
        that runs goes on, and closes its files when it ends. Call where the partitions are owned.
        """
        detached = []
        for topic_partition in topic_partitions:
            partition = self.partitions.pop(topic_partition, None)
            if partition is not None:
                partition.close(clean=False)
                detached.append(partition)
        return detached

    def remove(self, detached: Sequence[Partition], topic_id: str) -> None:
        """Remove the folders of partitions that are closed and that nothing uses. Calls fsync.

        Raises:
            StorageError: the disk refused; what is left is for the next start's `fate`.
        """
        removed = []
        with disk_errors(self._path):
            for partition in detached:
                removed.append(f"{partition.folder}.{topic_id}{DELETED}")
                self._files.rename(partition.folder, removed[-1])
            self.checkpoint()  # which also makes the new names durable
            for folder in removed:
                self._remove_folder(folder)

    def checkpoint(self) -> None:
        """Write down recovery points, log start offsets and high watermarks, durably; then put
        the files of compactions in place and remove those of segments below the log start offsets.

        Raises:
            StorageError: the disk refused; the old checkpoints hold.
        """
        assert self._checkpoints is not None  # `load` comes first
        with disk_errors(self._path):
            self._checkpoints.write(dict(self.partitions))

    def close(self, *, clean: bool = True) -> None:
        """Close every partition and give the folder back.

        A clean close flushes, and if nothing failed since the start, leaves the mark that lets the
        next start trust what is there.

        Raises:
            StorageError: the disk failed; everything is closed, the next start recovers.
        """
        if self._closed:
            return
        self._closed = True
        try:
            failure = self._close_partitions(clean=clean)
            if failure is not None:
                raise failure
            if clean:
                self.checkpoint()
                with disk_errors(self._path):
                    replace_file(self._files, self._file(CLEAN_SHUTDOWN), CLEAN_SHUTDOWN_CONTENT)
        finally:
            self._lock.release()

    def _close_partitions(self, *, clean: bool) -> StorageError | None:
        failure = None
        for partition in self.partitions.values():
            try:
                partition.close(clean=clean)
            except StorageError as error:
                failure = failure or error
        return failure

    def _file(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _sort_folders(self, fate: Callable[[TopicPartition, str], Fate]) -> list[TopicPartition]:
        """The partitions to open; everything else that looks like one is put away."""
        found, changed = [], False
        for name in self._files.list_dir(self._path):
            path = self._file(name)
            if not self._files.is_dir(path):
                continue
            topic_partition = partition_of(name)
            if name.endswith(DELETED) and partition_of(name.rpartition(".")[0]) is not None:
                self._remove_folder(path)
            elif topic_partition is None:
                continue
            elif (topic_id := self._topic_id(path)) is None:
                self._remove_unfinished(path)
                changed = True
            elif (what := fate(topic_partition, topic_id)) == "open":
                found.append(topic_partition)
            else:
                changed = True
                if what == "put aside":
                    self._put_aside(path)
                elif what == "remove":
                    self._remove_folder(path)
                else:
                    self._remove_unfinished(path)
        if changed:
            self._files.fsync_dir(self._path)
        return found

    def _topic_id(self, folder: str) -> str | None:
        path = f"{folder}/{PARTITION_METADATA}"
        if not self._files.exists(path):
            return None
        return decode_topic_id(self._files.read_whole(path))

    def _remove_unfinished(self, folder: str) -> None:
        """Its creation was cut short, unless there are records in it."""
        for name in self._files.list_dir(folder):
            if name.endswith(LOG) and self._files.size(f"{folder}/{name}"):
                raise StorageError(
                    f"{folder} holds records, but its {PARTITION_METADATA} is missing, damaged or "
                    "of no topic of this log, or the topic has fewer partitions in topics.json. "
                    "Restore these files from a backup, or move the folder away."
                )
        self._remove_folder(folder)

    def _put_aside(self, folder: str) -> None:
        number = 0
        while self._files.exists(f"{folder}.{number}{STRAY}"):
            number += 1
        target = f"{folder}.{number}{STRAY}"
        self._files.rename(folder, target)
        logger.warning(
            "%s belongs to no topic of this log; it is now %s. Delete it if it is not needed.",
            folder,
            target,
        )

    def _remove_folder(self, folder: str) -> None:
        for name in self._files.list_dir(folder):
            self._files.remove(f"{folder}/{name}")
        self._files.remove_dir(folder)


@contextmanager
def disk_errors(path: str) -> Iterator[None]:
    """Turn what the system says into what the reader needs."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"The log in {path} could not be read or written: {error}. Check that the directory "
            "exists, that this user may write to it and that the disk has room; then open the log "
            "again."
        ) from error


def _make_dirs(files: Files, path: str) -> None:
    """Make a folder and those above it."""
    if not files.exists(path):
        _make_dirs(files, parent(path))
        files.make_dir(path)


def _fsync_names(files: Files, path: str) -> None:
    """Make the names on the way to a folder durable."""
    while (above := parent(path)) != path:
        try:
            files.fsync_dir(above)
        except PermissionError:
            return  # what this user may not open it has not made
        path = above


def _new_meta_properties() -> bytes:
    return encode_meta_properties(cluster_id=random_id(), node_id=NODE_ID, directory_id=random_id())
