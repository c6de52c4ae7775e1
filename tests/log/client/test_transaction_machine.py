"""Transactions at random against a list of them; the machine is shared/transaction_machine.py."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from shared.transaction_machine import Transactions

TestTransactions = Transactions.TestCase
TestTransactions.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.slow
class TestManyTransactions(Transactions.TestCase):
    settings = settings(
        max_examples=250,
        stateful_step_count=60,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
