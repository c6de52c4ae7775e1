"""Each check of the simulation is fed a history that breaks its promise, and one that does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from millstream.log import TopicPartition
from simulation.case import Case, Rules
from simulation.checks import CHECKS, check, delivered_fits, settle
from simulation.history import Fence, History, OffsetAttempt, Removal, Sent, Txn, Violation
from simulation.snapshot import Batch, PartitionSnapshot, Row, Snapshot

P = TopicPartition("t", 0)
OUT = TopicPartition("out", 0)
WALL_MS = 1_000_000


def sent(number: int, **fields: Any) -> Sent:
    values: dict[str, Any] = {
        "topic": "t",
        "producer": 1,
        "turn": number,
        "key": b"k",
        "value": b"v%d" % number,
        "timestamp": None,
        "txn": None,
        "began": number * 2,
        "wall_ms": WALL_MS,
        **fields,
    }
    return Sent(number, **values)


def row(each: Sent, offset: int) -> Row:
    return Row(offset, each.number, each.key, each.value, each.timestamp or each.wall_ms)


def held(*batches: Batch, start: int = 0, partition: TopicPartition = P) -> PartitionSnapshot:
    end = batches[-1].last_offset + 1 if batches else start
    return PartitionSnapshot(partition, start, end, end, end, list(batches))


def batch(*rows: Row, txn: int | None = None) -> Batch:
    """One batch of an idempotent producer, or part of a transaction."""
    first, last = rows[0].offset, rows[-1].offset
    return Batch(first, last, 7 if txn is None else txn, 0, txn is not None, None, list(rows))


def marker(offset: int, kind: str, producer: int) -> Batch:
    return Batch(offset, offset, producer, 1, True, kind, [])


def case(history: History, *partitions: PartitionSnapshot, **fields: Any) -> Case:
    rules = fields.pop("rules", None) or Rules("t")
    snapshot = Snapshot({each.partition: each for each in partitions})
    snapshot.groups.update(fields.pop("groups", {}))
    values: dict[str, Any] = {"wall_ms": WALL_MS, **fields}
    return Case(history, snapshot, {"t": rules, "out": Rules("out")}, **values)


def broken(name: str, what: Case) -> None:
    with pytest.raises(Violation) as caught:
        check(what)
    assert caught.value.name == name


def test_a_sound_history() -> None:
    first, second = sent(0, acknowledged=1, where=(0, 0)), sent(1)
    check(case(History(sent=[first, second]), held(batch(row(first, 0), row(second, 1)))))


def test_lost() -> None:
    first = sent(0, acknowledged=1, where=(0, 0))
    broken("lost", case(History(sent=[first]), held()))
    check(case(History(sent=[sent(0)]), held()))
    removal = Removal("t", 0, 1, began=5)
    check(case(History(sent=[first], removals=[removal]), held(start=1)))


def test_elsewhere() -> None:
    first, second = sent(0, acknowledged=1, where=(0, 0)), sent(1)
    found = held(batch(row(second, 0), row(first, 1)._replace()))
    first.turn = 2
    broken("lost", case(History(sent=[first, second]), found))


def test_retention_takes_nothing_young() -> None:
    first = sent(0, acknowledged=1, where=(0, 0))
    aged = Rules("t", retention_ms=1000)
    broken("lost", case(History(sent=[first]), held(start=1), rules=aged))
    check(case(History(sent=[first]), held(start=1), rules=aged, wall_ms=WALL_MS + 2000))
    there = held(batch(row(sent(1), 1)))  # above the log start, so it was not retention
    both = History(sent=[first, sent(1)])
    with pytest.raises(Violation, match=r"lost"):
        check(case(both, there, rules=aged, wall_ms=WALL_MS + 2000))


def test_invented() -> None:
    stranger = Row(0, 5, b"k", b"?", 0)
    broken("invented", case(History(sent=[sent(0)]), held(batch(stranger))))
    other = row(sent(0), 0)._replace(value=b"other")
    broken("invented", case(History(sent=[sent(0)]), held(batch(other))))
    nobody = Row(0, None, b"k", b"?", 0)
    broken("invented", case(History(sent=[sent(0)]), held(batch(nobody))))


def test_twice() -> None:
    first = sent(0)
    broken("duplicate", case(History(sent=[first]), held(batch(row(first, 0), row(first, 1)))))


def test_changed_and_vanished() -> None:
    first, second = sent(0), sent(1)
    history = History(sent=[first, second], places={("t", 0, 0): 1})
    broken("changed", case(history, held(batch(row(first, 0)))))
    broken("vanished", case(history, held()))


def test_aborted_reads() -> None:
    txn = Txn(1, "app", began=0)
    first = sent(0, txn=txn)
    found = held(batch(row(first, 0), txn=3), marker(1, "commit", 3))
    broken("aborted read", case(History(sent=[first], txns=[txn]), found))
    txn.commit_tried = 1
    check(case(History(sent=[first], txns=[txn]), found))


def test_half_a_transaction() -> None:
    txn = Txn(1, "app", began=0, commit_tried=3, outcome="unknown")
    first, second = sent(0, txn=txn, acknowledged=1), sent(1, txn=txn, acknowledged=2)
    found = held(batch(row(first, 0), txn=3), marker(1, "commit", 3))
    broken("half a transaction", case(History(sent=[first, second], txns=[txn]), found))


def test_order() -> None:
    first, second = sent(0), sent(1)
    broken("order", case(History(sent=[first, second]), held(batch(row(second, 0), row(first, 1)))))


def test_fenced() -> None:
    late = sent(0, began=50)
    history = History(
        sent=[late],
        producers={1: "app", 2: "app"},
        fences=[Fence("app", 1, 1, 2), Fence("app", 2, 10, 11)],
    )
    broken("fenced", case(history, held(batch(row(late, 0)))))
    late.began = 5
    check(case(history, held(batch(row(late, 0)))))


def test_gaps() -> None:
    first, second = sent(0), sent(1)
    history = History(sent=[first, second])
    found = held(batch(row(first, 0)), batch(row(second, 2)))
    broken("gap", case(history, found))
    check(case(history, found, rules=Rules("t", compacts=True)))
    backwards = held(batch(row(first, 5)), batch(row(second, 2)), start=5)
    backwards.batches[1] = backwards.batches[1]._replace(last_offset=7)
    broken("gap", case(history, backwards, rules=Rules("t", compacts=True)))


def test_bounds() -> None:
    found = held()
    found.last_stable_offset = 3
    broken("bounds", case(History(), found))


def test_compaction() -> None:
    rules = Rules("t", compacts=True, delete_retention_ms=1000)
    old, new = sent(0, acknowledged=1, where=(0, 0)), sent(1, acknowledged=2, where=(0, 1))
    history = History(sent=[old, new])
    check(case(history, held(batch(row(new, 1))), rules=rules))
    broken("compacted away", case(history, held(batch(row(old, 0))), rules=rules))
    early = Rules("t", compacts=True, min_compaction_lag_ms=60_000)
    broken("compacted too early", case(history, held(batch(row(new, 1))), rules=early))


def test_tombstones() -> None:
    rules = Rules("t", compacts=True, delete_retention_ms=1000)
    gone = sent(0, value=None, acknowledged=1, where=(0, 0))
    history = History(sent=[gone])
    broken("tombstone", case(history, held(), rules=rules))
    check(case(history, held(), rules=rules, wall_ms=WALL_MS + 2000))


def test_committed_offsets() -> None:
    def attempt(offset: int | None, began: int, ended: int, outcome: str) -> OffsetAttempt:
        return OffsetAttempt("g", P, offset, began, WALL_MS, ended=ended, outcome=outcome)

    sure = attempt(5, 1, 2, "acknowledged")
    maybe = attempt(9, 3, 4, "unknown")
    earlier = attempt(2, 0, 1, "unknown")
    history = History(offsets=[earlier, sure, maybe])
    for offset in (5, 9):
        check(case(history, held(), groups={"g": {P: offset}}))
    broken("offset", case(history, held(), groups={"g": {P: 2}}))  # went back
    broken("offset", case(history, held(), groups={"g": {}}))  # lost
    refused = History(offsets=[sure, attempt(9, 3, 4, "refused")])
    broken("offset", case(refused, held(), groups={"g": {P: 9}}))  # a stale generation's
    broken("offset", case(History(), held(), groups={"g": {P: 1}}))  # nobody's


def test_skipped() -> None:
    first = sent(0)
    history = History(sent=[first], offsets=[])
    fields = {
        "groups": {"g": {P: 1}},
        "steady_groups": ("g",),
        "unwatched_groups": ("g",),
    }
    found = held(batch(row(first, 0)))
    broken("skipped", case(history, found, **fields))
    history.consumed["g"] = {0}
    check(case(history, found, **fields))


@pytest.mark.parametrize("values", [[], [b"0:0", b"0:0"], [b"0:0", b"0:7"]], ids=str)
def test_exactly_once(values: list[bytes]) -> None:
    source = sent(0)
    copies = [sent(i + 1, topic="out", value=value) for i, value in enumerate(values)]
    history = History(sent=[source, *copies])
    written = [row(each, offset) for offset, each in enumerate(copies)]
    target = held(*([batch(*written)] if written else []), partition=OUT)
    what = case(
        history,
        held(batch(row(source, 0))),
        target,
        groups={"chain": {P: 1}},
        chain=("chain", "t", "out"),
        unwatched_groups=("chain",),
    )
    broken("exactly once", what)


def test_a_decided_transaction_stays_decided() -> None:
    """What nobody was told of is decided when the log is opened, once and for all."""
    txn = Txn(1, "app", began=0, commit_tried=3, outcome="unknown")
    first = sent(0, txn=txn, acknowledged=1)
    history = History(sent=[first], txns=[txn])
    settle(case(history, held()))
    assert txn.outcome == "aborted"
    found = held(batch(row(first, 0), txn=3), marker(1, "commit", 3))
    broken("aborted read", case(history, found))


def test_deliveries() -> None:
    txn = Txn(1, "app", began=0)
    history = History(sent=[sent(0, txn=txn), sent(1)])
    rules = {"t": Rules("t")}

    def deliver(number: int, offset: int, isolation: str = "read_committed") -> None:
        found = row(history.sent[number], offset)
        delivered_fits(history, rules, "t", 0, found, isolation)

    deliver(0, 0, "read_uncommitted")
    with pytest.raises(Violation, match="aborted read"):
        deliver(0, 0)
    deliver(1, 3)
    history.sent.append(sent(2))
    with pytest.raises(Violation, match="changed"):
        deliver(2, 3)


def test_every_check_is_here() -> None:
    """A new check wants a history that breaks it: add it to this file, and its name to these."""
    known: set[Callable[[Case], None]] = set(CHECKS)
    assert len(known) == 14
