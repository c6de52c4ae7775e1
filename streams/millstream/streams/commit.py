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
    places = [entry.changelog.partition for entry in stores if entry.changelog is not None]
    ends = await _ends_before(journal, places) if journal.is_shared else {}
    if journal.is_transactional:
        await producer.send_offsets(offsets, group=journal.member())
        await producer.commit_transaction()
        journal.ended()
    else:
        await producer.flush()
        await journal.consumer.commit(offsets)
    if not journal.is_shared and places:
        ends = await journal.log.end_offsets(places)

    writes = [(entry.store, _checkpoint(entry, ends, now_ms)) for entry in stores]
    if writes:
        await thread.run(lambda: [store.apply(checkpoint) for store, checkpoint in writes])
    for entry in stores:
        entry.store.settle()


async def _ends_before(
    journal: Journal, changelogs: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    """Where a commit will end these changelogs, asked before it.

    Once a commit is made, another worker may have the partition and write, should this one sleep
    then: what it wrote is not in this one's store. Before, nobody else can commit to a changelog,
    for who takes over waits for the end of this transaction.
    """
    if not changelogs:
        return {}
    await journal.producer.flush()
    ends = await journal.log.end_offsets(changelogs, "read_uncommitted")
    markers = 1 if journal.is_transactional else 0
    return {changelog: end + markers for changelog, end in ends.items()}


def _checkpoint(
    entry: StoreChanges, ends: Mapping[TopicPartition, int], now_ms: int
) -> Checkpoint | None:
    """How far the changelog of a store reaches with this commit: its only writer is its task."""
    if entry.changelog is None:
        return None
    return Checkpoint(ends[entry.changelog.partition], now_ms, entry.changelog.topic_id)
