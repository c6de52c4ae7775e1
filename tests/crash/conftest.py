"""Sweeps run a log thousands of times in one test."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def lines_are_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    """pytest keeps every line of a test until its end, a line its error, an error its frames, and
    these the run it was raised in: all runs of a sweep would be in memory at once."""
    caplog.set_level(logging.CRITICAL, "millstream")
