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
from typing import NamedTuple

from millstream.log.record import OffsetAndMetadata, TopicPartition

from .journal import Journal
from .state import Changes, Checkpoint, Store
from .state_thread import StateThread

__all__ = ["Changelog", "StoreChanges", "commit"]


class Changelog(NamedTuple):
    """Where a store's changes go."""

    partition: TopicPartition
    topic_id: str


class StoreChanges(NamedTuple):
    """What a store has to commit, and its changelog; None for a store that has none."""

    store: Store
    changes: Changes
    changelog: Changelog | None


async def commit(
    journal: Journal,
    thread: StateThread,
    stores: Sequence[StoreChanges],
    offsets: Mapping[TopicPartition, OffsetAndMetadata],
    now_ms: int,
) -> None:
    """Commit what was sent to the producer, what the stores prepared, and these offsets.

    When this raises, the transaction is still open or its fate is unknown: the caller resets the
    journal, forgets the stores' changes, and restores the stores from what the log says.

    Raises:
        LogError: the log refused; see above.
        StateStoreError: the log has the commit, a backing has not. A restart mends it.
    """
    producer = journal.producer
    await journal.begin()
    for entry in stores:
        if entry.changelog is not None:
            await producer.send_batch(
                entry.changelog.partition.topic,
                entry.changes.values,
                keys=entry.changes.keys,
                partition=entry.changelog.partition.partition,
            )
    if journal.is_transactional:
        await producer.send_offsets(offsets, group=journal.consumer.group_metadata())
        await producer.commit_transaction()
        journal.ended()
    else:
        await producer.flush()
        await journal.consumer.commit(offsets)

    writes = [(entry.store, await _checkpoint(journal, entry, now_ms)) for entry in stores]
    if writes:
        await thread.run(lambda: [store.apply(checkpoint) for store, checkpoint in writes])
    for entry in stores:
        entry.store.settle()


async def _checkpoint(journal: Journal, entry: StoreChanges, now_ms: int) -> Checkpoint | None:
    """How far the changelog of a store reaches with this commit.

    The task is the only writer of its changelog partition, others are fenced, so that where the
    partition ends now is where this commit ended it.
    """
    if entry.changelog is None:
        return None
    partition = entry.changelog.partition
    ends = await journal.log.end_offsets([partition])
    return Checkpoint(ends[partition], now_ms, entry.changelog.topic_id)
