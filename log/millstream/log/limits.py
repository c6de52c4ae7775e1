"""How large anything may get that no setting bounds: buffers, reads, counts, waits.

Settings with Kafka's names bound what its user should decide (config.py, client/settings.py). Here
is the rest, each with its unit and its reason. docs/reference/configs.md lists both.
"""

from __future__ import annotations

__all__ = [
    "COMPACTION_FAILURES_MAX",
    "DECOMPRESSED_BYTES_MAX",
    "FIND_BYTES",
    "DECOMPRESSED_ITEMS_MAX",
    "GZIP_MEMBERS_MAX",
    "IDS_FORGOTTEN_AT_ONCE",
    "INTERNAL_MESSAGE_BYTES_MAX",
    "INTERNAL_READ_BYTES",
    "MEMBER_METADATA_BYTES_MAX",
    "OPEN_SEGMENTS_MAX",
    "PARTITIONS_PER_TOPIC_MAX",
    "QUEUED_REQUEST_BYTES_MAX",
    "QUEUED_RESPONSE_BYTES_MAX",
    "RECOVERY_READ_BYTES",
    "STUCK_RETRY_MS_MAX",
    "TIMED_WORK_RETRY_MS",
    "TOPIC_NAME_LENGTH_MAX",
    "UNFLUSHED_BYTES_MAX",
    "WALK_BYTES",
    "WRITE_PARTS_MAX",
]

PARTITIONS_PER_TOPIC_MAX = 10_000
"""Partitions. Each has a folder and open files; a typo in a count must not create a million."""

TOPIC_NAME_LENGTH_MAX = 249
"""Characters, as in Kafka: with a partition number and a suffix it is still a file's name."""

DECOMPRESSED_BYTES_MAX = 128 << 20
"""Bytes the records of one batch may decompress to: 128 times the default max.message.bytes, more
than text compresses, less than it takes to exhaust memory."""

DECOMPRESSED_ITEMS_MAX = 1 << 22
"""Records and headers of one compressed batch. The smallest takes two bytes, a few bits compressed,
and becomes objects of a hundred bytes: without an end, a kilobyte could claim gigabytes."""

GZIP_MEMBERS_MAX = 64
"""Members of one gzip stream. Kafka's clients write one. Each costs a copy of what follows it, so
there must be an end."""

UNFLUSHED_BYTES_MAX = 1 << 20
"""Bytes of an open transaction that may wait for its end before the disk is set to work."""

INTERNAL_MESSAGE_BYTES_MAX = 64 << 20
"""Bytes of one batch in an internal topic: a group may commit thousands of offsets at once."""

INTERNAL_READ_BYTES = 1 << 20
"""Bytes read at once of an internal topic when a log is opened."""

MEMBER_METADATA_BYTES_MAX = 4 << 20
"""Bytes a member of a group says when it joins, or is assigned: they are taken apart in one turn of
the event loop, a second for each MB at worst. Apache Kafka writes 1 MB of a whole group."""

OPEN_SEGMENTS_MAX = 8
"""Segments of one partition, besides the active one, whose files stay open: up to four each. One
more that is read takes the place of the one that was opened first."""

FIND_BYTES = 4 << 10
"""Bytes read at once to find one batch: about what lies between two index entries."""

WALK_BYTES = 256 << 10
"""Bytes read at once to go through the headers of many batches."""

RECOVERY_READ_BYTES = 1 << 20
"""Bytes read at once by recovery, which looks at every byte. A larger batch is read whole."""

TIMED_WORK_RETRY_MS = 1_000
"""Milliseconds until timed work that failed is tried again: a disk that fails at once would be
asked, and would fill the program's log, thousands of times a second."""

STUCK_RETRY_MS_MAX = 60_000
"""Milliseconds between two tries to end a transaction that a full disk holds up, at most; the first
try comes after TIMED_WORK_RETRY_MS."""

COMPACTION_FAILURES_MAX = 3
"""Failed compactions of a partition in a row, after which it is left alone until the log is opened
again: the disk, or a record, will not mend itself."""

IDS_FORGOTTEN_AT_ONCE = 1000
"""Transactional ids in one batch of tombstones; the rest goes at the next look, which then comes at
once."""

WRITE_PARTS_MAX = 512
"""Buffers handed to one pwritev; Linux takes 1024 (IOV_MAX)."""

QUEUED_REQUEST_BYTES_MAX = 256 << 20
"""Bytes of requests that a server has read, in whole or in part, and not answered: of all clients.
The default of queued.max.request.bytes."""

QUEUED_RESPONSE_BYTES_MAX = 256 << 20
"""Bytes of answers that clients have not taken, of all of them: a few of the largest fetches at
once, hundreds of the usual size. The default of queued.max.response.bytes."""
