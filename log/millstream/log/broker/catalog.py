"""Topics and their partitions on disk: opens a log's folder, makes and removes topics.

Changes are made one at a time and may run in a thread (they fsync); looking things up is for the
event loop and never waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from millstream.log.config import Durability
from millstream.log.errors import StorageError
from millstream.log.record import TopicPartition
from millstream.log.storage.files import Files, replace_file
from millstream.log.storage.log_dir import LogDir
from millstream.log.storage.partition import Partition

from .topics import TOPICS_FILE, Topic, TopicTable

__all__ = ["Catalog"]


class Catalog:
    """The topic table and the open partitions behind it."""

    def __init__(self, files: Files, folder: str, log_dir: LogDir, topics: TopicTable) -> None:
        self._files = files
        self._path = f"{folder}/{TOPICS_FILE}"
        self._log_dir = log_dir
        self.topics = topics

    @classmethod
    def open(cls, files: Files, folder: str, *, durability: Durability, now_ms: int) -> Catalog:
        """Lock and recover the folder, which is made if it is not there.

        Raises:
            LogLockedError: another process has it open.
            StorageError: a file is damaged in a way that recovery must not guess about, or the disk
                refuses. The lock is released.
        """
        log_dir = LogDir.open(files, folder, durability=durability, now_ms=now_ms)
        try:
            path = f"{folder}/{TOPICS_FILE}"
            data = files.read_whole(path) if files.exists(path) else None
            topics = TopicTable.decode(data, path) if data is not None else TopicTable()
            catalog = cls(files, folder, log_dir, topics)
            log_dir.load({topic.name: topic.config for topic in topics})
            for topic in topics:
                catalog._make_missing_partitions(topic, now_ms)
        except BaseException:
            log_dir.close(clean=False)
            raise
        return catalog

    def partition(self, topic_partition: TopicPartition) -> Partition:
        """Raises UnknownTopicError that says what exists."""
        partition = self._log_dir.partitions.get(topic_partition)
        if partition is None:
            raise self.topics.unknown_partition(topic_partition)
        return partition

    def partitions(self) -> Iterator[Partition]:
        """Every open partition."""
        return iter(list(self._log_dir.partitions.values()))

    def create(self, topic: Topic, now_ms: int) -> None:
        """Make a topic: first its entry in the table, then its folders.

        Raises:
            StorageError: the disk refused. The topic does not exist.
        """
        self.topics.put(topic)
        try:
            self._write_table()
            self._make_missing_partitions(topic, now_ms)
        except (OSError, StorageError) as error:
            self.topics.remove(topic.name)
            with suppress(OSError, StorageError):  # what is left goes when the log is opened
                self._write_table()
                self._log_dir.delete_topic(topic.name)
            raise StorageError(f"Topic {topic.name} could not be created: {error}") from error

    def delete(self, name: str) -> None:
        """Remove a topic: first its entry, then its folders. Its records are gone for good.

        Raises:
            StorageError: the disk refused. The topic is there as before, or it is gone and its
                folders go when the log is next opened.
        """
        topic = self.topics.get(name)
        self.topics.remove(name)
        try:
            self._write_table()
        except OSError as error:
            self.topics.put(topic)
            raise StorageError(f"Topic {name} could not be deleted: {error}") from error
        self._log_dir.delete_topic(name)

    def checkpoint(self) -> None:
        """Write down how far recovery need not look."""
        self._log_dir.checkpoint()

    def close(self, *, clean: bool) -> None:
        """Close all files; a clean close leaves the marker that makes the next start fast."""
        self._log_dir.close(clean=clean)

    def _make_missing_partitions(self, topic: Topic, now_ms: int) -> None:
        for topic_partition in topic.topic_partitions():
            if topic_partition not in self._log_dir.partitions:
                self._log_dir.create_partition(
                    topic_partition, topic.config, topic_id=topic.topic_id, now_ms=now_ms
                )

    def _write_table(self) -> None:
        replace_file(self._files, self._path, self.topics.encode())
