"""Producers on the network, at random; the machine is shared/old_producers.py."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from shared.old_producers import NewTransactions, OldTransactions

FEW = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
MANY = settings(FEW, max_examples=200, stateful_step_count=60)

TestOldProducers = OldTransactions.TestCase
TestOldProducers.settings = FEW
TestNewProducers = NewTransactions.TestCase
TestNewProducers.settings = FEW


@pytest.mark.slow
class TestManyOldProducers(OldTransactions.TestCase):
    settings = MANY


@pytest.mark.slow
class TestManyNewProducers(NewTransactions.TestCase):
    settings = MANY
