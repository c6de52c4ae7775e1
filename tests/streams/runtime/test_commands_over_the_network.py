"""`run`, `replay` and `reset` on a log that is reached over the network, of either kind."""

from __future__ import annotations

import shutil
import textwrap
from base64 import b64decode
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.commands import run

APP = textwrap.dedent(
    """
    from millstream.streams import App, tumbling

    LATE_FROM = 15
    app = App("delays", commit_interval_ms=20)
    events = app.topic("events", key=str, value=dict)


    @app.table(events, window=tumbling("1h"))
    def late(total: int, event: dict) -> int:
        return total + (event["delay"] >= LATE_FROM)


    late.final().to("late-per-hour")


    @app.table(events, key=lambda event: str(event["delay"] % 2))
    def seen(total: int, event: dict) -> int:
        return total + 1


    seen.changes().to("seen")
    """
)


@pytest.fixture
def url(kafka_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A log with 240 events, and two versions of an app in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "delays.py").write_text(APP)
    (tmp_path / "late30.py").write_text(APP.replace("LATE_FROM = 15", "LATE_FROM = 30"))
    run(kafka_url, "topics", "create", "events", "--partitions", "2")
    feed(kafka_url, range(240))
    return kafka_url


def feed(url: str, numbers: range) -> None:
    lines = [
        {"key": f"k{n % 3}", "value": {"delay": n % 40}, "timestamp": n * 60_000 + 1}
        for n in numbers
    ]
    run(url, "produce", "events", "--format", "json", stdin=b"\n".join(map(orjson.dumps, lines)))


def ran(url: str) -> dict[str, Any]:
    [result] = run(url, "run", "delays.py", "--until-end", "--json").json
    return dict(result)


def printed(url: str, topic: str) -> list[dict[str, Any]]:
    return run(url, "consume", topic, "--until-end", "--format", "json", "--base64").json


def seen(url: str) -> tuple[int, int]:
    """The last count of even and of odd delays."""
    last = {
        b64decode(each["key_base64"]): int.from_bytes(b64decode(each["value_base64"]), "big")
        for each in printed(url, "seen")
    }
    assert last.keys() == {b"0", b"1"}
    return last[b"0"], last[b"1"]


def test_runs_go_on_and_restore_what_was_lost(url: str, tmp_path: Path) -> None:
    assert (ran(url)["records"], seen(url)) == (480, (120, 120))
    assert len(printed(url, "late-per-hour")) == 12
    again = ran(url)
    assert (again["records"], again["restored"], seen(url)) == (0, 0, (120, 120))
    feed(url, range(240, 300))
    assert (ran(url)["records"], seen(url)) == (120, (150, 150))

    shutil.rmtree(tmp_path / "millstream-state")
    feed(url, range(300, 360))
    restored = ran(url)
    assert (restored["records"], seen(url)) == (120, (180, 180))
    assert restored["restored"] > 0
    windows = printed(url, "late-per-hour")
    assert len({each["key_base64"] for each in windows}) == len(windows) == 18


def test_replays_compare(url: str) -> None:
    ran(url)
    replay = ("--from", "beginning", "--as", "again", "--compare", "--json")
    for _ in range(2):  # the second starts over
        [of_run, *compared] = run(url, "replay", "delays.py", *replay).json
        assert of_run["records"] == 480
        counts = {each["topic"]: (each["same"], each["different"]) for each in compared}
        assert counts == {"late-per-hour": (12, 0), "seen": (2, 0)}
    [_, *compared] = run(url, "replay", "late30.py", *replay).json
    topics = {each["topic"]: each for each in compared if "same" in each}
    assert topics["late-per-hour"]["different"] > 0
    assert topics["seen"]["different"] == 0
    assert len(printed(url, "late-per-hour")) == 12  # the original's is not touched


def test_a_reset_app_begins_again(url: str, tmp_path: Path) -> None:
    ran(url)
    [done] = run(url, "reset", "delays.py", "--json").json
    internal = ["delays-late-changelog", "delays-seen-changelog", "delays-seen-repartition"]
    assert done["topics"] == internal
    assert not (tmp_path / "millstream-state" / "delays").exists()
    assert set(run(url, "topics", "list").lines).isdisjoint(internal)
    assert (ran(url)["records"], seen(url)) == (480, (120, 120))
    assert len(printed(url, "late-per-hour")) == 24
