"""`millstream groups`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from millstream.log import OffsetAndMetadata, TopicPartition, open_log
from millstream.log.broker.modern_values import Heartbeat
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.record import ConsumerGroupMetadata
from shared.commands import run


@pytest.fixture
def log(tmp_path: Path) -> str:
    """Ten records in each of two partitions; group g has read four of partition 0."""
    folder = str(tmp_path / "log")
    run(folder, "topics", "create", "t", "--partitions", "2")
    for partition in ("0", "1"):
        lines = b"".join(b"%d\n" % n for n in range(10))
        run(folder, "produce", "t", "--partition", partition, "--timestamp", "@5000", stdin=lines)
    run(folder, "consume", "t", "--group", "g", "--until-end", "--count", "4")
    return folder


def offsets(log: str) -> list[tuple[int, int | None, int | None]]:
    [group] = run(log, "groups", "describe", "g", "--json").json
    return [(each["partition"], each["committed"], each["lag"]) for each in group["offsets"]]


def test_list_and_describe(log: str) -> None:
    assert run(log, "groups", "list").lines == [
        "group  state  type",
        "g      Empty  consumer",
    ]
    [group] = run(log, "groups", "list", "--json").json
    assert (group["group"], group["state"]) == ("g", "Empty")
    table = run(log, "groups", "describe", "g").lines
    assert table[0] == "g: Empty, 0 members"
    assert ["t-0", "4", "10", "6", "-"] in [line.split() for line in table]
    assert (0, 4, 6) in offsets(log)
    unknown = run(log, "groups", "describe", "h", code=1).err
    assert "Group h does not exist" in unknown
    assert "`millstream groups list`" in unknown


def test_reset_prints_the_plan_and_does_it_when_told(log: str) -> None:
    planned = run(log, "groups", "reset", "g", "--to", "beginning", "--topic", "t")
    assert planned.lines[0].split() == ["partition", "current", "new"]
    assert "--execute does it" in planned.err
    assert (0, 4, 6) in offsets(log)
    run(log, "groups", "reset", "g", "--to", "beginning", "--topic", "t", "--execute")
    assert offsets(log) == [(0, 0, 10), (1, 0, 10)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (["--to", "end"], 10),
        (["--to", "7"], 7),
        (["--to", "99"], 10),
        (["--to", "current"], 4),
        (["--to", "@5000"], 0),
        (["--to", "1970-01-01T00:00:06Z"], 10),
        (["--shift-by", "3"], 7),
        (["--shift-by", "-100"], 0),
    ],
)
def test_where_it_can_be_moved(log: str, where: list[str], expected: int) -> None:
    [plan] = run(log, "groups", "reset", "g", *where, "--topic", "t:0", "--execute", "--json").json
    assert plan == {
        "group": "g", "topic": "t", "partition": 0, "current": 4, "new": expected, "executed": True,
    }  # fmt: skip
    assert (0, expected, 10 - expected) in offsets(log)


def test_what_is_refused(log: str) -> None:
    for arguments, code, why in (
        (["reset", "g"], 2, "one of --to and --shift-by"),
        (["reset", "g", "--to", "end", "--shift-by", "1"], 2, "one of"),
        (["reset", "g", "--to", "end", "--execute", "--dry-run"], 2, "exclude"),
        (["reset", "g", "--to", "noon"], 2, "none of"),
        (["reset", "g", "--to", "end", "--topic", "t:x"], 2, "write TOPIC"),
        (["reset", "g", "--to", "end", "--topic", "t:" + "9" * 5000], 2, "write TOPIC"),
        (["reset", "g", "--to", "end", "--topic", "x"], 1, "does not exist"),
        (["reset", "g", "--to", "end", "--topic", "t:7"], 1, "partition 7"),
        (["reset", "h", "--to", "end"], 1, "has committed nothing"),
        (["delete", "h"], 1, "h"),
        (["delete-offsets", "g"], 2, "--topic TOPIC"),
    ):
        assert why in run(log, "groups", *arguments, code=code).err


def test_deleting_offsets_and_the_group(log: str) -> None:
    assert "deleted the offsets of t-0" in (
        run(log, "groups", "delete-offsets", "g", "--topic", "t:0").text
    )  # fmt: skip
    assert 0 not in [partition for partition, _, _ in offsets(log)]
    assert run(log, "groups", "delete", "g", "--json").json == [{"group": "g", "deleted": True}]
    assert run(log, "groups", "list", "--json").json == []
    assert len(run(log, "consume", "t", "--group", "g", "--until-end").lines) == 20


def test_a_group_of_which_the_server_assigns(log: str) -> None:
    """KIP-848: its members are there until their sessions end, also when nobody serves the log."""

    async def join() -> None:
        async with open_log(f"file:{log}") as opened:
            assert isinstance(opened, EmbeddedLog)
            broker = opened._broker
            heartbeat = Heartbeat(
                "m1", 0, "tests", instance_id="i", rebalance_timeout_ms=1000,
                topics=frozenset({"t"}), owned=frozenset(),
            )  # fmt: skip
            await broker.groups.modern.heartbeat("new", heartbeat, broker.partitions)
            at = {TopicPartition("t", 1): OffsetAndMetadata(3)}
            await broker.offsets.commit(ConsumerGroupMetadata("new", 1, "m1"), at)

    asyncio.run(join())
    assert "new    Stable  consumer" in run(log, "groups", "list").lines
    lines = run(log, "groups", "describe", "new").lines
    assert lines[:3] == [
        "new: Stable, 1 members",
        "  generation 1, assignor uniform",
        "  member m1 (i), client tests",
    ]
    assert lines[-1].split() == ["t-1", "3", "10", "7", "m1"]
    assert "has 1 members" in run(log, "groups", "delete", "new", code=1).err
    topic = Path(log) / "__consumer_offsets-0"
    dumped = run(log, "log", "dump", str(topic / f"{0:020}.log"), "--decode", "--json").json
    said = [each["decoded"] for each in dumped if each.get("decoded", {}).get("group") == "new"]
    assert [each["kind"] for each in said] == [
        *("group epoch", "assignment epoch", "group member", "member assignment"),
        *("target assignment", "offset"),
    ]
    assert (said[2]["topics"], len(said[4]["partitions"])) == (["t"], 2)
