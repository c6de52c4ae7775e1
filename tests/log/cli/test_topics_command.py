"""`millstream topics`."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.commands import run


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "log")


def test_a_topic_from_creation_to_deletion(log: str) -> None:
    made = run(
        log, "topics", "create", "orders", "--partitions", "2", "--config", "retention.ms=5000"
    )
    assert made.text == "orders: created, 2 partitions\n"
    assert run(log, "topics", "list").lines == ["orders"]
    altered = run(
        log, "topics", "alter", "orders", "--partitions", "3", "--config", "segment.bytes=2048",
        "--delete-config", "retention.ms",
    )  # fmt: skip
    assert altered.lines == ["orders: altered, 3 partitions", "  segment.bytes=2048"]
    assert run(log, "topics", "delete", "orders", "--yes").text == "orders: deleted\n"
    assert run(log, "topics", "list").text == ""


def test_describe_in_a_table_and_in_json(log: str) -> None:
    run(log, "topics", "create", "orders", "--partitions", "2")
    run(log, "produce", "orders", "--partition", "1", stdin=b"a\nb\n")
    table = run(log, "topics", "describe", "orders").lines
    assert table[0].startswith("orders: id ")
    assert table[1] == "  settings: all as by default"
    assert [line.split() for line in table[2:5]] == [
        ["partition", "log", "start", "stable", "high", "watermark", "end", "size", "segments"],
        ["0", "0", "0", "0", "0", "0", "B", "1"],
        ["1", "0", "2", "2", "2", "77", "B", "1"],
    ]
    [topic] = run(log, "topics", "describe", "--json").json
    assert topic["name"] == "orders"
    assert topic["config"]["segment.bytes"] == str(1 << 30)
    assert topic["partitions"][1] == {
        "partition": 1,
        "log_start_offset": 0,
        "last_stable_offset": 2,
        "high_watermark": 2,
        "log_end_offset": 2,
        "size_bytes": 77,
        "segments": 1,
    }


def test_internal_topics_on_demand(log: str) -> None:
    run(log, "produce", "orders", "--transactional-id", "t", stdin=b"a\n")
    assert run(log, "topics", "list").lines == ["orders"]
    assert run(log, "topics", "list", "--internal").lines == ["__transaction_state", "orders"]
    found = run(log, "topics", "list", "--internal", "--json").json
    assert found[0] == {"name": "__transaction_state", "partitions": 1, "internal": True}
    described = run(log, "topics", "describe", "--internal", "--json").json
    assert [topic["internal"] for topic in described] == [True, False]


def test_what_is_refused_and_how(log: str) -> None:
    run(log, "topics", "create", "orders")
    assert "--if-not-exists" in run(log, "topics", "create", "orders", code=1).err
    again = run(log, "topics", "create", "orders", "--if-not-exists", "--partitions", "9")
    assert again.text == "orders: exists, 1 partition\n"
    assert "Did you mean" in run(
        log, "topics", "create", "x", "--config", "retention.msec=1", code=1
    ).err  # fmt: skip
    assert "write NAME=VALUE" in run(log, "topics", "create", "x", "--config", "a", code=2).err
    assert "Nothing to change" in run(log, "topics", "alter", "orders", code=2).err
    assert "does not exist" in run(log, "topics", "alter", "x", "--partitions", "2", code=1).err
    assert "does not exist" in run(log, "topics", "describe", "orders", "x", code=1).err
    assert "say so with --yes" in run(log, "topics", "delete", "orders", code=2).err
    assert run(log, "topics", "list").lines == ["orders"]
    run(log, "topics", "delete", "x", "--yes", code=1)
    missing = run(log, "topics", "delete", "x", "--yes", "--if-exists", "--json").json
    assert missing == [{"name": "x", "deleted": False}]


def test_a_log_that_verify_takes_for_one_is_one(log: str) -> None:
    run(log, "topics", "create", "orders")
    (Path(log) / "meta.properties").unlink()
    assert "notice: " in run(log, "log", "verify", log).text
    assert run(log, "topics", "list").lines == ["orders"]


def test_looking_does_not_make_a_log(log: str) -> None:
    for command in (["topics", "list"], ["consume", "orders"], ["transactions", "list"]):
        assert "There is no log in" in run(log, *command, code=1).err
    assert not Path(log).exists()
