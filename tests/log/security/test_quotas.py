"""Which quota is a client's, whose use counts together, and how long who goes over it waits."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.log.security.quotas import (
    CONSUMER_BYTE_RATE,
    DEFAULT,
    PRODUCER_BYTE_RATE,
    REQUEST_PERCENTAGE,
    THROTTLE_S_MAX,
    Entity,
    Quotas,
)

ANNA = "User:anna"
CLOSEST_FIRST = [
    Entity("anna", "app"),
    Entity("anna", DEFAULT),
    Entity("anna", None),
    Entity(DEFAULT, "app"),
    Entity(DEFAULT, DEFAULT),
    Entity(DEFAULT, None),
    Entity(None, "app"),
    Entity(None, DEFAULT),
]


def waits(quotas: Quotas, amount: float, client: str = "app", user: str = ANNA) -> float:
    return quotas.use(PRODUCER_BYTE_RATE, user, client, amount, 0.0)


@pytest.mark.parametrize("first", range(len(CLOSEST_FIRST)))
def test_the_closest_quota_counts(first: int) -> None:
    table = {
        entity: {PRODUCER_BYTE_RATE: 100.0 * (number + 1)}
        for number, entity in enumerate(CLOSEST_FIRST)
        if number >= first
    }
    rate = 100.0 * (first + 1)
    assert waits(Quotas(table), 3 * rate) == pytest.approx(2.0)


def test_quotas_of_others_and_of_other_kinds() -> None:
    quotas = Quotas(
        {
            Entity("bert", None): {PRODUCER_BYTE_RATE: 1.0},
            Entity(None, "other"): {PRODUCER_BYTE_RATE: 1.0},
            Entity("anna", None): {CONSUMER_BYTE_RATE: 1.0},
        }
    )
    assert waits(quotas, 1e9) == 0
    assert quotas.use(CONSUMER_BYTE_RATE, ANNA, None, 3, 0.0) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("entity", "shares_clients", "shares_users"),
    [
        (Entity("anna", None), True, False),
        (Entity(DEFAULT, None), True, False),
        (Entity(None, "app"), False, True),
        (Entity(None, DEFAULT), False, True),
        (Entity(DEFAULT, DEFAULT), False, False),
    ],
)
def test_who_shares_what_may_be_used(
    entity: Entity, shares_clients: bool, shares_users: bool
) -> None:
    for client, user, shares in (("other", ANNA, shares_clients), ("app", "User:b", shares_users)):
        quotas = Quotas({entity: {PRODUCER_BYTE_RATE: 100.0}})
        assert waits(quotas, 100) == 0
        assert (waits(quotas, 100, client, user) > 0) is shares


def test_percent_are_of_a_second() -> None:
    quotas = Quotas({Entity(DEFAULT, None): {REQUEST_PERCENTAGE: 50.0}})
    assert quotas.use(REQUEST_PERCENTAGE, ANNA, "", 1.0, 0.0) == pytest.approx(1.0)


def test_nobody_waits_for_ever() -> None:
    quotas = Quotas({Entity(DEFAULT, None): {PRODUCER_BYTE_RATE: 1.0}})
    assert waits(quotas, 1e9) == THROTTLE_S_MAX


def test_new_quotas_hold_at_once() -> None:
    quotas = Quotas({})
    assert (quotas.is_empty, waits(quotas, 1e9)) == (True, 0)
    quotas.set_table({Entity("anna", None): {PRODUCER_BYTE_RATE: 1.0}})
    assert (quotas.is_empty, waits(quotas, 3)) == (False, pytest.approx(2.0))
    quotas.set_table({})
    assert waits(quotas, 1e9) == 0


@given(
    st.floats(1, 1e6),
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 3)), min_size=1, max_size=50),
)
def test_who_waits_as_told_keeps_to_the_rate(rate: float, uses: list[tuple[float, float]]) -> None:
    """Over any time from the beginning, up to a second's worth and the last use."""
    quotas = Quotas({Entity("anna", None): {PRODUCER_BYTE_RATE: rate}})
    now_s = used = 0.0
    for amount, pause_s in uses:
        used += amount
        wait_s = quotas.use(PRODUCER_BYTE_RATE, ANNA, "app", amount, now_s)
        if wait_s < THROTTLE_S_MAX:
            assert used <= rate * (now_s + wait_s + 1) * 1.000001
        now_s += wait_s + pause_s


def test_long_client_ids_fill_no_memory() -> None:
    quotas = Quotas({Entity(None, DEFAULT): {PRODUCER_BYTE_RATE: 1.0}})
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for i in range(200):
            client_id = f"c{i}{'x' * 20_000}"
            assert waits(quotas, 10.0, client_id) > 0
        assert tracemalloc.get_traced_memory()[0] - before < 500_000
    finally:
        tracemalloc.stop()
