"""Promises about groups: committed offsets count; nothing is skipped, nothing done twice."""

from __future__ import annotations

from millstream.log import TopicPartition

from .case import Case
from .history import NEVER, OffsetAttempt, Violation
from .snapshot import PartitionSnapshot, Row


def committed_offsets_count(case: Case) -> None:
    """The committed offset of a group is what was last acknowledged, or a later attempt."""
    attempts: dict[tuple[str, TopicPartition], list[OffsetAttempt]] = {}
    for attempt in case.history.offsets:
        attempts.setdefault((attempt.group, attempt.partition), []).append(attempt)
    for group, offsets in case.snapshot.groups.items():
        for partition, offset in offsets.items():
            if group not in case.unwatched_groups and (group, partition) not in attempts:
                raise Violation("offset", f"{group} has {offset} for {partition}: nobody set it")
    for (group, partition), tried in attempts.items():
        if group in case.snapshot.groups:
            _check_committed(case, group, partition, tried)


def _check_committed(
    case: Case, group: str, partition: TopicPartition, tried: list[OffsetAttempt]
) -> None:
    found = case.snapshot.groups[group].get(partition)
    sure = [each for each in tried if each.counts_for_sure]
    last = max(sure, key=lambda each: each.began, default=None)
    after = last.began if last is not None else -1
    allowed = {each.offset for each in tried if each.may_count and each.over > after}
    youngest = max((each.wall_ms for each in sure), default=0)  # others may have come to nothing
    expired = case.offsets_retention_ms is not None and (
        youngest + case.offsets_retention_ms < case.wall_ms
    )
    removed = case.removed(partition.topic, None, NEVER, min(each.began for each in tried))
    if last is None or expired or removed:
        allowed.add(None)
    if found not in allowed:
        raise Violation(
            "offset", f"{group} has {found} for {partition}; it can be {allowed}: {tried}"
        )
    only_rises = group in case.steady_groups or (case.chain is not None and group == case.chain[0])
    if only_rises and last is not None and found is not None and found < (last.offset or 0):
        raise Violation("offset", f"{group} of {partition}: {found} after {last}")


def must_be_read(case: Case, found: PartitionSnapshot) -> list[Row]:
    """Of a compacted topic only the newest values: what a compaction takes comes back when the
    process is killed before the old segments are gone, and a reader may have passed it by then."""
    rows = found.committed()
    if not case.rules[found.partition.topic].compacts:
        return rows
    newest = {row.key: row for row in rows}
    return [row for row in newest.values() if row.value is not None]


def steady_groups_read_everything(case: Case) -> None:
    """Members of a group that never seeks were given every record below its committed offset."""
    for group in case.steady_groups:
        given = case.history.consumed.get(group, set())
        for partition, offset in case.snapshot.groups.get(group, {}).items():
            found = case.snapshot.partitions.get(partition)
            for row in must_be_read(case, found) if found is not None else ():
                if (
                    row.offset < offset
                    and row.number not in given
                    and not case.removed(*partition, row.offset, 0)
                    and not case.rules[partition.topic].ages  # it may have come back: see checks.py
                ):
                    raise Violation("skipped", f"{group} is at {offset} of {partition}, not {row}")


def the_chain_is_exactly_once(case: Case) -> None:
    """Every record below the chain's committed offset was transformed once, and nothing else."""
    if case.chain is None:
        return
    group, source, target = case.chain
    expected: set[bytes] = set()
    offsets = case.snapshot.groups.get(group, {})
    for found in case.snapshot.of_topic(source):
        end = offsets.get(found.partition, 0)
        expected |= {
            b"%d:%d" % (found.partition.partition, row.offset)
            for row in found.committed()
            if row.offset < end
        }
    written = [row.value for found in case.snapshot.of_topic(target) for row in found.committed()]
    if len(written) != len(set(written)):
        twice = sorted(value or b"" for value in written if written.count(value) > 1)
        raise Violation("exactly once", f"{target} holds twice: {twice}")
    if set(written) != expected:
        missing, extra = expected.difference(written), set(written).difference(expected)
        raise Violation("exactly once", f"{target} lacks {missing}, has too much: {extra}")
