"""Any call may be cancelled at any of its awaits; see shared/cancelling.py for what holds then."""

from __future__ import annotations

from functools import partial

import pytest

from shared.cancelling import CALLS, cancel_call, cancel_close, cancel_open, every_await


@pytest.mark.parametrize("name", CALLS)
def test_a_call(name: str) -> None:
    assert every_await(partial(cancel_call, name), step=4) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_a_call_at_every_await(name: str) -> None:
    assert every_await(partial(cancel_call, name)) > 0


def test_opening() -> None:
    assert every_await(cancel_open) > 2


def test_closing() -> None:
    assert every_await(cancel_close) > 2
