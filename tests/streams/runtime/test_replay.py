"""Replays beside the original, what differs, and resets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from millstream.log import Log, open_log
from millstream.streams import App, tumbling
from millstream.streams.compare import Difference, compare_replay
from millstream.streams.replay import Replay, ReplayError, When, prepare_replay
from millstream.streams.reset import AppRunningError, plan_reset, reset_app
from millstream.streams.run_context import RunContext
from shared.running import feed, last_integers, records, to_end

HOUR_MS = 3_600_000
ROWS = [(f"k{n % 3}", {"delay": n % 40}, n * 60_000) for n in range(240)]


def delays(late_from: int = 15, app_id: str = "delays") -> App:
    app = App(app_id)
    events = app.topic("events", key=str, value=dict)

    @app.table(events, window=tumbling("1h"))
    def late(total: int, event: dict[str, Any]) -> int:
        return total + (event["delay"] >= late_from)

    late.final().to("late-per-hour")

    @app.stream(events, to="very-late")
    def very_late(event: dict[str, Any]) -> dict[str, Any] | None:
        return event if event["delay"] >= late_from + 20 else None

    app.stream(events).group_by(lambda event: "all", key_type=str).count(
        name="events"
    ).changes().to("all-events")
    return app


async def replayed(app: App, log: Log, **options: Any) -> Replay:
    options = {"replay_id": "v2", "start": When(None)} | options
    replay = await prepare_replay(app, log, **options)
    assert (await replay.run(asyncio.Event())).reached_end
    return replay


async def original(log: Log) -> None:
    await feed(log, "events", ROWS, partitions=2)
    await to_end(delays(), log)


async def snapshot(log: Log) -> dict[str, Any]:
    """Everything but what belongs to the replay."""
    topics = [t for t in await log.topics() if not t.startswith(("__", "v2"))]
    return {topic: await records(log, topic) for topic in topics} | {
        "offsets": await log.group_offsets("delays")
    }


def test_the_same_app_gives_the_same_results_and_touches_nothing() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await original(log)
            before = await snapshot(log)
            replay = await replayed(delays(), log)
            assert await snapshot(log) == before
            comparisons = {each.topic: each for each in await compare_replay(replay)}
            assert {topic: each.differences for topic, each in comparisons.items()} == {
                "late-per-hour": [],
                "very-late": [],
                "all-events": [],
            }
            assert comparisons["late-per-hour"].same == 12
            assert comparisons["late-per-hour"].is_table
            assert not comparisons["very-late"].is_table
            assert comparisons["all-events"].same == 1
            assert await last_integers(log, "v2.all-events") == {"all": 240}

    asyncio.run(main())


def test_a_changed_rule_shows_by_key_and_window() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await original(log)
            comparisons = await compare_replay(await replayed(delays(late_from=30), log))
            everything, late, very_late = comparisons
            expected: list[Difference] = []
            for hour in range(4):
                for key in ("k0", "k1", "k2"):
                    mine = [
                        value["delay"]
                        for k, value, at in ROWS
                        if k == key and at // HOUR_MS == hour
                    ]
                    old, new = (sum(delay >= rule for delay in mine) for rule in (15, 30))
                    expected.append(Difference("changed", key, hour * HOUR_MS, old, new))
            assert sorted(late.differences, key=lambda d: (d.window_start, d.key)) == expected
            assert {difference.kind for difference in very_late.differences} == {"only_old"}
            assert len(very_late.differences) == sum(r[1]["delay"] >= 35 for r in ROWS)
            assert everything.differences == []

    asyncio.run(main())


def test_a_range_is_compared_within_its_bounds() -> None:
    """Windows that reach over the start or the end are not whole, and do not count."""

    async def main() -> None:
        async with open_log("memory:") as log:
            await original(log)
            start, end = HOUR_MS + HOUR_MS // 2, 3 * HOUR_MS + HOUR_MS // 2
            replay = await replayed(delays(), log, start=When(start), end=When(end))
            [_, late, very_late] = await compare_replay(replay)
            assert late.differences == very_late.differences == []
            assert late.same == 3
            inside = [row for row in ROWS if start <= row[2] < end]
            assert very_late.same == sum(row[1]["delay"] >= 35 for row in inside)
            shadow = await records(log, "v2.very-late")
            assert {start <= record.timestamp < end for record in shadow} == {True}

    asyncio.run(main())


def test_a_second_replay_under_the_id_starts_over() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await original(log)
            await replayed(delays(late_from=30), log)
            replay = await replayed(delays(), log)
            assert all(not each.differences for each in await compare_replay(replay))

    asyncio.run(main())


def test_the_id_of_an_app_is_refused() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await original(log)
            await to_end(delays(app_id="other"), log)
            before = await snapshot(log)
            for taken in ("delays", "other"):
                with pytest.raises(ReplayError, match="id"):
                    await replayed(delays(), log, replay_id=taken)
            assert await snapshot(log) == before

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "timestamp_ms"),
    [
        ("beginning", None),
        ("1970-01-02", 86_400_000),
        ("1970-01-01T01:00", HOUR_MS),
        ("1970-01-01T01:00:00+01:00", 0),
        ("2h", 10 * HOUR_MS - 2 * HOUR_MS),
        ("2h ago", 10 * HOUR_MS - 2 * HOUR_MS),
    ],
)
def test_moments(text: str, timestamp_ms: int | None) -> None:
    assert When.parse(text, 10 * HOUR_MS) == When(timestamp_ms)


@pytest.mark.parametrize("text", ["yesterday", "2013-99-01", "", "-5m", "ago"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ReplayError):
        When.parse(text, 0)


def test_a_reset_app_does_it_all_again() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await original(log)
            context = RunContext.of(delays(), log)
            before = await snapshot(log)
            plan = await plan_reset(context)
            assert await snapshot(log) == before
            assert plan.topics == [
                "delays-events-changelog",
                "delays-events-repartition",
                "delays-late-changelog",
            ]
            assert sum(offset for tp, offset in plan.offsets.items() if tp.topic == "events") == 240
            assert await reset_app(context) == plan
            assert await log.group_offsets("delays") == {}
            assert not set(plan.topics) & set(await log.topics())
            assert len(await records(log, "late-per-hour")) == 12
            assert (await plan_reset(context)).is_empty
            await to_end(delays(), log)
            assert len(await records(log, "late-per-hour")) == 24
            assert await last_integers(log, "all-events") == {"all": 240}

    asyncio.run(main())


def test_a_running_app_is_not_reset() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await original(log)
            async with log.consumer("events", group="delays") as member:
                await member.poll_batches(0)
                before = await snapshot(log)
                with pytest.raises(AppRunningError, match="stop it"):
                    await reset_app(RunContext.of(delays(), log))
                assert await snapshot(log) == before

    asyncio.run(main())
