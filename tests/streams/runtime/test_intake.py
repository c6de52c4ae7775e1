"""Which batch comes next: by timestamp between partitions, by offset within one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millstream.log import RecordBatch, TopicPartition
from millstream.streams.intake import WAITING_RECORDS_MAX, Intake

A, B = TopicPartition("a", 0), TopicPartition("b", 0)
NOBODY: frozenset[TopicPartition] = frozenset()


def batch(partition: TopicPartition, timestamps: list[int], first_offset: int = 0) -> RecordBatch:
    count = len(timestamps)
    offsets = range(first_offset, first_offset + count)
    return RecordBatch(
        partition.topic, partition.partition, offsets, [None] * count, [b""] * count, timestamps
    )


def drained(intake: Intake, ended: frozenset[TopicPartition]) -> list[tuple[str, list[int]]]:
    taken = []
    while (next_batch := intake.next(ended)) is not None:
        taken.append((next_batch.topic, next_batch.timestamps))
    return taken


def test_one_partition_is_handed_on_as_it_comes() -> None:
    intake = Intake()
    intake.open([A])
    intake.add(batch(A, [5, 1]))
    assert drained(intake, NOBODY) == [("a", [5, 1])]
    assert intake.is_empty


def test_the_lowest_first_timestamp_goes_first_in_slices() -> None:
    intake = Intake()
    intake.open([A, B])
    intake.add(batch(A, [1, 2, 5, 6, 9]))
    intake.add(batch(B, [3, 4, 7]))
    assert intake.first_offset(A) == 0
    assert drained(intake, frozenset([A, B])) == [
        ("a", [1, 2]),
        ("b", [3, 4]),
        ("a", [5, 6]),
        ("b", [7]),
        ("a", [9]),
    ]


def test_equal_timestamps_go_in_the_order_of_the_sources() -> None:
    intake = Intake()
    intake.open([A, B])
    intake.add(batch(B, [1, 1]))
    intake.add(batch(A, [1]))
    assert drained(intake, frozenset([A, B])) == [("a", [1]), ("b", [1, 1])]


def test_it_waits_for_a_partition_that_has_more() -> None:
    intake = Intake()
    intake.open([A, B])
    intake.add(batch(A, [10]))
    assert intake.next(NOBODY) is None
    assert intake.next(frozenset([A])) is None
    intake.add(batch(B, [3]))
    assert drained(intake, NOBODY) == [("b", [3])]
    assert drained(intake, frozenset([B])) == [("a", [10])]


def test_no_more_is_taken_than_asked_for() -> None:
    intake = Intake()
    intake.open([A])
    intake.add(batch(A, [1, 2, 3]))
    taken = [intake.next(NOBODY, 2), intake.next(NOBODY, 2)]
    assert [each and list(each.offsets) for each in taken] == [[0, 1], [2]]
    intake.open([B])
    intake.add(batch(A, [1, 1, 1]))
    intake.add(batch(B, [5]))
    first = intake.next(frozenset(), 2)
    assert first is not None
    assert (first.topic, len(first)) == ("a", 2)


def test_slack_makes_slices_longer() -> None:
    intake = Intake(slack_ms=3)
    intake.open([A, B])
    intake.add(batch(A, [1, 6, 7]))
    intake.add(batch(B, [3, 20]))
    assert drained(intake, frozenset([A, B])) == [
        ("a", [1, 6]),
        ("b", [3]),
        ("a", [7]),
        ("b", [20]),
    ]


def test_a_closed_partition_is_forgotten() -> None:
    intake = Intake()
    intake.open([A, B])
    intake.add(batch(A, [1]))
    intake.close([A])
    intake.add(batch(B, [2]))
    assert drained(intake, NOBODY) == [("b", [2])]


def test_a_partition_with_much_waiting_is_full() -> None:
    intake = Intake()
    intake.open([A, B])
    assert not intake.is_full(A)
    intake.add(batch(A, [0] * WAITING_RECORDS_MAX))
    assert intake.is_full(A)
    assert not intake.is_full(B)


@given(
    st.lists(st.integers(0, 20), max_size=12),
    st.lists(st.integers(0, 20), max_size=12),
    st.lists(st.integers(0, 20), max_size=12),
    st.integers(0, 5),
)
def test_nothing_is_lost_and_each_partition_keeps_its_order(
    first: list[int], second: list[int], third: list[int], slack: int
) -> None:
    intake = Intake(slack_ms=slack)
    intake.open([A, B])
    given_batches = [(A, first, 0), (B, second, 0), (A, third, len(first))]
    for partition, timestamps, offset in given_batches:
        if timestamps:
            intake.add(batch(partition, timestamps, offset))
    offsets: dict[str, list[int]] = {"a": [], "b": []}
    while (taken := intake.next(frozenset([A, B]))) is not None:
        offsets[taken.topic] += taken.offsets
        waiting = intake.first_offset(TopicPartition(taken.topic, 0))
        assert waiting is None or waiting == taken.next_offset
    assert offsets["a"] == list(range(len(first) + len(third)))
    assert offsets["b"] == list(range(len(second)))
    assert intake.is_empty
