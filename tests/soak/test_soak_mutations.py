"""The soak finds what piles up: each of these is put in on purpose and must be caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from millstream.log.broker.flusher import Flusher
from millstream.log.broker.waiting import WaitingFetches
from millstream.log.client.membership import Membership
from millstream.log.storage.flush import Unsynced
from millstream.log.storage.partition import Partition
from millstream.log.testing.sim_loop import run
from shared.soak import assert_steady, soak

pytestmark = pytest.mark.slow

Patch = pytest.MonkeyPatch


def waiting_fetches_are_never_forgotten(patch: Patch) -> None:
    patch.setattr(WaitingFetches, "_forget", lambda *_: None)
    patch.setattr(WaitingFetches, "wake", lambda *_: None)


def producers_never_expire(patch: Patch) -> None:
    patch.setattr(Partition, "expire_producers", lambda *_: None)


def retention_does_nothing(patch: Patch) -> None:
    patch.setattr(Partition, "apply_retention", lambda *_: 0)


def compactions_that_meet_a_flush_are_never_put_in_place(patch: Patch) -> None:
    original = Unsynced.settle_later

    def settle_later(self: Any, change: Any) -> None:
        if self.flush_is_running:
            self.is_settling = True
        else:
            original(self, change)

    patch.setattr(Unsynced, "settle_later", settle_later)


def heartbeats_go_on_after_the_member_left(patch: Patch) -> None:
    original = Membership.leave

    async def leave(self: Any) -> None:
        self._heartbeats = None
        await original(self)

    patch.setattr(Membership, "leave", leave)


def what_flushes_have_answered_is_kept(patch: Patch) -> None:
    kept: dict[int, list[object]] = {}
    original = Flusher.durable

    def durable(self: Any, partition: Any, offset: int) -> Any:
        self.answers = kept.setdefault(id(self), [])
        self.answers.append(original(self, partition, offset))
        return self.answers[-1]

    patch.setattr(Flusher, "durable", durable)


@pytest.mark.parametrize(
    "mutation",
    [
        waiting_fetches_are_never_forgotten,
        producers_never_expire,
        retention_does_nothing,
        compactions_that_meet_a_flush_are_never_put_in_place,
        heartbeats_go_on_after_the_member_left,
        what_flushes_have_answered_is_kept,
    ],
    ids=lambda mutation: mutation.__name__,
)
def test_the_soak_catches(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    with pytest.raises(AssertionError):
        found, _ = run(lambda: soak(producers=8, consumers=8, minutes=14, seed=1, pause_s=4), 1)
        assert_steady(found, warm_up=4, slack=1.3)


def test_without_a_mutation_it_is_content() -> None:
    found, _ = run(lambda: soak(producers=8, consumers=8, minutes=14, seed=1, pause_s=4), 1)
    assert_steady(found, warm_up=4, slack=1.3)
