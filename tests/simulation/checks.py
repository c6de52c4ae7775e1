"""What the log promises, as checks of a history against what is there. Each is named after the
promise, and test_checks.py feeds each a history that breaks it.

A check raises Violation. It is given a `Case`: what happened, what is in the log now, and what the
topics' settings allow to be gone.

Where less is held than one might think, and why:

    power lost with durability="os"     what was acknowledged may be gone, from any point on in each
        partition (`forgive`). From then on, exactly once and groups that read everything are not
        held: offsets and records were cut apart.
    offsets that expire (one seed in ten)     their group begins again where auto.offset.reset says,
        so the same two are not held, and a clean stop may forget some.
    topics that age or are compacted     a transaction need not be whole in them, and a clean stop
        may change them: the cleaner runs at once. What must be left of them has its own checks.
    their records below a group's offset     what was deleted or compacted away comes back when the
        process dies before that is durable, and a reader may have passed it by then.
    after a fault of the disk, until the process ends     StorageError is an answer anywhere, a log
        may refuse to open, and a poll may wait for ever for a transaction that cannot be ended.
    faults with durability="os"     at writes, not at an fsync: what one that fails leaves is not
        promised to be mended there (plan.py).
"""

from __future__ import annotations

from collections.abc import Callable

from millstream.log import TopicPartition

from .case import Case, Rules
from .compaction_checks import compaction_keeps_what_counts
from .group_checks import (
    committed_offsets_count,
    steady_groups_read_everything,
    the_chain_is_exactly_once,
)
from .history import NEVER, History, Sent, Violation
from .record_checks import (
    bounds_are_in_order,
    nothing_acknowledged_is_lost,
    nothing_is_invented,
    nothing_is_twice,
    offsets_are_dense,
    only_committed_is_visible,
    producers_keep_their_order,
    the_fenced_do_not_write,
    transactions_are_atomic,
    what_was_read_stays,
)
from .snapshot import Row, Snapshot

CHECKS: tuple[Callable[[Case], None], ...] = (
    nothing_is_invented,
    nothing_acknowledged_is_lost,
    what_was_read_stays,
    nothing_is_twice,
    only_committed_is_visible,
    transactions_are_atomic,
    producers_keep_their_order,
    the_fenced_do_not_write,
    offsets_are_dense,
    bounds_are_in_order,
    compaction_keeps_what_counts,
    committed_offsets_count,
    steady_groups_read_everything,
    the_chain_is_exactly_once,
)


def check(case: Case) -> None:
    """Hold the log to all of its promises; then remember what is visible."""
    for each in CHECKS:
        each(case)
    for number, (partition, row) in case.visible.items():
        if not case.rules[partition.topic].remade:
            place = (partition.topic, partition.partition, row.offset)
            case.history.places[place] = number


def settle(case: Case) -> None:
    """The log was opened again: transactions whose outcome nobody was told are decided by now, and
    stay so. Called before `check`."""
    told: dict[int, list[Sent]] = {}
    for sent in case.history.sent:
        if sent.txn is not None and sent.txn.outcome in {"open", "unknown"}:
            told.setdefault(id(sent.txn), []).append(sent)
    for sents in told.values():
        txn = sents[0].txn
        assert txn is not None
        would_be_there = any(
            sent.is_acknowledged
            and not (case.rules[sent.topic].compacts or case.rules[sent.topic].ages)
            and not case.removed(sent.topic, None, None, sent.began)
            for sent in sents
        )
        if any(sent.number in case.visible for sent in sents) and txn.may_be_visible:
            txn.outcome = "committed"
        elif txn.commit_tried == NEVER or would_be_there:
            txn.outcome = "aborted"


def forgive(history: History, snapshot: Snapshot) -> None:
    """A power loss with durability="os": each partition counts up to where it is as it was."""
    there = {
        (*partition, row.offset): row.number
        for partition, each in snapshot.partitions.items()
        for row in each.rows()
    }
    ends: dict[TopicPartition, int] = {}
    for (topic, number, offset), known in sorted(history.places.items()):
        partition = TopicPartition(topic, number)
        if there.get((topic, number, offset)) != known:
            ends.setdefault(partition, offset)
    history.forgive({each: ends.get(each, NEVER) for each in snapshot.partitions})


def delivered_fits(
    history: History, rules: dict[str, Rules], topic: str, partition: int, row: Row, isolation: str
) -> None:
    """What a consumer was given was sent, as it was sent; and its transaction was to be committed.
    The same offset holds the same record for every reader, for ever."""
    sent = history.sent[row.number] if row.number is not None else None
    where = f"{topic}-{partition}@{row.offset}"
    if sent is None or (sent.topic, sent.key, sent.value) != (topic, row.key, row.value):
        raise Violation("invented", f"{where}: {row}, sent was {sent}")
    if isolation != "read_committed":
        return
    if sent.txn is not None and not sent.txn.may_be_visible:
        raise Violation("aborted read", f"{where}: {row} of {sent.txn}")
    known = history.places.setdefault((topic, partition, row.offset), sent.number)
    if known != sent.number:
        raise Violation("changed", f"{where}: was {known}, is {row}")
