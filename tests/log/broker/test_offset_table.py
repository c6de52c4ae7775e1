"""The table of committed offsets: what transactions hold, and what a look at it costs."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from millstream.log import OffsetAndMetadata, TopicPartition
from millstream.log.broker.offset_records import OffsetKey
from millstream.log.broker.offsets import OffsetTable

GROUPS, PRODUCERS = "gh", range(3)
PLACES = [TopicPartition("t", number) for number in range(3)]
FIVE = OffsetAndMetadata(5)

STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("hold"),
            st.sampled_from(PRODUCERS),
            st.sampled_from(GROUPS),
            st.sampled_from(PLACES),
        ),
        st.tuples(st.just("end"), st.sampled_from(PRODUCERS), st.booleans()),
        st.tuples(st.just("forget"), st.sampled_from(GROUPS), st.sampled_from(PLACES)),
        st.tuples(st.just("commit"), st.sampled_from(GROUPS), st.sampled_from(PLACES)),
    )
)


@given(STEPS)
def test_what_transactions_hold(steps: list[tuple]) -> None:
    table = OffsetTable()
    held: set[tuple[int, OffsetKey]] = set()
    in_flight: list[tuple[str, list[TopicPartition]]] = []
    for now, (what, *more) in enumerate(steps):
        if what == "hold":
            producer, group, place = more
            table.add_pending(producer, group, {place: FIVE}, now, now)
            held.add((producer, OffsetKey(group, place)))
        elif what == "end":
            producer, commit = more
            table.end_transaction(producer, commit=commit)
            held = {each for each in held if each[0] != producer}
        elif what == "forget":
            table.remove([OffsetKey(*more)], now)
            held = {each for each in held if each[1] != OffsetKey(*more)}
        else:
            in_flight.append((more[0], [more[1]]))
            table.begin_commit(*in_flight[-1])
            if len(in_flight) > 2:
                table.end_commit(*in_flight.pop(0))
        keys = {key for _, key in held}
        undecided = keys | {OffsetKey(group, each) for group, found in in_flight for each in found}
        assert table.pending == len(held)
        for group in GROUPS:
            of_group = {each.topic_partition for each in undecided if each.group == group}
            assert table.undecided_of(group) == of_group
            assert undecided <= table.of_topic("t")
            for place in PLACES:
                assert table.is_pending(group, place) == (OffsetKey(group, place) in keys)


def test_a_look_at_it_costs_the_same_however_many_transactions_are_open() -> None:
    """One request asks for tens of thousands of partitions, or of groups, and others wait."""
    table = OffsetTable()
    for producer_id in range(2_000):
        group = f"g{producer_id}"
        table.add_pending(producer_id, group, {PLACES[0]: FIVE}, producer_id, 0)
        table.begin_commit(group, [PLACES[1]])
    began = time.process_time()
    for number in range(20_000):
        assert not table.is_pending("g", TopicPartition("t", number))
    assert time.process_time() - began < 1
    for number in range(20_000):
        assert not table.undecided_of(f"h{number}")
    assert time.process_time() - began < 1
