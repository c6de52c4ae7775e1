"""Promises about compacted topics."""

from __future__ import annotations

from .case import Case
from .history import Sent, Violation
from .record_checks import must_be_visible


def _known_places(case: Case) -> dict[tuple[str, int, int], int]:
    """Where records of compacted topics are known to have been visible."""
    known = {
        place: number
        for place, number in case.history.places.items()
        if case.rules[place[0]].compacts
    }
    for sent in must_be_visible(case):
        if sent.where is not None and case.rules[sent.topic].compacts:
            known[sent.topic, *sent.where] = sent.number
    return known


def compaction_keeps_what_counts(case: Case) -> None:
    """The newest record of every key stays; a tombstone goes only after delete.retention.ms; none
    goes that is younger than min.compaction.lag.ms."""
    newest: dict[tuple[str, int, bytes | None], int] = {}
    known = _known_places(case)
    for partition, found in case.snapshot.partitions.items():
        if case.rules[partition.topic].compacts:
            for row in found.committed():
                known.setdefault((*partition, row.offset), row.number or 0)
    for (topic, partition, offset), number in known.items():
        key = (topic, partition, case.history.sent[number].key)
        newest[key] = max(newest.get(key, -1), offset)
    for (topic, partition, offset), number in known.items():
        if number not in case.visible:
            sent = case.history.sent[number]
            is_newest = offset == newest[topic, partition, sent.key]
            _check_cleaned(case, sent, partition, offset, is_newest=is_newest)


def _may_have_been_deleted(case: Case, sent: Sent) -> bool:
    """Whether a tombstone of its key, which nobody has seen, can have come and gone since."""
    since = case.wall_ms - case.rules[sent.topic].delete_retention_ms
    return any(
        each.value is None
        and each.key == sent.key
        and each.topic == sent.topic
        and each.number not in case.visible
        and each.wall_ms <= since
        and each.ended > sent.began
        and (each.txn is None or each.txn.may_be_visible)
        for each in case.history.sent
    )


def _check_cleaned(case: Case, sent: Sent, partition: int, offset: int, *, is_newest: bool) -> None:
    """Whether compaction may have taken a record that was at this offset."""
    rules = case.rules[sent.topic]
    timestamp = sent.wall_ms if sent.timestamp is None or rules.append_time else sent.timestamp
    if case.removed(sent.topic, partition, offset, sent.began) or case.aged(
        rules, timestamp, (partition, offset)
    ):
        return
    where = f"{sent.topic}-{partition}@{offset}"
    if timestamp > case.wall_ms - rules.min_compaction_lag_ms:
        raise Violation("compacted too early", f"{where}: {sent} at {case.wall_ms}")
    if not is_newest:
        return
    if sent.value is not None and not _may_have_been_deleted(case, sent):
        raise Violation("compacted away", f"{where}: {sent} was the newest of its key")
    if sent.value is None and sent.wall_ms > case.wall_ms - rules.delete_retention_ms:
        raise Violation("tombstone", f"{where}: {sent} is gone at {case.wall_ms}")
