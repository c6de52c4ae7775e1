"""Promises about records: nothing lost, invented, doubled, out of order, or seen too early."""

from __future__ import annotations

from collections.abc import Iterator

from millstream.log import TopicPartition

from .case import Case
from .history import NEVER, Fence, Sent, Txn, Violation
from .snapshot import PartitionSnapshot


def nothing_is_invented(case: Case) -> None:
    """Every record that is there was sent, and is as it was sent."""
    for number, (partition, row) in case.rows.items():
        sent = case.history.sent[number] if number < len(case.history.sent) else None
        if sent is None or sent.topic != partition.topic:
            raise Violation("invented", f"{partition} holds {row}, which nobody sent there")
        if (row.key, row.value) != (sent.key, sent.value):
            raise Violation("invented", f"{partition} holds {row}, sent was {sent}")
        stamped = case.rules[sent.topic].append_time
        if sent.timestamp is not None and not stamped and row.timestamp != sent.timestamp:
            raise Violation("invented", f"{partition}: {row} has another time than {sent}")
    for partition, found in case.snapshot.partitions.items():
        for row in found.rows():
            if row.number is None:
                raise Violation("invented", f"{partition} holds {row}, which nobody sent")


def must_be_visible(case: Case) -> Iterator[Sent]:
    for sent in case.history.sent:
        if sent.is_acknowledged and (sent.txn is None or sent.txn.outcome == "committed"):
            yield sent


def nothing_acknowledged_is_lost(case: Case) -> None:
    """A record that was acknowledged, or whose transaction was, is there: where it was said to be,
    unless somebody deleted it or it was old enough to go. (Compacted topics: see below.)"""
    for sent in must_be_visible(case):
        rules = case.rules[sent.topic]
        found = case.visible.get(sent.number)
        if found is not None:
            partition, row = found
            if sent.where is not None and sent.where != (partition.partition, row.offset):
                raise Violation("lost", f"{sent} is at {partition} offset {row.offset}")
            continue
        if rules.compacts:
            continue
        place = sent.where
        partition, offset = place if place is not None else (None, None)
        timestamp = sent.wall_ms
        if sent.timestamp is not None and not rules.append_time:
            timestamp = sent.timestamp
        if case.removed(sent.topic, partition, offset, sent.began) or case.aged(
            rules, timestamp, place
        ):
            continue
        raise Violation("lost", f"{sent} was acknowledged and is gone")


def what_was_read_stays(case: Case) -> None:
    """What a read_committed reader saw at an offset is there for good, and nothing else ever is."""
    at: dict[tuple[str, int], dict[int, int | None]] = {}
    for partition, found in case.snapshot.partitions.items():
        at[tuple(partition)] = {row.offset: row.number for row in found.committed()}
    for (topic, number, offset), known in case.history.places.items():
        rules = case.rules[topic]
        there = at.get((topic, number), {}).get(offset)
        if there == known:
            continue
        if there is not None:
            raise Violation("changed", f"{topic}-{number}@{offset}: was {known}, is {there}")
        sent = case.history.sent[known]
        timestamp = sent.timestamp if sent.timestamp is not None else sent.wall_ms
        if rules.append_time:
            timestamp = sent.wall_ms
        if (
            rules.compacts
            or case.removed(topic, number, offset, sent.began)
            or case.aged(rules, timestamp, (number, offset))
        ):
            continue
        raise Violation("vanished", f"{topic}-{number}@{offset}: {sent} was read and is gone")


def nothing_is_twice(case: Case) -> None:
    """A record is in the log at most once: retries and recovery duplicate nothing."""
    for partition, found in case.snapshot.partitions.items():
        for row in found.rows():
            first, other = case.rows.get(row.number or 0, (partition, row))
            if (first, other.offset) != (partition, row.offset):
                where = f"{first}@{other.offset} and {partition}@{row.offset}"
                raise Violation("duplicate", f"record {row.number} is at {where}")


def only_committed_is_visible(case: Case) -> None:
    """No record of a transaction that was aborted, or never asked to commit, is visible."""
    for number, (partition, row) in case.visible.items():
        txn = case.history.sent[number].txn
        if txn is not None and not txn.may_be_visible:
            raise Violation("aborted read", f"{partition}@{row.offset}: {number} of {txn}")


def transactions_are_atomic(case: Case) -> None:
    """All of a transaction's records are visible, or none."""
    shown: dict[int, list[Sent]] = {}
    hidden: dict[int, list[Sent]] = {}
    txns: dict[int, Txn] = {}
    for sent in case.history.sent:
        if sent.txn is None or not sent.is_acknowledged:
            continue
        rules = case.rules[sent.topic]
        txns[id(sent.txn)] = sent.txn
        if sent.number in case.visible:
            shown.setdefault(id(sent.txn), []).append(sent)
        elif not (rules.compacts or rules.ages or case.removed(sent.topic, None, None, sent.began)):
            hidden.setdefault(id(sent.txn), []).append(sent)
    for each in shown.keys() & hidden.keys():
        raise Violation(
            "half a transaction", f"{txns[each]}: {shown[each][0]} is there, {hidden[each][0]} not"
        )


def producers_keep_their_order(case: Case) -> None:
    """In each partition, the records of a producer lie in the order it sent them."""
    for partition, found in case.snapshot.partitions.items():
        last: dict[int, Sent] = {}
        for row in found.rows():
            sent = case.history.sent[row.number or 0]
            before = last.get(sent.producer)
            if before is not None and before.turn > sent.turn:
                raise Violation("order", f"{partition}@{row.offset}: {sent} after {before}")
            last[sent.producer] = sent


def the_fenced_do_not_write(case: Case) -> None:
    """What a producer sends after another took over its transactional id is not in the log."""
    started = {fence.producer: fence.ended for fence in case.history.fences}
    fenced: dict[int, Fence] = {}
    for fence in reversed(case.history.fences):
        for producer, transactional_id in case.history.producers.items():
            if (
                transactional_id == fence.transactional_id
                and started.get(producer, NEVER) < fence.began
            ):
                fenced[producer] = fence
    for number, (partition, row) in case.rows.items():
        sent = case.history.sent[number]
        fence_of = fenced.get(sent.producer)
        if fence_of is not None and sent.began > fence_of.ended:
            raise Violation("fenced", f"{partition}@{row.offset}: {sent} in spite of {fence_of}")


def offsets_are_dense(case: Case) -> None:
    """Offsets only rise, and leave no gaps where nothing is compacted."""
    for partition, found in case.snapshot.partitions.items():
        dense = not case.rules[partition.topic].compacts
        following = None
        for batch in found.batches:
            if following is None:
                if batch.base_offset > found.log_start_offset and dense:
                    raise Violation("gap", f"{partition} begins at {found.log_start_offset}")
            elif batch.base_offset < following or (dense and batch.base_offset != following):
                raise Violation("gap", f"{partition}: {batch} after offset {following - 1}")
            following = batch.last_offset + 1
            offsets = [row.offset for row in batch.rows]
            if offsets != sorted(set(offsets)) or (
                offsets and not batch.base_offset <= offsets[0] <= offsets[-1] <= batch.last_offset
            ):
                raise Violation("gap", f"{partition}: the offsets of {batch}")
            whole = list(range(batch.base_offset, batch.last_offset + 1))
            if dense and batch.control is None and offsets != whole:
                raise Violation("gap", f"{partition}: the offsets of {batch}")
        if dense and following is not None and following != found.high_watermark:
            raise Violation("gap", f"{partition} ends at {following}, not {found.high_watermark}")


def bounds_are_in_order(case: Case) -> None:
    """log start <= last stable offset <= high watermark <= log end."""
    for partition, found in case.snapshot.partitions.items():
        check_bounds(partition, found)


def check_bounds(partition: TopicPartition, found: PartitionSnapshot) -> None:
    bounds = (
        found.log_start_offset,
        found.last_stable_offset,
        found.high_watermark,
        found.log_end_offset,
    )
    if list(bounds) != sorted(bounds):
        raise Violation("bounds", f"{partition}: start, stable, watermark, end are {bounds}")
