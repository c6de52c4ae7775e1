"""Topics before a run: what is created, with how many partitions, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from millstream.log import Log, UnknownTopicError, open_log
from millstream.streams import App, TopologyError
from millstream.streams.internal_topics import prepare_topics
from millstream.streams.run_context import RunContext
from shared.running import feed, to_end


async def prepare(app: App, log: Log) -> dict[str, int]:
    await prepare_topics(RunContext.of(app, log))
    counts = {name: (await log.describe_topic(name)).partitions for name in await log.topics()}
    return {name: count for name, count in counts.items() if not name.startswith("__")}


def counting(**options: Any) -> App:
    app = App("counting")
    events = app.topic("events", key=str, value=dict, **options)
    words = app.stream(events).flat_map_values(lambda event: event["words"])
    words.group_by(lambda word: word, key_type=str).count(name="words").changes().to("counts")
    return app


def test_everything_is_created_with_the_counts_of_its_input() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await log.create_topic("events", partitions=3)
            expected = {
                "events": 3,
                "counting-words-repartition": 3,
                "counting-words-changelog": 3,
                "counts": 3,
            }
            assert await prepare(counting(), log) == expected
            assert await prepare(counting(), log) == expected
            changelog = await log.describe_topic("counting-words-changelog")
            assert changelog.config["cleanup.policy"] == "compact"
            repartition = await log.describe_topic("counting-words-repartition")
            assert repartition.config["retention.ms"] == "-1"

    asyncio.run(main())


def test_a_declared_source_is_created() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            counts = await prepare(counting(partitions=2, config={"retention.ms": 5}), log)
            assert counts["events"] == 2
            assert (await log.describe_topic("events")).config["retention.ms"] == "5"

    asyncio.run(main())


def test_topics_of_an_app_keep_records_whatever_their_event_time() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await prepare(counting(partitions=2), log)
            for topic in ("events", "counts"):
                config = (await log.describe_topic(topic)).config
                assert config["retention.ms"] == "-1"
                assert config["message.timestamp.after.max.ms"] == str(2**63 - 1)

    asyncio.run(main())


def test_a_missing_source_says_how_to_get_it() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            with pytest.raises(UnknownTopicError, match=r"'events'.*partitions=4"):
                await to_end(counting(), log)
            assert await log.topics() == []

    asyncio.run(main())


def test_another_partition_count_than_declared_is_refused() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await log.create_topic("events", partitions=3)
            with pytest.raises(
                TopologyError, match="'events' has 3 partitions, the app declares 2"
            ):
                await to_end(counting(partitions=2), log)

    asyncio.run(main())


def test_a_changelog_of_other_size_asks_for_a_reset() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await log.create_topic("events", partitions=3)
            await log.create_topic("counting-words-changelog", partitions=2)
            with pytest.raises(TopologyError, match=r"has 2 partitions.* 3.*millstream reset"):
                await to_end(counting(), log)

    asyncio.run(main())


def test_a_join_of_topics_with_different_partition_counts_is_refused() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "orders", [("a", {}, 1)], partitions=4)
            await feed(log, "customers", [("a", {}, 1)], partitions=3)
            app = App("joining")
            orders = app.topic("orders", key=str, value=dict)
            customers = app.table_of(app.topic("customers", key=str, value=dict))
            app.stream(orders).join(customers, lambda order, customer: order).to("joined")
            with pytest.raises(TopologyError) as refused:
                await to_end(app, log)
            for word in ("orders has 4", "customers has 3"):
                assert word in str(refused.value)
            assert "joined" not in await log.topics()

    asyncio.run(main())


def test_a_topic_that_is_written_and_read_comes_between_two_tasks() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", [(f"k{n}", {"n": n}, n) for n in range(20)], partitions=3)
            app = App("through")
            events = app.topic("events", key=str, value=dict)
            middle = app.topic("middle", key=str, value=dict)
            app.stream(events).to(middle)
            app.stream(middle).group_by_key().count(name="counts").changes().to("out")
            result = await to_end(app, log)
            assert result.stats.records == 40
            assert (await log.describe_topic("middle")).partitions == 3
            assert (await log.describe_topic("out")).partitions == 3

    asyncio.run(main())
