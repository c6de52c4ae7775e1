"""Topics, configs, records to delete, places: every version of every admin request."""

from __future__ import annotations

import asyncio
import uuid
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from millstream.log.broker.broker import Broker
from millstream.log.clock import SystemClock
from millstream.log.config import BrokerConfig, TopicConfig
from millstream.log.format.codec import encode_batch
from millstream.log.record import TopicPartition
from millstream.log.server.dispatch import apis, call_of, failure
from millstream.log.storage.memory_files import MemoryFiles
from shared.asking import ask, request_frame, response_of

CREATE, DELETE, ADD, CUT = 19, 20, 37, 21
DESCRIBE, ALTER, INCREMENTAL = 32, 33, 44
DIRS, ELECT, REASSIGNMENTS, PLACES = 35, 43, 46, 75
TOPIC, BROKER = 2, 4


def with_broker(
    body: Callable[[Broker], Awaitable[None]], config: BrokerConfig | None = None
) -> None:
    async def run() -> None:
        broker = await Broker.open(
            MemoryFiles(), "/log", durability="os", config=config or BrokerConfig(),
            clock=SystemClock(),
        )  # fmt: skip
        try:
            await body(broker)
        finally:
            await broker.close()

    asyncio.run(run())


def versions(key: int) -> list[int]:
    return list(apis()[key].versions)


def uuid_of(topic_id: str) -> uuid.UUID:
    return uuid.UUID(bytes=urlsafe_b64decode(topic_id + "=="))


def new(name: str, partitions: int = 1, replication: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "num_partitions": partitions, "replication_factor": replication, **more
    }  # fmt: skip


@pytest.mark.parametrize("version", versions(CREATE))
def test_topics_are_created(version: int) -> None:
    async def body(broker: Broker) -> None:
        config = [{"name": "retention.ms", "value": "1000"}]
        answer = await ask(broker, CREATE, version, topics=[new("orders", 3, configs=config)])
        (topic,) = answer.topics
        assert (topic.name, topic.error_code, topic.error_message) == ("orders", 0, None)
        made = broker.partitions.topic("orders")
        assert (made.partitions, dict(made.overrides)) == (3, {"retention.ms": "1000"})
        if version >= 5:
            assert (topic.num_partitions, topic.replication_factor) == (3, 1)
            shown = {each.name: (each.value, each.config_source) for each in topic.configs}
            assert shown.keys() == TopicConfig().to_strings().keys()
            assert shown["retention.ms"] == ("1000", 1)
            assert shown["cleanup.policy"] == ("delete", 5)
        if version >= 7:
            assert topic.topic_id == uuid_of(made.topic_id)

    with_broker(body)


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (new("there"), 36),
        (new("no/name"), 17),
        (new("a.b_c"), 17),
        (new(""), 17),
        (new("__consumer_offsets"), 17),
        (new("t", 0), 37),
        (new("t", -2), 37),
        (new("t", 1_000_000), 37),
        (new("t", 1, 2), 38),
        (new("t", 1, 0), 38),
        (new("t", configs=[{"name": "retention.ms", "value": "soon"}]), 40),
        (new("t", configs=[{"name": "retention.msec", "value": "1"}]), 40),
        (new("t", configs=[{"name": "retention.ms", "value": None}]), 40),
        (new("t", 1, 1, assignments=[{"partition_index": 0, "broker_ids": [0]}]), 42),
        (new("t", -1, -1, assignments=[{"partition_index": 1, "broker_ids": [0]}]), 39),
        (new("t", -1, -1, assignments=[{"partition_index": 0, "broker_ids": [1]}]), 39),
        (new("t", -1, -1, assignments=[{"partition_index": 0, "broker_ids": [0, 0]}]), 39),
        (new("t", -1, -1, assignments=[{"partition_index": 0, "broker_ids": []}]), 39),
    ],
)
@pytest.mark.parametrize("validate_only", [False, True])
def test_topics_that_cannot_be_are_refused_alone(
    wanted: dict[str, Any], code: int, validate_only: bool
) -> None:
    async def body(broker: Broker) -> None:
        await broker.create_topic("there", 1)
        await broker.create_topic("a_b_c", 1)
        topics = [wanted, new("good")]
        answer = await ask(broker, CREATE, 7, topics=topics, validate_only=validate_only)
        refused, good = answer.topics
        assert (refused.name, refused.error_code) == (wanted["name"], code)
        assert refused.error_message
        assert good.error_code == 0
        assert broker.partitions.topics() == sorted(
            ["a_b_c", "there"] + ([] if validate_only else ["good"])
        )

    with_broker(body)


def test_a_topic_named_twice_is_not_created() -> None:
    async def body(broker: Broker) -> None:
        answer = await ask(broker, CREATE, 7, topics=[new("t"), new("t", 2)])
        assert [(each.name, each.error_code) for each in answer.topics] == [("t", 42)]
        assert broker.partitions.topics() == []

    with_broker(body)


def test_defaults_and_assignments_to_the_node() -> None:
    async def body(broker: Broker) -> None:
        here = [{"partition_index": each, "broker_ids": [0]} for each in (1, 0)]
        wanted = [new("usual", -1, -1), new("assigned", -1, -1, assignments=here)]
        answer = await ask(broker, CREATE, 7, topics=wanted)
        assert [(each.error_code, each.num_partitions) for each in answer.topics] == [
            (0, 4), (0, 2)
        ]  # fmt: skip

    with_broker(body, BrokerConfig.parse({"num.partitions": 4}))


@pytest.mark.parametrize("version", versions(DELETE))
def test_topics_are_deleted_by_name(version: int) -> None:
    async def body(broker: Broker) -> None:
        for name in ("a", "b"):
            await broker.create_topic(name, 1)
        names = ["a", "missing", "__consumer_offsets"]
        asked: dict[str, Any] = (
            {"topics": [{"name": name} for name in names]} if version >= 6
            else {"topic_names": names}
        )  # fmt: skip
        answer = await ask(broker, DELETE, version, **asked)
        assert [(each.name, each.error_code) for each in answer.responses] == [
            ("a", 0), ("missing", 3), ("__consumer_offsets", 3)
        ]  # fmt: skip
        assert broker.partitions.topics() == ["b"]

    with_broker(body)


def test_topics_are_deleted_by_id() -> None:
    async def body(broker: Broker) -> None:
        topic_id = uuid_of((await broker.create_topic("a", 1)).topic_id)
        await broker.create_topic("b", 1)
        other_id = uuid.uuid4()
        asked = [
            {"name": None, "topic_id": topic_id},
            {"name": None, "topic_id": other_id},
            {"name": "b", "topic_id": other_id},
        ]
        answer = await ask(broker, DELETE, 6, topics=asked)
        assert [(each.name, each.topic_id, each.error_code) for each in answer.responses] == [
            ("a", topic_id, 0), (None, other_id, 100), ("b", other_id, 42)
        ]  # fmt: skip
        twice = [{"name": "b"}, {"name": "b"}]
        answer = await ask(broker, DELETE, 6, topics=twice)
        assert [each.error_code for each in answer.responses] == [42, 42]
        assert broker.partitions.topics() == ["b"]

    with_broker(body)


@pytest.mark.parametrize("version", versions(ADD))
def test_partitions_are_added_and_every_topic_is_echoed(version: int) -> None:
    async def body(broker: Broker) -> None:
        for name in ("a", "b", "c", "d"):
            await broker.create_topic(name, 2)
        topics = [
            {"name": "a", "count": 3, "assignments": None},
            {"name": "b", "count": 2, "assignments": None},
            {"name": "missing", "count": 2, "assignments": None},
            {"name": "c", "count": 4, "assignments": [{"broker_ids": [0]}]},
            {"name": "d", "count": 3, "assignments": [{"broker_ids": [1]}]},
        ]
        expected = [("a", 0), ("b", 37), ("missing", 3), ("c", 39), ("d", 39)]
        for validate_only, count in ((True, 2), (False, 3)):
            answer = await ask(broker, ADD, version, topics=topics, validate_only=validate_only)
            assert [(each.name, each.error_code) for each in answer.results] == expected
            assert broker.partitions.topic("a").partitions == count
        here = [{"broker_ids": [0]}]
        answer = await ask(
            broker, ADD, version, topics=[{"name": "c", "count": 3, "assignments": here}]
        )
        assert broker.partitions.topic("c").partitions == 3

    with_broker(body)


@pytest.mark.parametrize("version", versions(CUT))
def test_records_are_deleted(version: int) -> None:
    async def body(broker: Broker) -> None:
        await broker.create_topic("t", 2)
        await broker.create_topic("kept", 1, {"cleanup.policy": "compact"})
        batch = encode_batch(None, [b"value"] * 10, [0] * 10, None, 0, 10)
        await broker.produce(TopicPartition("t", 0), batch)

        async def cut(topic: str, partition: int, offset: int) -> tuple[int, int]:
            wanted = [{"partition_index": partition, "offset": offset}]
            answer = await ask(broker, CUT, version, topics=[{"name": topic, "partitions": wanted}])
            (result,) = answer.topics[0].partitions
            assert (answer.topics[0].name, result.partition_index) == (topic, partition)
            return result.error_code, result.low_watermark

        assert await cut("t", 0, 4) == (0, 4)
        assert await cut("t", 0, 2) == (0, 4)
        assert await cut("t", 0, 11) == (1, -1)
        assert await cut("t", 0, -2) == (1, -1)
        assert await cut("t", 0, -1) == (0, 10)
        assert await cut("t", 1, -1) == (0, 0)
        assert await cut("t", 2, 0) == (3, -1)
        assert await cut("missing", 0, 0) == (3, -1)
        assert await cut("kept", 0, 0) == (44, -1)
        assert await cut("__consumer_offsets", 0, 0) == (17, -1)

    with_broker(body)


def described(answer: Any) -> dict[str, Any]:
    (result,) = answer.results
    assert result.error_code == 0
    return {each.name: each for each in result.configs}


def resource(kind: int, name: str, **more: Any) -> dict[str, Any]:
    return {"resource_type": kind, "resource_name": name, **more}


@pytest.mark.parametrize("version", versions(DESCRIBE))
def test_configs_are_described(version: int) -> None:
    async def body(broker: Broker) -> None:
        await broker.create_topic("t", 1, {"retention.ms": 5, "cleanup.policy": "compact"})

        async def describe(kind: int, name: str, keys: Any = None) -> dict[str, Any]:
            more = {"include_documentation": True} if version >= 3 else {}
            asked = [resource(kind, name, configuration_keys=keys)]
            return described(
                await ask(broker, DESCRIBE, version, resources=asked, include_synonyms=True, **more)
            )

        found = await describe(TOPIC, "t")
        assert {each.name: each.value for each in found.values()} == (
            broker.partitions.topic("t").config.to_strings()
        )
        retention = found["retention.ms"]
        assert (retention.config_source, retention.read_only, retention.is_sensitive) == (
            1, False, False
        )  # fmt: skip
        assert [(each.value, each.source) for each in retention.synonyms] == [
            ("5", 1), ("604800000", 5)
        ]  # fmt: skip
        assert found["segment.ms"].config_source == 5
        if version >= 3:
            types = {name: each.config_type for name, each in found.items()}
            assert {
                name: types[name]
                for name in ("preallocate", "compression.type", "segment.bytes", "retention.ms",
                             "min.cleanable.dirty.ratio", "cleanup.policy")
            } == {
                "preallocate": 1, "compression.type": 2, "segment.bytes": 3, "retention.ms": 5,
                "min.cleanable.dirty.ratio": 6, "cleanup.policy": 7,
            }  # fmt: skip
            assert all(each.documentation for each in found.values())
        assert (await describe(TOPIC, "t", ["retention.ms"])).keys() == {"retention.ms"}
        assert (await describe(TOPIC, "t", [])).keys() == found.keys()
        node = await describe(BROKER, "0")
        assert node.keys() == BrokerConfig().to_strings().keys()
        assert (node["num.partitions"].value, node["num.partitions"].config_source) == ("4", 4)
        assert node["num.partitions"].read_only
        assert node["group.max.size"].config_source == 5
        assert await describe(BROKER, "") == {}

    with_broker(body, BrokerConfig.parse({"num.partitions": 4}))


def test_resources_that_have_no_configs() -> None:
    async def body(broker: Broker) -> None:
        asked = [resource(TOPIC, "missing"), resource(BROKER, "1"), resource(8, "0")]
        answer = await ask(broker, DESCRIBE, 4, resources=asked)
        assert [each.error_code for each in answer.results] == [3, 42, 42]
        assert [each.resource_name for each in answer.results] == ["missing", "1", "0"]

    with_broker(body)


@pytest.mark.parametrize("version", versions(ALTER))
def test_configs_are_replaced(version: int) -> None:
    async def body(broker: Broker) -> None:
        await broker.create_topic("t", 1, {"retention.ms": 5, "segment.ms": 7})

        async def alter(*resources: dict[str, Any], validate_only: bool = False) -> list[int]:
            answer = await ask(
                broker, ALTER, version, resources=resources, validate_only=validate_only
            )
            return [each.error_code for each in answer.responses]

        def overrides() -> dict[str, str]:
            return dict(broker.partitions.topic("t").overrides)

        def to(name: str, value: str | None) -> dict[str, Any]:
            return resource(TOPIC, "t", configs=[{"name": name, "value": value}])

        assert await alter(to("retention.ms", "6"), validate_only=True) == [0]
        assert await alter(to("retention.ms", "x"), validate_only=True) == [40]
        assert await alter(to("retention.ms", "x")) == [40]
        assert await alter(to("retention.msec", "1")) == [40]
        assert await alter(to("retention.ms", None)) == [42]
        assert await alter(to("segment.ms", "1"), to("segment.ms", "2")) == [42, 42]
        assert overrides() == {"retention.ms": "5", "segment.ms": "7"}
        assert await alter(to("retention.ms", "6"), resource(TOPIC, "missing")) == [0, 3]
        assert overrides() == {"retention.ms": "6"}
        assert (
            await alter(resource(BROKER, "0"), resource(BROKER, ""), resource(3, "x")) == [42] * 3
        )

    with_broker(body)


@pytest.mark.parametrize("version", versions(INCREMENTAL))
def test_configs_are_changed_one_by_one(version: int) -> None:
    async def body(broker: Broker) -> None:
        await broker.create_topic("t", 1, {"retention.ms": 5})

        async def alter(*changes: tuple[str, int, str | None], validate_only: bool = False) -> int:
            configs = [
                {"name": name, "config_operation": operation, "value": value}
                for name, operation, value in changes
            ]
            answer = await ask(
                broker, INCREMENTAL, version,
                resources=[resource(TOPIC, "t", configs=configs)], validate_only=validate_only,
            )  # fmt: skip
            return answer.responses[0].error_code

        def overrides() -> dict[str, str]:
            return dict(broker.partitions.topic("t").overrides)

        assert await alter(("segment.ms", 0, "9")) == 0
        assert overrides() == {"retention.ms": "5", "segment.ms": "9"}
        assert await alter(("segment.ms", 1, None), ("cleanup.policy", 2, "compact")) == 0
        assert overrides() == {"retention.ms": "5", "cleanup.policy": "delete,compact"}
        assert broker.partitions.partition(TopicPartition("t", 0)).config.compacts
        assert await alter(("cleanup.policy", 3, "delete")) == 0
        assert await alter(("cleanup.policy", 2, "compact")) == 0
        assert await alter(("cleanup.policy", 1, ""), validate_only=True) == 0
        assert overrides() == {"retention.ms": "5", "cleanup.policy": "compact"}
        assert await alter(("retention.ms", 2, "1")) == 40
        assert await alter(("cleanup.policy", 2, "shred")) == 40
        assert await alter(("no.such", 1, None)) == 40
        assert await alter(("retention.ms", 0, None)) == 42
        assert await alter(("retention.ms", 4, "1")) == 42
        assert await alter(("retention.ms", 0, "1"), ("retention.ms", 1, None)) == 42
        assert overrides() == {"retention.ms": "5", "cleanup.policy": "compact"}

    with_broker(body)


@pytest.mark.parametrize("version", versions(DIRS))
def test_log_dirs_tell_sizes(version: int) -> None:
    async def body(broker: Broker) -> None:
        await broker.create_topic("t", 2)
        await broker.create_topic("u", 1)
        batch = encode_batch(None, [b"value"], [0], None, 0, 1)
        await broker.produce(TopicPartition("t", 1), batch)

        async def sizes(topics: Any) -> dict[tuple[str, int], int]:
            (result,) = (await ask(broker, DIRS, version, topics=topics)).results
            assert (result.error_code, result.log_dir) == (0, "/log")
            return {
                (topic.name, each.partition_index): each.partition_size
                for topic in result.topics
                for each in topic.partitions
            }

        every = {("t", 0): 0, ("t", 1): len(batch), ("u", 0): 0}
        assert await sizes(None) == every
        asked = [{"topic": "t", "partitions": [1, 2]}, {"topic": "missing", "partitions": [0]}]
        assert await sizes(asked) == {("t", 1): len(batch)}
        assert await sizes([]) == {}

    with_broker(body)


@pytest.mark.parametrize("version", versions(ELECT))
def test_there_is_nobody_to_elect(version: int) -> None:
    async def body(broker: Broker) -> None:
        await broker.create_topic("t", 1)
        asked = [{"topic": "t", "partitions": [0, 1]}]
        (result,) = (
            await ask(broker, ELECT, version, topic_partitions=asked)
        ).replica_election_results
        assert [(each.partition_id, each.error_code) for each in result.partition_result] == [
            (0, 84), (1, 3)
        ]  # fmt: skip
        every = await ask(broker, ELECT, version, topic_partitions=None)
        assert every.replica_election_results == ()
        if version >= 1:
            refused = await ask(broker, ELECT, version, election_type=2, topic_partitions=asked)
            assert refused.error_code == 42

    with_broker(body)


def test_nothing_is_reassigned() -> None:
    async def body(broker: Broker) -> None:
        await broker.create_topic("t", 1)
        answer = await ask(broker, REASSIGNMENTS, 0, topics=None)
        assert (answer.error_code, answer.topics) == (0, ())

    with_broker(body)


def test_places_are_told_in_pages() -> None:
    async def body(broker: Broker) -> None:
        for name, count in (("a", 3), ("b", 2), ("c", 1)):
            await broker.create_topic(name, count)

        async def pages(*names: str) -> list[list[tuple[str, int, list[int]]]]:
            found, cursor = [], None
            while True:
                answer = await ask(
                    broker, PLACES, 0, topics=[{"name": name} for name in names],
                    response_partition_limit=2, cursor=cursor,
                )  # fmt: skip
                found.append([
                    (each.name, each.error_code, [part.partition_index for part in each.partitions])
                    for each in answer.topics
                ])  # fmt: skip
                if answer.next_cursor is None:
                    return found
                cursor = {
                    "topic_name": answer.next_cursor.topic_name,
                    "partition_index": answer.next_cursor.partition_index,
                }

        assert await pages() == [
            [("a", 0, [0, 1])], [("a", 0, [2]), ("b", 0, [0])], [("b", 0, [1]), ("c", 0, [0])]
        ]  # fmt: skip
        answer = await ask(broker, PLACES, 0, topics=[{"name": "a"}], response_partition_limit=9)
        told = await ask(broker, 3, 12, topics=None, include_topic_authorized_operations=True)
        assert answer.topics[0].topic_authorized_operations > 0
        assert {each.topic_authorized_operations for each in (*answer.topics, *told.topics)} == {
            answer.topics[0].topic_authorized_operations
        }
        assert await pages("c", "missing", "no/name") == [
            [("c", 0, [0]), ("missing", 3, []), ("no/name", 17, [])]
        ]

    with_broker(body)


@pytest.mark.parametrize(
    "key", [CREATE, DELETE, ADD, CUT, DESCRIBE, ALTER, INCREMENTAL, ELECT, PLACES]
)
def test_a_failure_of_the_whole_request_is_told_for_each_part(key: int) -> None:
    """`failed` fits the response of every version."""

    async def body(broker: Broker) -> None:
        await broker.close()
        for version in versions(key):
            topic: dict[str, Any] = {"name": "t"}
            if key == CREATE:
                topic |= {"num_partitions": 1, "replication_factor": 1}
            if key == CUT:
                topic |= {"partitions": [{"partition_index": 0, "offset": 0}]}
            values: dict[str, Any] = {"topics": [topic]}
            if key == DELETE and version < 6:
                values = {"topic_names": ["t"]}
            if key in (DESCRIBE, ALTER, INCREMENTAL):
                values = {"resources": [resource(TOPIC, "t")]}
            if key == ELECT:
                values = {"topic_partitions": [{"topic": "t", "partitions": [0]}]}
            call = call_of(request_frame(key, version, **values))
            data = b"".join(failure(call, RuntimeError("a mistake")))
            answer = response_of(key, version, data[4:])
            assert "-1" in repr(answer).replace("unknown_server_error: -1", "-1"), answer

    with_broker(body)
