"""Bugs in offsets that are committed in transactions; more than one proof must find each."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.log.broker.offset_coordinator import OffsetCoordinator
from millstream.log.broker.offsets import OffsetLoader


def offsets_outside_the_transaction(patch: pytest.MonkeyPatch) -> None:
    """They count at once, and whatever becomes of the transaction."""

    async def commit(
        self: Any, _id: str, _producer: int, _epoch: int, member: Any, offsets: Any
    ) -> None:
        await self._topic.create_if_missing()
        await self._write_offsets(member.group, offsets)

    patch.setattr(OffsetCoordinator, "commit_in_transaction", commit)


def aborted_offsets_count_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    original = OffsetLoader._end

    def end(self: Any, producer_id: int, *, commit: bool) -> None:
        original(self, producer_id, commit=True)

    patch.setattr(OffsetLoader, "_end", end)
