"""A group whose generation cannot be written down."""

from __future__ import annotations

import asyncio

import pytest

from millstream.log import StorageError, TopicPartition
from millstream.log.broker.group_coordinator import GroupCoordinator
from millstream.log.broker.group_values import JoinRequest, JoinResult
from millstream.log.config import BrokerConfig
from millstream.log.testing.fake_clock import FakeClock


class FullTopic:
    """`__consumer_offsets` on a full disk."""

    async def create_if_missing(self) -> None:
        pass

    def partition_of(self, group: str) -> TopicPartition:
        return TopicPartition("__consumer_offsets", 0)

    def append(self, *_: object) -> int:
        raise StorageError("full")


def test_an_answer_that_nobody_took_does_not_answer_the_next_request() -> None:
    """The leader's sync fails; its assignment was taken for the answer to its next join."""

    async def main() -> None:
        groups = GroupCoordinator(
            FullTopic(), BrokerConfig(), FakeClock(), on_deadline=lambda _: None
        )
        member_id = ""
        for generation in (1, 2):
            request = JoinRequest(member_id, "", 10_000, 10_000, "consumer", (("range", b""),))
            joined = await asyncio.wait_for(groups.join_group("g", request), 5)
            assert isinstance(joined, JoinResult)
            assert joined.generation == generation
            member_id = joined.member_id
            with pytest.raises(StorageError):
                await groups.sync_group("g", member_id, joined.generation, {member_id: b"all"})

    asyncio.run(main())
