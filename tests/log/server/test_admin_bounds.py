"""Admin requests that name very much, and topics that change while one is answered."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from log.server.test_access import TOPIC, Access, T, access
from log.server.test_admin_handlers import (
    ALTER,
    CREATE,
    DELETE,
    DESCRIBE,
    INCREMENTAL,
    new,
    resource,
    uuid_of,
    with_broker,
)
from millstream.log.broker.broker import Broker
from millstream.log.security.acl import Operation
from millstream.log.server.dispatch import apis, call_of
from millstream.log.server.guards import cluster
from millstream.log.server.handler import Context, Fields, Identity, Peer
from shared.asking import ask, request_frame

ALTER_USERS = 51
UNKNOWN_ID, TOO_MANY = 100, 44


def context(broker: Broker, key: int, version: int) -> Context:
    return Context(broker, Identity("cluster", "localhost", 9092), Peer("test"), "t", key, version)


class Named:
    """The deletion of a user, that counts how often it was looked at."""

    mechanism = 1
    looks = 0

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        Named.looks += 1
        return self._name


def test_many_users_of_one_request_are_looked_at_a_few_times_each() -> None:
    async def body(broker: Broker) -> None:
        Named.looks = 0
        entries = tuple(Named(f"user{number}") for number in range(300))
        request = SimpleNamespace(deletions=entries, upsertions=())
        answer = await apis()[ALTER_USERS].handle(request, context(broker, ALTER_USERS, 0))
        assert answer is not None
        assert [each["error_code"] for each in answer["results"]] == [91] * 300
        assert Named.looks < 300 * 20

    with_broker(body)


def test_many_settings_that_are_refused_are_put_together_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    joined: list[int] = []
    real = cluster.joined

    def noted(answer: Fields, field: str, more: Any) -> Fields:
        found = real(answer, field, more)
        joined.append(len(found[field]))
        return found

    monkeypatch.setattr(cluster, "joined", noted)

    async def test(it: Access) -> None:
        it.allow((Operation.DESCRIBE_CONFIGS, TOPIC, "mine"))
        names = ["mine", *(f"t{number}" for number in range(50))]
        asked = [
            {"resource_type": 2, "resource_name": name, "configuration_keys": None}
            for name in names
        ]
        answer = await it.ask(DESCRIBE, 4, resources=asked)
        found = {each.resource_name: each.error_code for each in answer.results}
        assert found == dict.fromkeys(names, T) | {"mine": 0}
        assert joined == [len(names)]

    access(test)


def test_others_are_served_while_many_topics_are_checked() -> None:
    async def body(broker: Broker) -> None:
        call = call_of(
            request_frame(CREATE, 7, topics=[new(f"t{i}") for i in range(20)], validate_only=True)
        )
        task = asyncio.ensure_future(call.handler.handle(call.request, context(broker, CREATE, 7)))
        turns = 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 20
        answer = task.result()
        assert answer is not None
        assert [each.get("error_code", 0) for each in answer["topics"]] == [0] * 20

    with_broker(body)


def test_a_request_creates_no_more_partitions_than_in_kafka() -> None:
    async def body(broker: Broker) -> None:
        many = [new("a", 5000), new("b", 4999), new("c", -1)]
        for topics, code in ((many, 0), ([*many, new("d")], TOO_MANY)):
            answer = await ask(broker, CREATE, 7, topics=topics, validate_only=True)
            assert [each.error_code for each in answer.topics] == [code] * len(topics)
            assert all("10000" in each.error_message for each in answer.topics if code)

    with_broker(body)


def test_an_id_does_not_delete_another_topic_of_its_name() -> None:
    """It is deleted and made again, by another client, amid the request."""

    async def body(broker: Broker) -> None:
        ids = [uuid_of((await broker.create_topic(name, 1)).topic_id) for name in ("a", "b")]
        others: list[asyncio.Task[Any]] = []

        def replace() -> None:
            if not others:
                others.append(asyncio.ensure_future(broker.partitions.delete_topic("b")))
                others.append(asyncio.ensure_future(broker.create_topic("b", 3)))

        broker.partitions.on_topics_changed.add(replace)
        topics = [{"name": None, "topic_id": each} for each in ids]
        answer = await ask(broker, DELETE, 6, topics=topics)
        await asyncio.gather(*others)
        assert broker.partitions.topic("b").partitions == 3
        assert [each.error_code for each in answer.responses] == [0, UNKNOWN_ID]

    with_broker(body)


def test_a_topic_that_is_deleted_amid_metadata_is_not_made_again() -> None:
    """By who may describe it, and make others."""

    async def test(it: Access) -> None:
        made = [
            (right, TOPIC, f"t{n}")
            for right in (Operation.CREATE, Operation.DESCRIBE)
            for n in range(2)
        ]
        it.allow((Operation.DESCRIBE, TOPIC, "mine"), *made)
        deletions: list[asyncio.Task[None]] = []

        def delete() -> None:
            if not deletions:
                deletions.append(asyncio.ensure_future(it.broker.delete_topic("mine")))

        it.broker.partitions.on_topics_changed.add(delete)
        names = [{"name": name} for name in ("t0", "t1", "mine")]
        answer = await it.ask(3, 9, topics=names, allow_auto_topic_creation=True)
        await asyncio.gather(*deletions)
        assert {each.name: each.error_code for each in answer.topics} == {
            "t0": 0,
            "t1": 0,
            "mine": 3,
        }
        assert not it.broker.partitions.has_topic("mine")

    access(test)


def test_changes_of_settings_at_once_are_one_after_another() -> None:
    async def body(broker: Broker) -> None:
        await broker.create_topic("t", 1, {"cleanup.policy": ""})

        def overrides() -> dict[str, str]:
            return dict(broker.partitions.topic("t").overrides)

        async def alter(key: int, version: int, **entry: Any) -> None:
            answer = await ask(
                broker, key, version, resources=[resource(TOPIC, "t", configs=[entry])]
            )
            assert [each.error_code for each in answer.responses] == [0]

        append = {"name": "cleanup.policy", "config_operation": 2}
        await asyncio.gather(
            alter(INCREMENTAL, 1, **append, value="compact"),
            alter(INCREMENTAL, 1, **append, value="delete"),
        )
        assert sorted(overrides()["cleanup.policy"].split(",")) == ["compact", "delete"]
        await alter(INCREMENTAL, 1, **append, value="delete")  # it is in the list
        assert sorted(overrides()["cleanup.policy"].split(",")) == ["compact", "delete"]
        await asyncio.gather(
            alter(ALTER, 2, name="retention.ms", value="5"),
            alter(ALTER, 2, name="segment.ms", value="7"),
        )
        assert overrides() in ({"retention.ms": "5"}, {"segment.ms": "7"})

    with_broker(body)
