"""Names of files and folders, as Apache Kafka has them.

LOG DIR/
    .lock  meta.properties  .kafka_cleanshutdown
    recovery-point-offset-checkpoint  log-start-offset-checkpoint  replication-offset-checkpoint
    cleaner-offset-checkpoint  topics.json  producer-id-block (these two are Millstream's own)
    TOPIC-PARTITION/
        00000000000000000000.log         record batches; the number is the base offset
        00000000000000000000.index       offset -> position, sparse
        00000000000000000000.timeindex   timestamp -> offset, sparse
        00000000000000000000.txnindex    aborted transactions that ended in this segment, if any
        00000000000000000123.snapshot    producer state of everything below offset 123
        00000000000000000000.log.cleaned   being written by compaction; nothing without its swap
        00000000000000000000.log.swap      what compaction puts in place of segments; it holds
        00000000000000000000.index.cleaned   likewise being written, by recovery too
        leader-epoch-checkpoint  partition.metadata
    TOPIC-PARTITION.ID-delete/           a partition being removed
    TOPIC-PARTITION.NUMBER-stray/        a partition of no known topic, kept for its owner to see
"""

from __future__ import annotations

from millstream.log.record import TopicPartition

__all__ = [
    "CLEANED",
    "CLEANER_OFFSETS",
    "CLEAN_SHUTDOWN",
    "INDEX",
    "LEADER_EPOCHS",
    "LOCK",
    "LOG",
    "LOG_START_OFFSETS",
    "META_PROPERTIES",
    "PARTITION_METADATA",
    "PRODUCER_ID_FILE",
    "RECOVERY_POINTS",
    "REPLICATION_OFFSETS",
    "SNAPSHOT",
    "SWAP",
    "TIME_INDEX",
    "TOPICS_FILE",
    "TXN_INDEX",
    "is_leftover",
    "offset_file",
    "offset_of",
    "partition_of",
]

LOG = ".log"
INDEX = ".index"
TIME_INDEX = ".timeindex"
TXN_INDEX = ".txnindex"
SNAPSHOT = ".snapshot"
CLEANED = ".cleaned"
SWAP = ".swap"
DELETED = "-delete"
STRAY = "-stray"

LOCK = ".lock"
META_PROPERTIES = "meta.properties"
CLEAN_SHUTDOWN = ".kafka_cleanshutdown"
RECOVERY_POINTS = "recovery-point-offset-checkpoint"
LOG_START_OFFSETS = "log-start-offset-checkpoint"
REPLICATION_OFFSETS = "replication-offset-checkpoint"
CLEANER_OFFSETS = "cleaner-offset-checkpoint"
TOPICS_FILE = "topics.json"
PRODUCER_ID_FILE = "producer-id-block"
LEADER_EPOCHS = "leader-epoch-checkpoint"
PARTITION_METADATA = "partition.metadata"

_OFFSET_DIGITS = 20


def offset_file(folder: str, offset: int, suffix: str) -> str:
    """Path of a file that is named after an offset."""
    return f"{folder}/{offset:0{_OFFSET_DIGITS}d}{suffix}"


def offset_of(name: str, suffix: str) -> int | None:
    """The offset a file is named after, or None when it is not such a file."""
    digits = name.removesuffix(suffix)
    if len(digits) == _OFFSET_DIGITS and name != digits and digits.isascii() and digits.isdigit():
        return int(digits)
    return None


def is_leftover(name: str) -> bool:
    """Whether a file of this name is something that a compaction left unfinished."""
    return name.endswith((CLEANED, SWAP))


def partition_of(folder: str) -> TopicPartition | None:
    """The partition a folder is named after, or None when it is no partition's folder."""
    topic, dash, number = folder.rpartition("-")
    if topic and dash and number.isascii() and number.isdigit() and str(int(number)) == number:
        return TopicPartition(topic, int(number))
    return None
