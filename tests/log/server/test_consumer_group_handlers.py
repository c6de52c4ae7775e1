"""Groups of KIP-848 request by request: what is answered, refused, and shown."""

from __future__ import annotations

import base64
import datetime as dt
import uuid
from typing import Any

import pytest

from log.server.test_access import GROUP, TOPIC, Access, G, T, access
from log.server.test_group_handlers import with_broker
from millstream.log.broker.broker import Broker
from millstream.log.security.acl import Operation
from millstream.log.server.dispatch import LARGE_ANSWERS
from shared.asking import ask

INVALID, UNKNOWN_MEMBER, STALE, NO_GROUP, UNSUPPORTED = 42, 25, 113, 69, 35
OUTDATED = 22
JOINING: dict[str, Any] = {
    "group_id": "g",
    "member_id": "m",
    "member_epoch": 0,
    "rebalance_timeout": dt.timedelta(seconds=30),
    "subscribed_topic_names": ("t",),
    "topic_partitions": (),
}


async def joined(broker: Broker, **changes: Any) -> Any:
    return await ask(broker, 68, 1, **{**JOINING, **changes})


@pytest.mark.parametrize("version", [0, 1])
def test_a_member_joins_and_leaves(version: int) -> None:
    async def body(broker: Broker) -> None:
        answer = await ask(broker, 68, version, **JOINING)
        assert (answer.error_code, answer.member_id, answer.member_epoch) == (0, "m", 1)
        assert answer.heartbeat_interval == dt.timedelta(seconds=5)
        (given,) = answer.assignment.topic_partitions
        topic = broker.partitions.topic("t")
        assert (given.topic_id, given.partitions) == (id_of(broker, "t"), (0, 1))
        assert topic.partitions == 2
        beat = {"group_id": "g", "member_id": "m", "member_epoch": 1, "topic_partitions": None}
        answer = await ask(broker, 68, version, **beat)
        assert (answer.error_code, answer.assignment) == (0, None)
        answer = await ask(broker, 68, version, **{**beat, "member_epoch": -1})
        assert (answer.error_code, answer.member_epoch) == (0, -1)
        answer = await ask(broker, 68, version, **beat)
        assert answer.error_code == UNKNOWN_MEMBER
        assert "join again" in answer.error_message

    with_broker(body)


def id_of(broker: Broker, topic: str) -> uuid.UUID:
    return uuid.UUID(bytes=base64.urlsafe_b64decode(broker.partitions.topic(topic).topic_id + "=="))


def test_an_old_version_gives_a_new_member_its_id() -> None:
    async def body(broker: Broker) -> None:
        answer = await ask(broker, 68, 0, **{**JOINING, "member_id": ""})
        assert answer.error_code == 0
        assert answer.member_id

    with_broker(body)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"group_id": ""}, INVALID),
        ({"member_id": ""}, INVALID),
        ({"instance_id": ""}, INVALID),
        ({"rack_id": ""}, INVALID),
        ({"member_epoch": -3}, INVALID),
        ({"member_epoch": -2}, INVALID),
        ({"member_epoch": 1, "member_id": ""}, INVALID),
        ({"rebalance_timeout": dt.timedelta(milliseconds=-1)}, INVALID),
        ({"topic_partitions": None}, INVALID),
        ({"subscribed_topic_names": None}, INVALID),
        ({"subscribed_topic_regex": "("}, 128),
        ({"server_assignor": "sticky"}, 112),
        ({"member_epoch": 3}, NO_GROUP),
        ({"member_epoch": -1}, NO_GROUP),
    ],
)
def test_what_is_refused(changes: dict[str, Any], code: int) -> None:
    async def body(broker: Broker) -> None:
        answer = await joined(broker, **changes)
        assert answer.error_code == code
        assert answer.error_message
        assert broker.groups.modern.get("g") is None

    with_broker(body)


@pytest.mark.parametrize(
    "nothing",
    [
        {"subscribed_topic_names": ()},
        {"subscribed_topic_names": None, "subscribed_topic_regex": ""},
    ],
)
def test_a_member_may_wait_for_its_topics_in_the_group(nothing: dict[str, Any]) -> None:
    """Java's consumers join with no topics while their own pattern finds none."""

    async def body(broker: Broker) -> None:
        for member_id in ("m", "n"):
            answer = await joined(broker, member_id=member_id, **nothing)
            assert (answer.error_code, answer.assignment.topic_partitions) == (0, ())
        epoch = answer.member_epoch
        beat = {"group_id": "g", "member_id": "n", "subscribed_topic_names": ("t",)}
        answer = await ask(broker, 68, 1, **beat, member_epoch=epoch, topic_partitions=None)
        assert answer.error_code == 0
        (given,) = answer.assignment.topic_partitions
        assert given.partitions == (0, 1)

    with_broker(body)


def commit(epoch: int, member_id: str = "m") -> dict[str, Any]:
    entry = {"partition_index": 0, "committed_offset": 5, "committed_metadata": ""}
    return {
        "group_id": "g",
        "generation_id_or_member_epoch": epoch,
        "member_id": member_id,
        "topics": [{"name": "t", "partitions": [entry]}],
    }


def test_offsets_are_for_members_of_this_epoch() -> None:
    async def body(broker: Broker) -> None:
        await joined(broker)

        async def committed(version: int, *who: Any) -> int:
            answer = await ask(broker, 8, version, **commit(*who))
            return int(answer.topics[0].partitions[0].error_code)

        async def fetched(**who: Any) -> int:
            group = {"group_id": "g", "topics": None, **who}
            return int((await ask(broker, 9, 9, groups=[group])).groups[0].error_code)

        assert [await committed(9, epoch) for epoch in (0, 1, 2)] == [STALE, 0, STALE]
        assert await committed(9, 1, "other") == UNKNOWN_MEMBER
        assert await committed(9, -1, "") == UNKNOWN_MEMBER
        assert await committed(8, 1) == UNSUPPORTED
        assert await fetched(member_id=None, member_epoch=-1) == 0
        assert await fetched(member_id="m", member_epoch=1) == 0
        assert await fetched(member_id="m", member_epoch=7) == STALE
        assert await fetched(member_id="other", member_epoch=1) == UNKNOWN_MEMBER

    with_broker(body)


def test_a_producer_need_not_say_for_which_member_it_commits() -> None:
    """As in a classic group: TxnOffsetCommit below version 3 cannot, and clients may leave it out.
    Who says so has to be right."""

    async def body(broker: Broker) -> None:
        await joined(broker)
        timeout = dt.timedelta(seconds=60)
        started = {"transactional_id": "x", "transaction_timeout": timeout}
        made = await ask(broker, 22, 5, **started, producer_id=-1, producer_epoch=-1)

        async def committed(version: int, **who: Any) -> int:
            answer = await ask(
                *(broker, 28, version),
                transactional_id="x",
                group_id="g",
                producer_id=made.producer_id,
                producer_epoch=made.producer_epoch,
                topics=commit(0)["topics"],
                **who,
            )
            return int(answer.topics[0].partitions[0].error_code)

        assert await committed(5, generation_id=-1) == 0
        assert await committed(2) == 0
        assert await committed(5, generation_id=1, member_id="m") == 0
        assert await committed(5, generation_id=7, member_id="m") == OUTDATED
        assert await committed(5, generation_id=-1, member_id="other") == UNKNOWN_MEMBER
        assert await committed(5, generation_id=-1, group_instance_id="i") == UNKNOWN_MEMBER

    with_broker(body)


def test_how_it_looks_from_outside() -> None:
    async def body(broker: Broker) -> None:
        await joined(broker, instance_id="i", rack_id="r", subscribed_topic_regex="t|u")
        await ask(broker, 8, 2, **{**commit(-1, ""), "group_id": "simple"})

        async def listed(**filters: Any) -> dict[str, tuple[str, str]]:
            groups = (await ask(broker, 16, 5, **filters)).groups
            return {each.group_id: (each.group_type, each.group_state) for each in groups}

        modern, simple = ("consumer", "Stable"), ("classic", "Empty")
        assert await listed() == {"g": modern, "simple": simple}
        assert await listed(types_filter=("Consumer",)) == {"g": modern}
        assert await listed(types_filter=("classic",)) == {"simple": simple}
        assert await listed(states_filter=("stable",)) == {"g": modern}

        described, missing = (await ask(broker, 69, 1, group_ids=("g", "simple"))).groups
        assert missing.error_code == NO_GROUP
        assert (described.group_state, described.assignor_name) == ("Stable", "uniform")
        assert (described.group_epoch, described.assignment_epoch) == (1, 1)
        (member,) = described.members
        assert (member.member_id, member.instance_id, member.rack_id) == ("m", "i", "r")
        assert (member.subscribed_topic_names, member.subscribed_topic_regex) == (("t",), "t|u")
        assert (member.client_id, member.client_host) == ("tests", "/test")
        assert (member.member_epoch, member.member_type) == (1, 1)
        assert member.assignment == member.target_assignment
        assert [each.topic_name for each in member.assignment.topic_partitions] == ["t"]
        (old,) = (await ask(broker, 15, 6, groups=("g",))).groups
        assert (old.error_code, old.group_state) == (NO_GROUP, "Dead")
        (old,) = (await ask(broker, 15, 5, groups=("g",))).groups
        assert (old.error_code, old.group_state) == (0, "Dead")

    with_broker(body)


def test_groups_of_both_protocols_are_described_when_there_is_room() -> None:
    assert {15, 69} <= LARGE_ANSWERS


def test_who_may_take_part_and_see() -> None:
    async def test(it: Access) -> None:
        async def beat(**changes: Any) -> Any:
            return await it.ask(68, 1, **{**JOINING, "subscribed_topic_names": (), **changes})

        both = {"subscribed_topic_regex": "mine|other"}
        it.allow((Operation.DESCRIBE, GROUP, "g"))
        assert (await beat(**both)).error_code == G
        read, see = (Operation.READ, GROUP, "g"), (Operation.DESCRIBE, TOPIC, "mine")
        it.allow(read, see)
        assert (await beat(subscribed_topic_names=("other",))).error_code == T
        answer = await beat(**both)  # a pattern finds what she may see
        (given,) = answer.assignment.topic_partitions
        assert given.topic_id == id_of(it.broker, "mine")
        (shown,) = (await it.ask(69, 1, group_ids=("g",))).groups
        assert (shown.error_code, len(shown.members)) == (0, 1)
        it.allow(read)
        (hidden,) = (await it.ask(69, 1, group_ids=("g",))).groups
        assert (hidden.error_code, hidden.members) == (T, ())
        it.allow()
        (hidden,) = (await it.ask(69, 1, group_ids=("g",))).groups
        assert hidden.error_code == G

    access(test)
