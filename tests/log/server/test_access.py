"""What each API answers to who may not ask it, and to who may: the guards, request by request.

No network: requests go to the handlers as those of a principal, over an authorizer with rules.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from millstream.log import open_log
from millstream.log.broker.broker import Broker
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.format.codec import encode_batch
from millstream.log.record import OffsetAndMetadata, TopicPartition
from millstream.log.security.acl import (
    CLUSTER_NAME,
    Acl,
    Operation,
    Pattern,
    Permission,
    Resource,
    operation_bits,
)
from millstream.log.security.authorizer import Authorizer
from millstream.log.server.dispatch import apis, call_of, respond
from millstream.log.server.guards.rights import guarded, guards
from millstream.log.server.handler import Context, HangUpError, Identity, Peer
from shared.asking import request_frame, response_of

TOPIC, GROUP, CLUSTER, TXN = (
    Resource.TOPIC,
    Resource.GROUP,
    Resource.CLUSTER,
    Resource.TRANSACTIONAL_ID,
)
T, G, C, X = 29, 30, 31, 53
ANNA = "User:anna"
SECOND = dt.timedelta(seconds=1)


class Access:
    """A log with the topics `mine` and `other`, and what anna may do."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._authorizer = Authorizer(["User:root"], allow_if_no_acl=False)

    def allow(self, *rights: tuple[Operation, Resource, str]) -> None:
        """She may do these and nothing else."""
        self._authorizer.set_acls(
            Acl(resource, name, Pattern.LITERAL, ANNA, "*", operation, Permission.ALLOW)
            for operation, resource, name in rights
        )

    def _context(self, principal: str, key: int, version: int) -> Context:
        peer = Peer("10.0.0.1", self._authorizer)
        peer.principal = principal
        identity = Identity("cluster", "localhost", 9092)
        return Context(self.broker, identity, peer, "tests", key, version)

    async def fields(self, key: int, version: int, /, **values: Any) -> Any:
        """The answer before it is encoded."""
        call = call_of(request_frame(key, version, **values))
        return await guarded(call.handler, call.request, self._context(ANNA, key, version))

    async def ask(self, key: int, version: int, /, *, as_: str = ANNA, **values: Any) -> Any:
        call = call_of(request_frame(key, version, **values))
        buffers = await respond(call, self._context(as_, key, version))
        assert buffers is not None
        return response_of(key, version, b"".join(buffers)[4:])


def access(test: Callable[[Access], Awaitable[None]]) -> None:
    async def main() -> None:
        async with open_log("memory:", config={"auto.create.topics.enable": "true"}) as log:
            assert isinstance(log, EmbeddedLog)
            for name in ("mine", "other"):
                await log.create_topic(name)
                await log.alter_group_offsets(
                    f"group-of-{name}", {TopicPartition(name, 0): OffsetAndMetadata(0, "")}
                )
            async with log.serve("127.0.0.1:0") as server:
                await test(Access(server.broker))

    asyncio.run(asyncio.wait_for(main(), 60))


def batch() -> bytes:
    return encode_batch(None, [b"value"], [0], None, 0, 1)


def codes(entries: Any, name: str, inner: str = "", code: str = "error_code") -> dict[Any, int]:
    """Error codes by name; those of the first of `inner`, where there is one."""
    return {
        getattr(each, name): int(getattr(getattr(each, inner)[0] if inner else each, code))
        for each in entries
    }


def on_topics(field: str = "partition", **values: Any) -> list[dict[str, Any]]:
    return [{"name": name, "partitions": [{field: 0, **values}]} for name in ("mine", "other")]


def test_every_api_has_a_guard() -> None:
    assert apis().keys() - guards().keys() == set()


def test_an_api_without_a_guard_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(guards(), 60)

    async def test(it: Access) -> None:
        assert (await it.ask(60, 0)).error_code == C
        assert (await it.ask(60, 0, as_="User:root")).error_code == C

    access(test)


# Topics

PRODUCED = [
    {"name": name, "partition_data": [{"index": 0, "records": batch()}]}
    for name in ("mine", "other")
]
FETCHED = [
    {
        "topic": name,
        "partitions": [
            {"partition": 0, "partition_max_bytes": 1 << 20, "current_leader_epoch": -1}
        ],
    }
    for name in ("mine", "other")
]
BY_TOPIC: list[tuple[int, int, Operation, dict[str, Any], tuple[str, str, str]]] = [
    (0, 9, Operation.WRITE, {"acks": -1, "timeout": SECOND, "topic_data": PRODUCED},
     ("responses", "name", "partition_responses")),
    (1, 12, Operation.READ, {"topics": FETCHED, "max_wait": SECOND * 0, "max_bytes": 1 << 20},
     ("responses", "topic", "partitions")),
    (2, 7, Operation.DESCRIBE,
     {"topics": on_topics("partition_index", timestamp=-1, current_leader_epoch=-1)},
     ("topics", "name", "partitions")),
    (3, 9, Operation.DESCRIBE, {"topics": [{"name": "mine"}, {"name": "other"}]},
     ("topics", "name", "")),
    (20, 5, Operation.DELETE, {"topic_names": ("mine", "other")}, ("responses", "name", "")),
    (20, 6, Operation.DELETE, {"topics": [{"name": "mine"}, {"name": "other"}]},
     ("responses", "name", "")),
    (21, 2, Operation.DELETE, {"topics": on_topics("partition_index", offset=0)},
     ("topics", "name", "partitions")),
    (23, 4, Operation.DESCRIBE, {"topics": [{"topic": name, "partitions": [
        {"partition": 0, "current_leader_epoch": -1, "leader_epoch": 0}]}
        for name in ("mine", "other")]}, ("topics", "topic", "partitions")),
    (37, 3, Operation.ALTER, {"topics": [{"name": name, "count": 2, "assignments": None}
        for name in ("mine", "other")]}, ("results", "name", "")),
    (61, 0, Operation.READ, {"topics": [{"name": name, "partition_indexes": (0,)}
        for name in ("mine", "other")]}, ("topics", "name", "partitions")),
    (75, 0, Operation.DESCRIBE, {"topics": [{"name": "mine"}, {"name": "other"}],
        "response_partition_limit": 100}, ("topics", "name", "")),
]  # fmt: skip


@pytest.mark.parametrize(("key", "version", "operation", "request_", "where"), BY_TOPIC)
def test_apis_of_topics(
    key: int, version: int, operation: Operation, request_: dict[str, Any], where: tuple[str, ...]
) -> None:
    field, name, inner = where

    async def test(it: Access) -> None:
        wrong = Operation.WRITE if operation is Operation.READ else Operation.CREATE
        for rights, expected in (
            ([], {"mine": T, "other": T}),
            ([(wrong, TOPIC, "mine")], {"mine": T, "other": T}),
            ([(operation, TOPIC, "mine")], {"mine": 0, "other": T}),
        ):
            it.allow(*rights)
            answer = await it.ask(key, version, **request_)
            found = codes(getattr(answer, field), name, inner, "error_code")
            assert found == expected
        if key not in (20, 37):  # what is done is done
            answer = await it.ask(key, version, as_="User:root", **request_)
            assert set(codes(getattr(answer, field), name, inner).values()) == {0}

    access(test)


def test_produce_without_acknowledgement_ends_the_connection() -> None:
    async def test(it: Access) -> None:
        it.allow((Operation.WRITE, TOPIC, "mine"))
        with pytest.raises(HangUpError):
            await it.ask(0, 9, acks=0, timeout=SECOND, topic_data=PRODUCED)

    access(test)


def test_produce_under_a_transactional_id() -> None:
    async def test(it: Access) -> None:
        it.allow((Operation.WRITE, TOPIC, "mine"))
        answer = await it.ask(
            0, 9, acks=-1, timeout=SECOND, transactional_id="t", topic_data=PRODUCED
        )
        assert codes(answer.responses, "name", "partition_responses") == {"mine": X, "other": X}

    access(test)


def test_names_and_ids_together_do_not_pass_by_the_rules() -> None:
    """Metadata 10 and 11 may have both and mean the name, DeleteTopics and later ones the id."""

    async def test(it: Access) -> None:
        it.allow((Operation.ALL, TOPIC, "mine"))
        ids = {name: it.broker.partitions.topic(name).topic_id for name in ("mine", "other")}
        for version in (10, 12):
            for name, topic_id in (("other", ids["mine"]), ("mine", ids["other"])):
                (topic,) = (
                    await it.ask(3, version, topics=[{"name": name, "topic_id": _uuid(topic_id)}])
                ).topics
                assert int(topic.error_code) == T
                assert topic.partitions == ()
        (topic,) = (
            await it.ask(3, 12, topics=[{"name": None, "topic_id": _uuid(ids["other"])}])
        ).topics
        assert (int(topic.error_code), topic.name) == (100, None)
        (topic,) = (
            await it.ask(20, 6, topics=[{"name": None, "topic_id": _uuid(ids["other"])}])
        ).responses
        assert (int(topic.error_code), topic.name) == (T, None)
        it.allow((Operation.DESCRIBE, TOPIC, "other"))
        (topic,) = (
            await it.ask(20, 6, topics=[{"name": None, "topic_id": _uuid(ids["other"])}])
        ).responses
        assert int(topic.error_code) == T
        assert "other" in it.broker.partitions.topics()

    access(test)


def test_names_are_not_needed_to_be_refused() -> None:
    """From these versions on a topic is named by its id alone."""

    async def test(it: Access) -> None:
        ids = {name: _uuid(it.broker.partitions.topic(name).topic_id) for name in ("mine", "other")}
        produced = [
            {"topic_id": each, "partition_data": [{"index": 0, "records": batch()}]}
            for each in ids.values()
        ]
        fetched = [
            {"topic_id": topic_id, "partitions": topic["partitions"]}
            for topic_id, topic in zip(ids.values(), FETCHED, strict=True)
        ]
        for right, (key, version, inner), asked in (
            (Operation.WRITE, (0, 13, "partition_responses"),
             {"acks": -1, "timeout": SECOND, "topic_data": produced}),
            (Operation.READ, (1, 16, "partitions"),
             {"topics": fetched, "max_wait": SECOND * 0, "max_bytes": 1 << 20}),
        ):  # fmt: skip
            it.allow((right, TOPIC, "mine"))
            answer = await it.ask(key, version, **asked)
            found = codes(answer.responses, "topic_id", inner)
            assert found == {ids["mine"]: 0, ids["other"]: T}

    access(test)


def _uuid(topic_id: str) -> uuid.UUID:
    return uuid.UUID(bytes=base64.urlsafe_b64decode(topic_id + "=="))


def test_topics_one_may_not_see_are_left_out() -> None:
    async def test(it: Access) -> None:
        it.allow((Operation.READ, TOPIC, "mine"))
        for version in (0, 1, 12):
            wanted = {"topics": () if version == 0 else None}
            answer = await it.ask(3, version, **wanted)
            assert [each.name for each in answer.topics] == ["mine"]
        it.allow()
        assert (await it.ask(3, 0, topics=[{"name": "mine"}])).topics[0].error_code == T
        assert (await it.ask(3, 12, topics=None)).topics == ()
        for topics in ([], [{"name": "mine"}]):
            answer = await it.ask(75, 0, topics=topics, response_partition_limit=10)
            assert [int(each.error_code) for each in answer.topics] == [T] * len(topics)
        it.allow((Operation.READ, TOPIC, "mine"))
        answer = await it.ask(75, 0, topics=[], response_partition_limit=10)
        assert [each.name for each in answer.topics] == ["mine"]

    access(test)


def test_who_may_not_create_topics_creates_none_by_asking() -> None:
    async def test(it: Access) -> None:
        asked = {"topics": [{"name": "new"}], "allow_auto_topic_creation": True}
        it.allow((Operation.DESCRIBE, TOPIC, "new"))
        assert codes((await it.ask(3, 9, **asked)).topics, "name") == {"new": T}
        assert "new" not in it.broker.partitions.topics()
        it.allow((Operation.DESCRIBE, TOPIC, "new"), (Operation.CREATE, TOPIC, "new"))
        assert codes((await it.ask(3, 9, **asked)).topics, "name") == {"new": 0}
        it.allow((Operation.DESCRIBE, TOPIC, "n"), (Operation.CREATE, CLUSTER, CLUSTER_NAME))
        answer = await it.ask(3, 9, topics=[{"name": "n"}], allow_auto_topic_creation=True)
        assert codes(answer.topics, "name") == {"n": 0}

    access(test)


@pytest.mark.parametrize("right", [(TOPIC, "a"), (CLUSTER, CLUSTER_NAME)])
def test_creating_topics(right: tuple[Resource, str]) -> None:
    async def test(it: Access) -> None:
        asked = {
            "topics": [
                {"name": name, "num_partitions": 1, "replication_factor": 1} for name in "ab"
            ]
        }
        assert codes((await it.ask(19, 7, **asked)).topics, "name") == {"a": T, "b": T}
        it.allow((Operation.CREATE, *right))
        answer = await it.ask(19, 7, **asked)
        assert codes(answer.topics, "name") == {"a": 0, "b": T if right[0] is TOPIC else 0}
        topic = answer.topics[0]
        assert (int(topic.topic_config_error_code), topic.num_partitions) == (T, -1)
        assert topic.configs is None

    access(test)


# Groups

JOINED = {
    "session_timeout": SECOND * 30, "rebalance_timeout": SECOND * 30, "protocol_type": "consumer",
    "protocols": [{"name": "range", "metadata": b""}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "version", "request_"),
    [(11, 5, JOINED), (12, 3, {}), (13, 4, {}), (13, 2, {}), (14, 4, {})],
)
def test_taking_part_in_a_group(key: int, version: int, request_: dict[str, Any]) -> None:
    async def test(it: Access) -> None:
        it.allow((Operation.DESCRIBE, GROUP, "g"), (Operation.READ, GROUP, "other"))
        assert (await it.ask(key, version, group_id="g", **request_)).error_code == G
        it.allow((Operation.READ, GROUP, "g"))
        assert (await it.ask(key, version, group_id="g", **request_)).error_code != G

    access(test)


def test_groups_from_outside() -> None:
    async def test(it: Access) -> None:
        mine, other = "group-of-mine", "group-of-other"
        it.allow((Operation.DESCRIBE, GROUP, mine))
        assert [each.group_id for each in (await it.ask(16, 3)).groups] == [mine]
        answer = await it.ask(15, 4, groups=(mine, other), include_authorized_operations=True)
        assert codes(answer.groups, "group_id") == {mine: 0, other: G}
        assert answer.groups[0].authorized_operations == 1 << Operation.DESCRIBE
        answer = await it.ask(42, 2, groups_names=(mine, other))
        assert codes(answer.results, "group_id") == {mine: G, other: G}
        it.allow((Operation.DELETE, GROUP, mine))
        answer = await it.ask(42, 2, groups_names=(mine, other))
        assert codes(answer.results, "group_id") == {mine: 0, other: G}
        it.allow((Operation.DESCRIBE, CLUSTER, CLUSTER_NAME))
        assert [each.group_id for each in (await it.ask(16, 3)).groups] == [other]

    access(test)


def test_committing_offsets() -> None:
    async def test(it: Access) -> None:
        asked = {
            "group_id": "g", "generation_id_or_member_epoch": -1,
            "topics": on_topics("partition_index", committed_offset=0, committed_metadata=""),
        }  # fmt: skip
        for rights, expected in (
            ([(Operation.READ, TOPIC, "mine")], {"mine": G, "other": G}),
            ([(Operation.READ, GROUP, "g")], {"mine": T, "other": T}),
            ([(Operation.READ, GROUP, "g"), (Operation.READ, TOPIC, "mine")],
             {"mine": 0, "other": T}),
        ):  # fmt: skip
            it.allow(*rights)
            answer = await it.ask(8, 8, **asked)
            assert codes(answer.topics, "name", "partitions") == expected

    access(test)


@pytest.mark.parametrize("version", [1, 7, 8])
def test_fetching_offsets(version: int) -> None:
    def groups(topics: Any) -> dict[str, Any]:
        one = {"group_id": "group-of-mine", "topics": topics}
        return one if version < 8 else {"groups": [one]}

    def of_group(answer: Any) -> tuple[int, dict[str, int]]:
        one = answer if version < 8 else answer.groups[0]
        return int(getattr(one, "error_code", 0)), codes(one.topics, "name", "partitions")

    async def test(it: Access) -> None:
        topics = [{"name": name, "partition_indexes": (0,)} for name in ("mine", "other")]
        it.allow((Operation.READ, TOPIC, "mine"))
        code, found = of_group(await it.ask(9, version, **groups(topics)))
        assert (code, found) == (0 if version == 1 else G, {"mine": G, "other": G})
        it.allow((Operation.DESCRIBE, GROUP, "group-of-mine"), (Operation.READ, TOPIC, "mine"))
        answer = await it.ask(9, version, **groups(topics))
        assert of_group(answer) == (0, {"mine": 0, "other": T})
        if version > 1:
            assert of_group(await it.ask(9, version, **groups(None))) == (0, {"mine": 0})
            it.allow((Operation.DESCRIBE, GROUP, "group-of-mine"))
            assert of_group(await it.ask(9, version, **groups(None))) == (0, {})

    access(test)


def test_deleting_offsets() -> None:
    async def test(it: Access) -> None:
        asked = {"group_id": "group-of-mine", "topics": on_topics("partition_index")}
        it.allow((Operation.READ, GROUP, "group-of-mine"), (Operation.READ, TOPIC, "mine"))
        assert (await it.ask(47, 0, **asked)).error_code == G
        it.allow((Operation.DELETE, GROUP, "group-of-mine"), (Operation.READ, TOPIC, "mine"))
        answer = await it.ask(47, 0, **asked)
        assert codes(answer.topics, "name", "partitions") == {"mine": 0, "other": T}

    access(test)


def test_finding_coordinators() -> None:
    async def test(it: Access) -> None:
        for key_type, resource, code in ((0, GROUP, G), (1, TXN, X)):
            it.allow((Operation.DESCRIBE, resource, "a"))
            answer = await it.ask(10, 4, key_type=key_type, coordinator_keys=("a", "b"))
            assert codes(answer.coordinators, "key") == {"a": 0, "b": code}
            for name, expected in (("a", 0), ("b", code)):
                answer = await it.ask(10, 2, key_type=key_type, key=name)
                assert int(answer.error_code) == expected

    access(test)


# Transactions


def test_producer_ids() -> None:
    async def test(it: Access) -> None:
        async def init(name: str | None) -> int:
            answer = await it.ask(
                22, 4, transactional_id=name, transaction_timeout=SECOND * 10, producer_id=-1,
                producer_epoch=-1,
            )  # fmt: skip
            assert (answer.producer_id >= 0) is (answer.error_code == 0)
            return int(answer.error_code)

        assert (await init("t"), await init(None)) == (X, C)
        it.allow((Operation.WRITE, TXN, "t"))
        assert (await init("t"), await init("u"), await init(None)) == (0, X, C)
        it.allow((Operation.WRITE, TOPIC, "mine"))
        assert (await init("t"), await init(None)) == (X, 0)
        it.allow((Operation.IDEMPOTENT_WRITE, CLUSTER, CLUSTER_NAME))
        assert await init(None) == 0

    access(test)


def test_transactions() -> None:
    async def test(it: Access) -> None:
        write = (Operation.WRITE, TXN, "t")
        it.allow(write)
        producer = await it.ask(
            22, 4, transactional_id="t", transaction_timeout=SECOND * 10, producer_id=-1,
            producer_epoch=-1,
        )  # fmt: skip
        whose = {"producer_id": producer.producer_id, "producer_epoch": producer.producer_epoch}
        added = {
            "v3_and_below_transactional_id": "t",
            **{f"v3_and_below_{name}": value for name, value in whose.items()},
            "v3_and_below_topics": [
                {"name": name, "partitions": (0,)} for name in ("mine", "other")
            ],
        }
        read_mine, write_mine = (Operation.READ, TOPIC, "mine"), (Operation.WRITE, TOPIC, "mine")
        for rights, expected in (
            ([write_mine], {"mine": X, "other": X}),
            ([write, write_mine], {"mine": 55, "other": T}),
            ([write, write_mine, (Operation.WRITE, TOPIC, "other")], {"mine": 0, "other": 0}),
        ):
            it.allow(*rights)
            answer = await it.ask(24, 3, **added)
            found = codes(
                answer.results_by_topic_v3_and_below, "name", "results_by_partition",
                "partition_error_code",
            )  # fmt: skip
            assert found == expected
        offsets = {"transactional_id": "t", "group_id": "g", **whose}
        committed = on_topics("partition_index", committed_offset=0, committed_metadata="")
        group = (Operation.READ, GROUP, "g")
        for rights, add_code, commit_codes in (
            ([group, read_mine], X, {"mine": X, "other": X}),
            ([write, read_mine], G, {"mine": G, "other": G}),
            ([write, group, read_mine], 0, {"mine": 0, "other": T}),
        ):
            it.allow(*rights)
            assert (await it.ask(25, 3, **offsets)).error_code == add_code
            answer = await it.ask(28, 3, **offsets, generation_id=-1, topics=committed)
            assert codes(answer.topics, "name", "partitions") == commit_codes
        it.allow((Operation.DESCRIBE, TXN, "t"))
        assert (await it.ask(26, 3, transactional_id="t", **whose)).error_code == X
        it.allow(write)
        ended = await it.ask(26, 3, transactional_id="t", **whose, committed=True)
        assert ended.error_code == 0

    access(test)


def test_transactions_from_outside() -> None:
    async def test(it: Access) -> None:
        for name in ("t", "u"):
            await it.ask(
                22, 4, as_="User:root", transactional_id=name, transaction_timeout=SECOND * 10,
                producer_id=-1, producer_epoch=-1,
            )  # fmt: skip
        it.allow((Operation.DESCRIBE, TXN, "t"))
        answer = await it.fields(65, 0, transactional_ids=("t", "u"))  # kio reads no start of -1
        told = [
            (each["transactional_id"], each.get("error_code", 0))
            for each in answer["transaction_states"]
        ]
        assert told == [("t", 0), ("u", X)]
        listed = await it.ask(66, 0)
        assert [each.transactional_id for each in listed.transaction_states] == ["t"]

    access(test)


# The cluster


@pytest.mark.parametrize(
    ("key", "version", "operation", "request_"),
    [
        (29, 2, Operation.DESCRIBE, {"resource_type_filter": 1, "resource_name_filter": None,
            "pattern_type_filter": 1, "operation": 1, "permission_type": 1}),
        (35, 4, Operation.DESCRIBE, {"topics": None}),
        (43, 2, Operation.ALTER, {"topic_partitions": None}),
        (46, 0, Operation.DESCRIBE, {"topics": None}),
        (48, 1, Operation.DESCRIBE_CONFIGS, {"components": ()}),
        (50, 0, Operation.DESCRIBE, {"users": None}),
    ],
)  # fmt: skip
def test_apis_of_the_cluster(
    key: int, version: int, operation: Operation, request_: dict[str, Any]
) -> None:
    async def test(it: Access) -> None:
        it.allow((Operation.CREATE, CLUSTER, CLUSTER_NAME))
        assert (await it.ask(key, version, **request_)).error_code == C
        it.allow((operation, CLUSTER, CLUSTER_NAME))
        assert (await it.ask(key, version, **request_)).error_code == 0

    access(test)


def rule(name: str = "mine", **values: Any) -> dict[str, Any]:
    return {
        "resource_type": 2, "resource_name": name, "resource_pattern_type": 3, "principal": ANNA,
        "host": "*", "operation": 3, "permission_type": 3, **values,
    }  # fmt: skip


EVERY_RULE = {
    "resource_type_filter": 1, "resource_name_filter": None, "pattern_type_filter": 1,
    "principal_filter": None, "host_filter": None, "operation": 1, "permission_type": 1,
}  # fmt: skip


def test_changing_rules_and_users_is_for_who_may_alter_the_cluster() -> None:
    async def test(it: Access) -> None:
        it.allow((Operation.DESCRIBE, CLUSTER, CLUSTER_NAME))
        user = {"name": "anna", "mechanism": 1, "iterations": 4096, "salt": b"s"}
        upsertion = [{**user, "salted_password": bytes(32)}]

        async def ask() -> list[int]:
            created = await it.ask(30, 2, creations=[rule()])
            deleted = await it.ask(31, 2, filters=[EVERY_RULE])
            altered = await it.ask(51, 0, deletions=(), upsertions=upsertion)
            found = (created.results[0], deleted.filter_results[0], altered.results[0])
            return [int(each.error_code) for each in found]

        assert await ask() == [C, C, C]
        assert it.broker.security().users == {}
        it.allow((Operation.ALTER, CLUSTER, CLUSTER_NAME))
        assert await ask() == [0, 0, 0]
        assert list(it.broker.security().users) == ["anna"]

    access(test)


def test_settings() -> None:
    async def test(it: Access) -> None:
        resources = [
            {"resource_type": 2, "resource_name": "mine"},
            {"resource_type": 2, "resource_name": "other"},
            {"resource_type": 4, "resource_name": "0"},
        ]
        for rights, expected in (
            ([], {"mine": T, "other": T, "0": C}),
            ([(Operation.DESCRIBE_CONFIGS, TOPIC, "mine")], {"mine": 0, "other": T, "0": C}),
            ([(Operation.DESCRIBE_CONFIGS, CLUSTER, CLUSTER_NAME)],
             {"mine": T, "other": T, "0": 0}),
        ):  # fmt: skip
            it.allow(*rights)
            answer = await it.ask(
                32, 4, resources=[{**each, "configuration_keys": None} for each in resources]
            )
            assert codes(answer.results, "resource_name") == expected
        it.allow((Operation.ALTER_CONFIGS, TOPIC, "mine"))
        for key, version in ((33, 2), (44, 1)):
            answer = await it.ask(key, version, resources=resources)
            assert codes(answer.responses, "resource_name") == {"mine": 0, "other": T, "0": C}

    access(test)


def test_what_is_told_of_ones_rights() -> None:
    async def test(it: Access) -> None:
        it.allow((Operation.READ, TOPIC, "mine"), (Operation.ALTER, CLUSTER, CLUSTER_NAME))
        answer = await it.ask(
            3, 9, topics=[{"name": "mine"}, {"name": "other"}],
            include_topic_authorized_operations=True, include_cluster_authorized_operations=True,
        )  # fmt: skip
        found = {each.name: each.topic_authorized_operations for each in answer.topics}
        assert found == {
            "mine": 1 << Operation.READ | 1 << Operation.DESCRIBE, "other": -(1 << 31)
        }  # fmt: skip
        cluster = 1 << Operation.ALTER | 1 << Operation.DESCRIBE
        assert answer.cluster_authorized_operations == cluster
        answer = await it.ask(60, 0, include_cluster_authorized_operations=True)
        assert answer.cluster_authorized_operations == cluster
        answer = await it.ask(
            3, 9, as_="User:root", topics=None, include_topic_authorized_operations=True
        )
        assert {each.topic_authorized_operations for each in answer.topics} == {
            operation_bits(Resource.TOPIC)
        }

    access(test)


# The rules themselves, as their handlers keep them


def test_rules_are_made_found_and_deleted() -> None:
    async def test(it: Access) -> None:
        root = {"as_": "User:root"}
        creations = [
            rule(), rule("m", resource_pattern_type=4, operation=4), rule("*", permission_type=2),
            rule("g", resource_type=3), rule(CLUSTER_NAME, resource_type=4, operation=7),
            rule("t", resource_type=5, operation=2),
        ]  # fmt: skip
        created = await it.ask(30, 3, **root, creations=creations)
        assert [int(each.error_code) for each in created.results] == [0] * len(creations)

        async def names(**wanted: Any) -> set[str]:
            answer = await it.ask(29, 3, **root, **(EVERY_RULE | wanted))
            assert answer.error_code == 0
            return {each.resource_name for each in answer.resources}

        assert await names() == {"mine", "m", "*", "g", CLUSTER_NAME, "t"}
        assert await names(resource_type_filter=2) == {"mine", "m", "*"}
        mine = {"resource_type_filter": 2, "resource_name_filter": "mine"}
        assert await names(**mine) == {"mine"}
        assert await names(**mine, pattern_type_filter=2) == {"mine", "m", "*"}
        assert await names(**mine, pattern_type_filter=4) == set()
        assert await names(permission_type=2) == {"*"}
        assert await names(operation=4) == {"m"}
        assert await names(principal_filter="User:bert") == set()
        deleted = await it.ask(
            31, 3, **root, filters=[EVERY_RULE | mine, EVERY_RULE | {"operation": 99}]
        )
        gone, wrong = deleted.filter_results
        assert [each.resource_name for each in gone.matching_acls] == ["mine"]
        assert (int(wrong.error_code), wrong.matching_acls) == (42, ())
        assert await names() == {"m", "*", "g", CLUSTER_NAME, "t"}

    access(test)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resource_type": 1}, {"resource_type": 77}, {"resource_name": ""}, {"operation": 1},
        {"operation": 12}, {"resource_pattern_type": 2}, {"permission_type": 1}, {"host": ""},
        {"principal": "anna"}, {"principal": "User:"}, {"resource_type": 4, "operation": 7},
    ],
)  # fmt: skip
def test_what_can_be_no_rule(wrong: dict[str, Any]) -> None:
    async def test(it: Access) -> None:
        answer = await it.ask(30, 3, as_="User:root", creations=[rule(**wrong), rule("good")])
        assert [int(each.error_code) for each in answer.results] == [42, 0]
        assert [each.name for each in it.broker.security().acls] == ["good"]

    access(test)


def test_users_are_made_and_described() -> None:
    async def test(it: Access) -> None:
        root = {"as_": "User:root"}

        def user(name: str, mechanism: int = 1, **values: Any) -> dict[str, Any]:
            size = 32 if mechanism == 1 else 64
            return {
                "name": name, "mechanism": mechanism, "iterations": 4096, "salt": b"s",
                "salted_password": bytes(size), **values,
            }  # fmt: skip

        altered = await it.ask(
            51, 0, **root,
            deletions=[{"name": "nobody", "mechanism": 1}],
            upsertions=[
                user("anna"), user("anna", 2), user("bert", iterations=4095), user(""),
                user("carl", 3), user("dora"), user("dora"), user("emil", iterations=16385),
                user("fred", salted_password=b"short"),
            ],
        )  # fmt: skip
        assert codes(altered.results, "user") == {
            "nobody": 91, "anna": 0, "bert": 93, "": 93, "carl": 33, "dora": 92, "emil": 93,
            "fred": 93,
        }  # fmt: skip
        (anna,) = (await it.ask(50, 0, **root, users=None)).results
        assert anna.user == "anna"
        assert [(each.mechanism, each.iterations) for each in anna.credential_infos] == [
            (1, 4096), (2, 4096),
        ]  # fmt: skip
        named = [{"name": name} for name in ("anna", "bert", "bert")]
        answer = await it.ask(50, 0, **root, users=named)
        assert codes(answer.results, "user") == {"anna": 0, "bert": 92}
        answer = await it.ask(50, 0, **root, users=[{"name": "bert"}])
        assert codes(answer.results, "user") == {"bert": 91}
        altered = await it.ask(
            51, 0, **root, deletions=[{"name": "anna", "mechanism": 1}], upsertions=()
        )
        assert codes(altered.results, "user") == {"anna": 0}
        assert list(it.broker.security().users["anna"]) == ["SCRAM-SHA-512"]

    access(test)
