"""Topics and their partitions on disk: opens a log's folder; makes, alters and removes topics.

One rename of the topic table decides each change; what a crash leaves before or after it is put
right when the log is next opened:

    create      entry, then folders           missing folders are made
    alter       added folders, then entry     folders beyond the entry's count are empty, and go
    delete      entry, then folders           the entry moved to `deleted`: its folders go

Changes are made one at a time and may run in a thread (they fsync); looking things up is for the
event loop and never waits. What is changed is seen when the change is done, never half of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from millstream.log.config import Durability
from millstream.log.errors import StorageError
from millstream.log.record import TopicPartition
from millstream.log.storage.files import Files, replace_file
from millstream.log.storage.layout import TOPICS_FILE
from millstream.log.storage.log_dir import Fate, LogDir, disk_errors
from millstream.log.storage.partition import Partition

from .topics import Topic, TopicTable

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
            with disk_errors(folder):
                data = files.read_whole(path) if files.exists(path) else None
            topics = TopicTable.decode(data, path) if data is not None else TopicTable()
            catalog = cls(files, folder, log_dir, topics)
            log_dir.load({topic.name: topic.config for topic in topics}, catalog._fate)
            topics.deleted_ids.clear()  # on disk with the next change
            for topic in topics:
                for partition in catalog._make_missing(topic, now_ms):
                    log_dir.attach(partition)
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
        """Make a topic.

        Raises:
            StorageError: the disk refused. The topic does not exist.
        """
        topics = self.topics.with_topic(topic)
        try:
            self._write_table(topics)
            made = self._make_missing(topic, now_ms)
        except (OSError, StorageError) as error:
            with suppress(OSError):
                self._write_table(topics.without(topic.name))
            raise _refusal(topic.name, "created", error) from error
        self._attach(made, topics)

    def alter(self, topic: Topic, now_ms: int) -> None:
        """Replace the entry of a topic that is there, and make the partitions it has more.

        Raises:
            StorageError: the disk refused. The topic is as before.
        """
        topics = self.topics.with_topic(topic)
        made: list[Partition] = []
        try:
            made = self._make_missing(topic, now_ms)
            self._write_table(topics)
        except (OSError, StorageError) as error:
            for partition in made:
                partition.close(clean=False)
            with suppress(OSError, StorageError):  # what is left goes when the log is opened
                self._write_table(self.topics)
                self._log_dir.remove(made, topic.topic_id)
            raise _refusal(topic.name, "altered", error) from error
        self._attach(made, topics)

    def forget(self, name: str) -> None:
        """The first half of a deletion: from now on the topic does not exist.

        Raises:
            StorageError: the disk refused. The topic is there as before.
        """
        topics = self.topics.without(name)
        try:
            self._write_table(topics)
        except OSError as error:
            with suppress(OSError):
                self._write_table(self.topics)
            raise _refusal(name, "deleted", error) from error
        self.topics = topics

    def detach(self, topic: Topic) -> list[Partition]:
        """The second: its partitions are closed. On the event loop, which owns them."""
        return self._log_dir.detach(topic.topic_partitions())

    def remove(self, topic: Topic, detached: list[Partition]) -> None:
        """The last: its folders go. Nothing may use their files any more.

        Raises:
            StorageError: the disk refused; the rest goes when the log is next opened.
        """
        self._log_dir.remove(detached, topic.topic_id)
        self.topics.deleted_ids.discard(topic.topic_id)

    def checkpoint(self) -> None:
        """Write down how far recovery need not look."""
        self._log_dir.checkpoint()

    def close(self, *, clean: bool) -> None:
        """Close all files; a clean close leaves the marker that makes the next start fast."""
        self._log_dir.close(clean=clean)

    def _fate(self, topic_partition: TopicPartition, topic_id: str) -> Fate:
        """What becomes of a folder that was found."""
        if topic_id in self.topics.deleted_ids:
            return "remove"
        if topic_partition.topic not in self.topics:
            return "put aside"
        topic = self.topics.get(topic_partition.topic)
        if topic.topic_id != topic_id:
            return "put aside"
        return "open" if topic_partition.partition < topic.partitions else "remove if empty"

    def _make_missing(self, topic: Topic, now_ms: int) -> list[Partition]:
        """Make the partitions that have no folder; all of them, or the disk raises."""
        made: list[Partition] = []
        try:
            for each in topic.topic_partitions():
                if each not in self._log_dir.partitions:
                    partition = self._log_dir.make_partition(
                        each, topic.config, topic_id=topic.topic_id, now_ms=now_ms
                    )
                    made.append(partition)
        except BaseException:
            for partition in made:
                partition.close(clean=False)
            with suppress(OSError, StorageError):  # what is left goes when the log is opened
                self._log_dir.remove(made, topic.topic_id)
            raise
        return made

    def _attach(self, made: list[Partition], topics: TopicTable) -> None:
        for partition in made:
            self._log_dir.attach(partition)
        self.topics = topics

    def _write_table(self, topics: TopicTable) -> None:
        replace_file(self._files, self._path, topics.encode())


def _refusal(name: str, what: str, error: Exception) -> StorageError:
    return StorageError(
        f"Topic {name} could not be {what}: {error}. Nothing was changed: mend the disk, or make "
        "room on it, and try again."
    )
