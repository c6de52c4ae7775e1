"""Producers that keep their epoch, at random; the machine is shared/old_producers.py."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from shared.old_producers import OldTransactions

TestOldProducers = OldTransactions.TestCase
TestOldProducers.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.slow
class TestManyOldProducers(OldTransactions.TestCase):
    settings = settings(
        max_examples=600,
        stateful_step_count=60,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
