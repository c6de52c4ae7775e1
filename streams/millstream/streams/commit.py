"""The commit: the one place where work becomes durable, and the order in which it does.

    1  one log transaction: outputs (sent before), changelog records, offsets with stream time
    2  then the stores: each one's overlay and the changelog offset it reaches, in one atomic write

A crash before the end of 1 leaves nothing of it. A crash between 1 and 2 leaves backings at the
previous commit; the next start restores the rest from the changelogs. So state never runs ahead of
what is committed and is never rebuilt because of a crash.

With `at_least_once` there is no transaction: everything is flushed before the offsets are
committed, so that a crash repeats records but loses none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from millstream.log.interface import Consumer, Log, Producer
from millstream.log.record import OffsetAndMetadata, TopicPartition

from .state import Changes, Checkpoint, Store
from .state_thread import StateThread

__all__ = ["Journal", "StoreChanges", "commit"]


@dataclass(frozen=True, slots=True)
class StoreChanges:
    """What a store has to commit, and its changelog; None for a store that has none."""

    store: Store
    changes: Changes
    changelog: TopicPartition | None


@dataclass(frozen=True, slots=True)
class Journal:
    """What a commit writes to."""

    log: Log
    producer: Producer
    consumer: Consumer
    transactional: bool
    thread: StateThread
    topic_ids: Mapping[str, str]
    """Of the changelogs."""


async def commit(
    journal: Journal,
    stores: Sequence[StoreChanges],
    offsets: Mapping[TopicPartition, OffsetAndMetadata],
    now_ms: int,
) -> None:
    """Commit what was sent to the producer, what the stores prepared, and these offsets.

    A transaction must be open. When this raises, it is either still open or its fate is unknown:
    the caller aborts it, rolls the stores back, and restores them from what the log says.

    Raises:
        LogError: the log refused; see above.
        StateStoreError: the log has the commit, a backing has not. A restart mends it.
    """
    producer = journal.producer
    for entry in stores:
        if entry.changelog is not None:
            await producer.send_batch(
                entry.changelog.topic,
                entry.changes.values,
                keys=entry.changes.keys,
                partition=entry.changelog.partition,
            )
    if journal.transactional:
        await producer.send_offsets(offsets, group=journal.consumer.group_metadata())
        await producer.commit_transaction()
    else:
        await producer.flush()
        await journal.consumer.commit(offsets)

    # The task is the only writer of its changelog partition (others are fenced), so that where the
    # partition ends now is where this commit ended it.
    ends = await journal.log.end_offsets([e.changelog for e in stores if e.changelog is not None])
    writes = []
    for entry in stores:
        checkpoint = None
        if entry.changelog is not None:
            topic_id = journal.topic_ids[entry.changelog.topic]
            checkpoint = Checkpoint(ends[entry.changelog], now_ms, topic_id)
        write = partial(entry.store.apply, checkpoint)
        if entry.store.backing.blocking:
            writes.append(write)
        else:
            write()
    if writes:
        await journal.thread.run(lambda: [write() for write in writes])
    for entry in stores:
        entry.store.settle()
