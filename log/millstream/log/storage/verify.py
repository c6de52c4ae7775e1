"""Is a closed log what was written? `verify_log` reads every byte of it and changes nothing.

    findings            what a look finds
    verify              the folder of the log: topics, checkpoints, what lies about
        verify_partition    one partition: names, batches, offsets
            verify_batches      bytes to batches, checksums
            verify_indexes      index entries against the batches
            verify_producers    sequences, transactions, snapshots

What cannot be seen, because nothing on disk repeats it and Kafka's formats have no checksum there:
a log start offset that moved within a segment, the base offset of a batch that moved into a gap
which compaction left, a setting of a topic that is another valid one. What makes no difference:
an offset index that lost whole entries, and what only names the log (ids in meta.properties).
"""

from __future__ import annotations

from collections.abc import Iterator

from millstream.log.errors import MillstreamError
from millstream.log.ids import is_id
from millstream.log.record import TopicPartition

from .checkpoints import CLEAN_SHUTDOWN_CONTENT, decode_offsets, decode_topic_id, encode_offsets
from .files import Files
from .findings import Finding, error, notice
from .layout import (
    CLEAN_SHUTDOWN,
    CLEANER_OFFSETS,
    DELETED,
    LOCK,
    LOG,
    LOG_START_OFFSETS,
    META_PROPERTIES,
    PARTITION_METADATA,
    PRODUCER_ID_FILE,
    RECOVERY_POINTS,
    REPLICATION_OFFSETS,
    STRAY,
    TOPICS_FILE,
    partition_of,
)
from .verify_batches import OnBytes, ignore_bytes
from .verify_partition import NEXT_OPENING, PartitionCheck, PartitionFacts

__all__ = ["Finding", "log_size_bytes", "verify_log"]

CHECKPOINTS = (RECOVERY_POINTS, LOG_START_OFFSETS, REPLICATION_OFFSETS, CLEANER_OFFSETS)
SECURITY_FILE = "security.json"
RESTORE_FILE = "Restore it from a backup"
NAMES = {
    *(LOCK, META_PROPERTIES, CLEAN_SHUTDOWN, TOPICS_FILE, PRODUCER_ID_FILE, SECURITY_FILE),
    *CHECKPOINTS,
}
NONE = -1


def verify_log(
    files: Files, folder: str, *, records: bool = False, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Finding]:
    """Everything that is wrong with the log in `folder`, which nobody has open.

    Reads through once, in pieces; memory does not depend on the size of the log. Writes nothing and
    takes no lock: that is the caller's.

    Args:
        records: also decode every record; checksums alone say that bytes did not change.
        on_bytes: told of every batch read.

    Raises:
        OSError: the disk could not be read.
    """
    return _LogCheck(files, folder, on_bytes, records=records).run()


def log_size_bytes(files: Files, folder: str) -> int:
    """Bytes of all .log files in the partitions' folders: what `verify_log` has to read."""
    total = 0
    for name in files.list_dir(folder):
        path = f"{folder}/{name}"
        if partition_of(name) is not None and files.is_dir(path):
            names = (each for each in files.list_dir(path) if each.endswith(LOG))
            total += sum(files.size(f"{path}/{each}") for each in names)
    return total


class _LogCheck:
    """One look at one log."""

    def __init__(self, files: Files, folder: str, on_bytes: OnBytes, *, records: bool) -> None:
        self._files = files
        self._folder = folder
        self._on_bytes = on_bytes
        self._records = records
        self._clean = files.exists(f"{folder}/{CLEAN_SHUTDOWN}")
        self._offsets: dict[str, dict[TopicPartition, int]] = {}
        self._knows_topics = True
        self._partitions: dict[TopicPartition, str] = {}
        """Those there should be, and the id of their topic."""
        self._compacted: set[str] = set()
        self._deleted_ids: set[str] = set()
        self._producer_id_max = NONE

    def run(self) -> Iterator[Finding]:
        yield from self._read_checkpoints()
        yield from self._read_topics()
        yield from self._check_small_files()
        yield from self._check_security()
        folders = set()
        for name in self._files.list_dir(self._folder):
            path = f"{self._folder}/{name}"
            if not self._files.is_dir(path):
                yield from self._check_file_name(name, path)
                continue
            found = partition_of(name)
            if found is not None:
                folders.add(found)
                yield from self._check_folder(found, path)
            elif partition_of(name.rpartition(".")[0]) is not None:
                if name.endswith(DELETED):
                    yield notice(path, "a removal was cut short", NEXT_OPENING)
                elif name.endswith(STRAY):
                    yield notice(path, "it belongs to no topic", "Delete it if it is not needed")
        for each in sorted(self._partitions.keys() - folders):
            yield from self._missing(each)
        yield from self._check_checkpoints(folders)
        yield from self._check_producer_ids()

    def _read_checkpoints(self) -> Iterator[Finding]:
        for name in CHECKPOINTS:
            path = f"{self._folder}/{name}"
            self._offsets[name] = {}
            if self._files.exists(path):
                data = self._files.read_whole(path)
                try:
                    self._offsets[name] = decode_offsets(data, path)
                    if encode_offsets(self._offsets[name]) != data:
                        yield error(path, NONE, "it is not as the log writes it", RESTORE_FILE)
                except MillstreamError as problem:
                    yield error(path, NONE, str(problem).rstrip("."), RESTORE_FILE)
            elif self._clean and name != CLEANER_OFFSETS:
                yield error(path, NONE, "the file is missing", RESTORE_FILE)

    def _check_checkpoints(self, folders: set[TopicPartition]) -> Iterator[Finding]:
        for name, offsets in self._offsets.items():
            for each in sorted(offsets.keys() - folders):
                what = f"{each} has no folder"
                yield self._disagreement(f"{self._folder}/{name}", what, RESTORE_FILE)
            if self._clean and name != CLEANER_OFFSETS:
                for each in sorted(folders - offsets.keys()):
                    path = f"{self._folder}/{name}"
                    yield error(path, NONE, f"it does not name {each}", RESTORE_FILE)

    def _read_topics(self) -> Iterator[Finding]:
        # The table of topics is the broker's, as the file of producer ids: the rest is storage's.
        from millstream.log.broker.topics import TopicTable

        path = f"{self._folder}/{TOPICS_FILE}"
        if not self._files.exists(path):
            if any(self._offsets.values()):  # it is there before any partition
                self._knows_topics = False
                yield error(path, NONE, "the file is missing", RESTORE_FILE)
            return
        data = self._files.read_whole(path)
        try:
            table = TopicTable.decode(data, path)
        except MillstreamError as problem:
            self._knows_topics = False
            yield error(path, NONE, str(problem).rstrip("."), RESTORE_FILE)
            return
        if table.encode() != data:
            yield notice(path, "it is not as the log writes it", NEXT_OPENING)
        self._deleted_ids = set(table.deleted_ids)
        for topic in table:
            if "compact" in topic.config.cleanup_policy:
                self._compacted.add(topic.name)
            for each in topic.topic_partitions():
                self._partitions[each] = topic.topic_id

    def _check_security(self) -> Iterator[Finding]:
        from millstream.log.security.store import decode_security  # as above

        path = f"{self._folder}/{SECURITY_FILE}"
        if self._files.exists(path):
            try:
                decode_security(self._files.read_whole(path), path)
            except MillstreamError as problem:
                yield error(path, NONE, str(problem).rstrip("."), RESTORE_FILE)

    def _check_small_files(self) -> Iterator[Finding]:
        path = f"{self._folder}/{CLEAN_SHUTDOWN}"
        if self._clean and self._files.read_whole(path) != CLEAN_SHUTDOWN_CONTENT:
            yield error(path, NONE, "its content is not what a clean stop writes", "Remove it")
        path = f"{self._folder}/{META_PROPERTIES}"
        if self._files.exists(path):
            lines = self._files.read_whole(path).decode("utf-8", "replace").split("\n")
            names = [line.partition("=")[0] for line in lines]
            if names != ["version", "cluster.id", "node.id", "directory.id", ""]:
                yield error(path, NONE, f"it names {', '.join(names)}", RESTORE_FILE)
            elif "version=1" not in lines or "node.id=0" not in lines:
                yield error(path, NONE, "it is of another version or node", RESTORE_FILE)
            elif not all(is_id(line.partition("=")[2]) for line in lines[1:4:2]):
                yield error(path, NONE, "an id in it is none", RESTORE_FILE)
        elif self._clean:
            yield notice(path, "the file is missing", NEXT_OPENING)

    def _check_producer_ids(self) -> Iterator[Finding]:
        """An id that came back would make a new producer's batches look like duplicates."""
        from millstream.log.broker.producer_ids import block_start

        path = f"{self._folder}/{PRODUCER_ID_FILE}"
        used = self._producer_id_max
        data = self._files.read_whole(path) if self._files.exists(path) else b"0\n"
        try:
            start = block_start(data)
        except ValueError:
            start = NONE
        if start <= used or data != b"%d\n" % start:
            what = f"it must hold one number, above {used}, the largest producer id in use"
            yield error(path, NONE, what, f"Write one there, such as {used + 1_000_000}")

    def _check_file_name(self, name: str, path: str) -> Iterator[Finding]:
        if name.endswith(".tmp"):
            yield notice(path, "a file that was being replaced", "It can be removed")
        elif name not in NAMES:
            yield notice(path, "no file of a log", "Remove it if it is not needed")

    def _check_folder(self, found: TopicPartition, path: str) -> Iterator[Finding]:
        metadata = f"{path}/{PARTITION_METADATA}"
        topic_id = None
        if self._files.exists(metadata):
            topic_id = decode_topic_id(self._files.read_whole(metadata))
        if topic_id in self._deleted_ids:
            yield notice(path, "a removal was cut short", NEXT_OPENING)
            return
        if topic_id is None:
            if not self._clean and not self._holds_records(path):
                yield notice(path, "its creation was cut short", NEXT_OPENING)
                return
            yield error(metadata, NONE, "it is missing or damaged", RESTORE_FILE)
        expected = self._partitions.get(found)
        if expected is None:
            if self._knows_topics:
                what = f"{TOPICS_FILE} does not know this partition"
                advice = f"Restore {TOPICS_FILE}, or move the folder away"
                yield self._disagreement(path, what, advice)
        elif topic_id is not None and topic_id != expected:
            what = f"topic id {topic_id}, in {TOPICS_FILE} {expected}"
            yield self._disagreement(metadata, what, RESTORE_FILE)
        check = PartitionCheck(
            self._files, path, self._facts(found), self._on_bytes, records=self._records
        )
        yield from check.run()
        self._producer_id_max = max(self._producer_id_max, check.producer_id_max)

    def _disagreement(self, path: str, what: str, advice: str) -> Finding:
        """A crash may come between the table and the folders, a clean stop may not."""
        if self._clean:
            return error(path, NONE, what, advice)
        return notice(path, what, NEXT_OPENING)

    def _facts(self, found: TopicPartition) -> PartitionFacts:
        recovery_point = self._offsets[RECOVERY_POINTS].get(found, NONE)
        cleaned_to = self._offsets[CLEANER_OFFSETS].get(found, 0)
        if found.topic in self._compacted or not self._knows_topics:
            # A compaction is in place before the checkpoint says how far it went, and one that was
            # finished when the log was opened may never be in it.
            cleaned_to = max(cleaned_to, recovery_point)
        return PartitionFacts(
            found,
            self._clean,
            recovery_point,
            self._offsets[LOG_START_OFFSETS].get(found, NONE),
            self._offsets[REPLICATION_OFFSETS].get(found, NONE),
            cleaned_to,
        )

    def _holds_records(self, path: str) -> bool:
        return any(
            name.endswith(LOG) and self._files.size(f"{path}/{name}") > 0
            for name in self._files.list_dir(path)
        )

    def _missing(self, found: TopicPartition) -> Iterator[Finding]:
        path = f"{self._folder}/{found}"
        synced = self._offsets[RECOVERY_POINTS].get(found, 0)
        if self._clean or synced > 0:
            what = f"the folder is missing; offsets up to {synced} were synced"
            yield error(path, NONE, what, "Restore it, or the next opening makes an empty one")
        else:
            yield notice(path, "its creation was cut short", NEXT_OPENING)
