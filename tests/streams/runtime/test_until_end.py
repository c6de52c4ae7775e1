"""Runs to the end: everything processed, windows closed, upstream first."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from millstream.log import TopicPartition, open_log
from millstream.log.format.partitioner import partition_for_key
from millstream.streams import App, tumbling
from shared.running import feed, last_integers, records, to_end

WORDS = [b"to be or not to be", b"that is the question", b"to do is to be"]
MINUTE_MS = 60_000


def word_count(app_id: str = "words") -> App:
    app = App(app_id)
    lines = app.topic("lines", key=str, value=str)
    (
        app.stream(lines)
        .flat_map_values(str.split)
        .group_by(lambda word: word, name="by-word")
        .count(name="count")
        .changes()
        .to("counts")
    )
    return app


def per_minute(app_id: str = "minutes", **options: Any) -> App:
    app = App(app_id, **options)
    events = app.topic("events", key=str, value=dict)

    @app.table(events, window=tumbling("1m", grace="10s"))
    def total(total: int, event: dict[str, Any]) -> int:
        return total + event["n"]

    total.final().to("totals")
    return app


def test_a_stateless_app() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "numbers", [("k", {"n": n}, n) for n in range(10)], partitions=2)
            app = App("even")
            numbers = app.topic("numbers", key=str, value=dict)
            app.stream(numbers).filter(lambda number: number["n"] % 2 == 0).to("even-numbers")
            result = await to_end(app, log)
            assert result.reached_end
            assert result.stats.records == 10
            found = await records(log, "even-numbers")
            assert [record.timestamp for record in found] == [0, 2, 4, 6, 8]

    asyncio.run(main())


def test_a_repartitioned_count_sees_everything_before_it_ends() -> None:
    """Trap 13: the end of the upstream task is not the end of the downstream task."""

    async def main() -> None:
        async with open_log("memory:") as log:
            long_lines = [
                b" ".join([line] * 50) for line in WORDS
            ]  # more than one fetch has room for
            rows = [(str(n), long_lines[n % 3], n) for n in range(900)]
            await feed(log, "lines", rows, partitions=3)
            result = await to_end(word_count(), log)
            assert result.reached_end
            expected = Counter(word for _, line, _ in rows for word in line.decode().split())
            assert await last_integers(log, "counts") == expected

    asyncio.run(main())


def test_a_second_run_goes_on_where_the_first_ended() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            for _ in range(3):
                await feed(log, "lines", [("k", b"a b", 1)])
                await to_end(word_count(), log)
            assert await last_integers(log, "counts") == {"a": 3, "b": 3}
            assert (await to_end(word_count(), log)).stats.records == 0

    asyncio.run(main())


def test_consumed_repartition_records_are_deleted() -> None:
    """Trap 10."""

    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "lines", [("k", b"a b a", 1)])
            await to_end(word_count(), log)
            partition = TopicPartition("words-count-repartition", 0)
            ends = await log.end_offsets([partition])
            assert ends[partition] > 0
            assert await log.beginning_offsets([partition]) == ends

    asyncio.run(main())


def test_windows_are_closed_once_and_stay_closed() -> None:
    """Trap 3: the stream time moved by the end of a run is remembered by the next."""

    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", [("a", {"n": 1}, 0), ("a", {"n": 2}, 59_999)])
            await to_end(per_minute(), log)
            first = await records(log, "totals")
            assert [int.from_bytes(r.value or b"", "big") for r in first] == [3]

            # Without the memory, this record would open the window again and close it once more.
            await feed(log, "events", [("a", {"n": 4}, 30_000), ("a", {"n": 5}, 2 * MINUTE_MS)])
            result = await to_end(per_minute(), log)
            assert result.stats.late == 1
            again = await records(log, "totals")
            assert [int.from_bytes(r.value or b"", "big") for r in again] == [3, 5]

    asyncio.run(main())


def test_windows_of_a_key_lie_together() -> None:
    """Trap 11: windowed keys are partitioned by the inner key, as Kafka Streams does."""

    async def main() -> None:
        async with open_log("memory:") as log:
            rows = [(f"k{n % 9}", {"n": n}, n * 5_000) for n in range(200)]
            await feed(log, "events", rows, partitions=4)
            await to_end(per_minute(), log)
            found = await records(log, "totals")
            assert len({record.partition for record in found}) > 1
            for record in found:
                assert record.partition == partition_for_key((record.key or b"")[:-8], 4)

    asyncio.run(main())


def test_closed_windows_leave_nothing_in_the_changelog() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", [("a", {"n": n}, n * 1_000) for n in range(200)])
            await to_end(per_minute(commit_interval_ms=0), log)
            changelog: dict[bytes | None, bytes | None] = {}
            for record in await records(log, "minutes-total-changelog"):
                changelog[record.key] = record.value
            assert set(changelog.values()) <= {None}

    asyncio.run(main())


def test_records_that_come_later_are_left_for_the_next_run() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            app = App("later")
            events = app.topic("events", key=str, value=dict)

            async def add_another(event: dict[str, Any]) -> dict[str, Any]:
                if event["n"] == 0:
                    await feed(log, "events", [("late", {"n": 9}, 9)])
                return event

            app.stream(events).map_values(add_another).to("copies")
            await feed(log, "events", [("a", {"n": 0}, 0), ("a", {"n": 1}, 1)])
            assert (await to_end(app, log)).stats.records == 2
            assert len(await records(log, "copies")) == 2
            assert (await to_end(app, log)).stats.records == 1
            assert len(await records(log, "copies")) == 3

    asyncio.run(main())


def test_partitions_far_apart_in_time_do_not_make_each_other_late() -> None:
    """Two partitions, each in order; read one after the other, the second would be a month late."""

    async def main() -> None:
        async with open_log("memory:") as log:
            app = App("aligned")
            events = app.topic("events", key=str, value=dict)

            @app.table(
                app.stream(events).key_by(lambda event: "all"), window=tumbling("1m", grace="10s")
            )
            def total(total: int, event: dict[str, Any]) -> int:
                return total + event["n"]

            total.final().to("totals")
            rows = [(key, {"n": 1}, n * 1_000) for n in range(3_000) for key in ("a", "b", "c")]
            await feed(log, "events", rows, partitions=4)
            result = await to_end(app, log)
            assert result.stats.late == 0
            found = await records(log, "totals")
            values = [int.from_bytes(record.value or b"", "big") for record in found]
            assert values == [180] * 50

    asyncio.run(main())


def test_a_null_key_does_no_harm() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "lines", [(None, b"a", 1), ("k", b"b", 3)])
            await to_end(word_count(), log)
            counts = await last_integers(log, "counts")
            assert counts["b"] == 1

    asyncio.run(main())
