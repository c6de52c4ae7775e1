"""`millstream consume`: where it begins and ends, and what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.commands import run

LINES = (
    b'{"key": "a", "value": "1", "partition": 0, "timestamp": 1000}\n'
    b'{"key": "b", "value": "2", "partition": 1, "timestamp": 2000, "headers": {"h": "x"}}\n'
    b'{"key": null, "value": null, "partition": 0, "timestamp": 3000}\n'
    b'{"key_base64": "/w==", "value": "4", "partition": 0, "timestamp": 4000}\n'
)


@pytest.fixture
def log(tmp_path: Path) -> str:
    folder = str(tmp_path / "log")
    run(folder, "topics", "create", "t", "--partitions", "2")
    run(folder, "produce", "t", "--format", "json", stdin=LINES)
    return folder


def consume(log: str, *arguments: str) -> list[bytes]:
    return run(log, "consume", "t", "--until-end", *arguments).out.splitlines()


def test_formats(log: str) -> None:
    assert consume(log) == [b"1", b"null", b"4", b"2"]
    assert consume(log, "--null-marker", "", "--partition", "0") == [b"1", b"", b"4"]
    assert consume(log, "--format", "key-value") == [b"a\t1", b"null\tnull", b"\xff\t4", b"b\t2"]
    assert consume(log, "--format", "key-value", "--key-separator", "=")[0] == b"a=1"
    template = r"%t-%p@%o %k=%s %T %h %K %S 100%%\x41\n"
    assert consume(log, "--format", template)[::3] == [
        b"t-0@0 a=1 1000  1 1 100%A",
        b"t-1@0 b=2 2000 h=x 1 1 100%A",
    ]
    assert consume(log, "--format", r"%K %S\n")[1] == b"-1 -1"
    assert run(log, "consume", "t", "--until-end", "--format", "%R", "--count", "1").out == (
        b"\0\0\0\x01"
    )


def test_json_carries_everything_and_can_be_produced_again(log: str) -> None:
    for flags in ([], ["--base64"]):
        first = run(log, "consume", "t", "--until-end", "--format", "json", *flags)
        copy = f"copy{len(flags)}"
        run(log, "topics", "create", copy, "--partitions", "2")
        run(log, "produce", copy, "--format", "json", stdin=first.out)
        second = run(log, "consume", copy, "--until-end", "--format", "json", *flags)
        assert [line | {"topic": "t"} for line in second.json] == first.json
    assert first.json[0]["value_base64"] == "MQ=="


def test_where_it_begins(log: str) -> None:
    assert consume(log, "--from", "end") == []
    assert consume(log, "--from", "1", "--partition", "0") == [b"null", b"4"]
    assert consume(log, "--from", "@2500") == [b"null", b"4"]
    assert consume(log, "--from", "1970-01-01T00:00:02Z") == [b"null", b"4", b"2"]
    assert consume(log, "--from", "1h ago") == []
    assert consume(log, "--count", "2") == [b"1", b"null"]
    wrong = run(log, "consume", "t", "--from", "2", "--until-end", code=1)
    assert "Partition t-1 has offsets 0 to 1, not 2" in wrong.err


def test_a_group_goes_on_behind_what_was_printed(log: str) -> None:
    assert consume(log, "--group", "g", "--count", "1") == [b"1"]
    assert consume(log, "--group", "g", "--count", "2") == [b"null", b"4"]
    assert consume(log, "--group", "g") == [b"2"]
    assert consume(log, "--group", "g") == []
    assert consume(log, "--group", "other", "--from", "end") == []


def test_aborted_records_are_passed_and_the_end_is_found(log: str) -> None:
    bad = b'{"value": "aborted"}\nx\n'
    run(
        log, "produce", "t", "--transactional-id", "x", "--format", "json", stdin=bad, code=1
    )  # fmt: skip
    assert len(consume(log)) == 4
    assert b"aborted" in consume(log, "--isolation", "read_uncommitted")
    assert len(consume(log, "--group", "g")) == 4
    assert consume(log, "--group", "g") == []


def test_wrong_usage(log: str) -> None:
    for arguments, why in (
        (["--format", "values"], "value, key-value, json"),
        (["--format", "%z"], "%z is none of"),
        (["--from", "noon"], "none of: beginning"),
        (["--from", "9" * 5000], "none of: beginning"),
        (["--from", "@" + "9" * 5000], "none of: beginning"),
        (["--from", "9" * 5000 + "d ago"], "none of: beginning"),
        (["--group", ""], "--group is empty"),
        (["--group", "g", "--partition", "0"], "shares partitions"),
        (["--group", "g", "--from", "5"], "groups reset g --to 5"),
    ):
        assert why in run(log, "consume", "t", *arguments, code=2).err
    assert "does not exist" in run(log, "consume", "absent", code=1).err
    assert "no partition 5" in run(log, "consume", "t", "--partition", "5", code=1).err
