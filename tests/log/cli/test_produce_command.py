"""`millstream produce`: what becomes of lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.commands import run


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "log")


def records(log: str, topic: str = "t") -> list[dict[str, Any]]:
    return run(log, "consume", topic, "--until-end", "--format", "json").json


def values(log: str, topic: str = "t") -> list[str]:
    return [each["value"] for each in records(log, topic)]


def test_lines_are_values_also_the_last_without_its_end(log: str) -> None:
    ran = run(log, "produce", "t", "--json", stdin=b"one\n\ntwo \xc3\xa9\r\nthree")
    [result] = ran.json
    assert (result["lines"], result["acknowledged"], result["stopped"]) == (4, 4, False)
    assert values(log) == ["one", "", "two é\r", "three"]
    assert "0 records acknowledged" in run(log, "produce", "t", stdin=b"").err


def test_keys_headers_and_null(log: str) -> None:
    run(
        log, "produce", "t", "--key-separator", r"\t", "--parse-headers", "--null-marker", "-",
        "--header", "from=test", "--timestamp", "2024-05-01T12:00Z",
        stdin=b"a:1,b:\tk\tv\tw\n\t-\t-\n",
    )  # fmt: skip
    first, second = records(log)
    assert (first["key"], first["value"], first["timestamp"]) == ("k", "v\tw", 1_714_564_800_000)
    assert first["headers"] == [
        {"key": "from", "value": "test"},
        {"key": "a", "value": "1"},
        {"key": "b", "value": ""},
    ]
    assert (second["key"], second["value"]) == (None, None)


def test_headers_may_repeat_and_keep_their_spaces(log: str) -> None:
    run(log, "produce", "t", "--header", "h=a ", "--header", "h=b=c", stdin=b"x\n")
    assert records(log)[0]["headers"] == [{"key": "h", "value": "a "}, {"key": "h", "value": "b=c"}]


@pytest.mark.parametrize(
    ("separator", "between"),
    [
        (r"\t", b"\t"),
        ("é", "é".encode()),
        (r"é\t", "é\t".encode()),
        (r"\xff", b"\xff"),
        (r"\x", rb"\x"),
        ("\udcff", b"\xff"),
    ],
)
def test_separators_are_those_of_consume(log: str, separator: str, between: bytes) -> None:
    """The last is what Python makes of an argument that is the byte 0xFF."""
    line = b"k" + between + b"v\n"
    run(log, "produce", "t", "--key-separator", separator, stdin=line)
    [record] = records(log)
    assert (record["key"], record["value"]) == ("k", "v")
    form = ["--format", "key-value", "--key-separator", separator]
    assert run(log, "consume", "t", "--until-end", *form).out == line
    ran = run(log, "produce", "t", "--key-separator", separator, stdin=b"kv\n", code=1)
    assert "line 1: there is no key separator" in ran.err


def test_arguments_that_are_no_text(log: str) -> None:
    run(
        log, "produce", "t", "--header", "h=\udcff", "--null-marker", "\udcff",
        stdin=b"\xff\n",
    )  # fmt: skip
    [record] = records(log)
    assert (record["value"], record["headers"]) == (None, [{"key": "h", "value_base64": "/w=="}])
    shown = run(log, "consume", "t", "--until-end", "--null-marker", "\udcff").out
    assert shown == b"\xff\n"
    ran = run(log, "produce", "t", "--header", "\udcff=x", stdin=b"x\n", code=2)
    assert "the name of a header is UTF-8" in ran.err


def test_keys_choose_partitions_as_kafkas_do(log: str) -> None:
    run(log, "topics", "create", "t", "--partitions", "2")
    lines = b"".join(b"anna=%d\ndora=%d\n" % (n, n) for n in range(20))
    run(log, "produce", "t", "--key-separator", "=", "--compression", "zstd", stdin=lines)
    for key, partition in (("dora", 0), ("anna", 1)):
        found = [each for each in records(log) if each["partition"] == partition]
        assert [(each["key"], each["value"]) for each in found] == [
            (key, str(n)) for n in range(20)
        ]


def test_json_lines(log: str) -> None:
    run(log, "topics", "create", "t", "--partitions", "3")
    lines = (
        b'{"key": "k", "value": {"n": 1}, "partition": 2, "timestamp": 5}\n'
        b'{"value_base64": "/wA=", "headers": {"h": null}, "partition": 1}\n'
        b'{"key_base64": "AP8=", "value": null, "partition": 2, "offset": 9, "topic": "x"}\n'
    )
    run(log, "produce", "t", "--format", "json", stdin=lines)
    found = {(each["partition"], each["offset"]): each for each in records(log)}
    assert found[2, 0]["value"] == '{"n":1}'
    assert found[2, 0]["timestamp"] == 5
    assert found[2, 1]["key_base64"] == "AP8="
    assert found[1, 0]["value_base64"] == "/wA="
    assert found[1, 0]["headers"] == [{"key": "h", "value": None}]


BAD = [
    (b"[1]", "no JSON object"),
    (b"{", "no JSON"),
    (b'{"values": "x"}', "it has 'values'"),
    (b'{"value": "x", "value_base64": "eA=="}', "both"),
    (b'{"value": ' + b"[" * 500 + b"]" * 500 + b"}", "nested"),
    (b'{"value_base64": "?"}', "no base64"),
    (b'{"value_base64": 1}', "no string"),
    (b'{"timestamp": "now"}', "whole number"),
    (b'{"timestamp": true}', "whole number"),
    (b'{"partition": -1}', "whole number"),
    (b'{"partition": 7}', "no partition 7 of t, which has 1"),
    (b'{"headers": "x"}', "headers are a list"),
    (b'{"headers": [1]}', "a header is"),
    (b'{"headers": [{"key": "h", "val": "x"}]}', "a header is"),
]


@pytest.mark.parametrize(("line", "why"), BAD)
def test_a_bad_line_is_named_and_nothing_of_it_is_sent(log: str, line: bytes, why: str) -> None:
    stdin = b'{"value": "a"}\n{"value": "b"}\n' + line + b'\n{"value": "c"}\n'
    ran = run(log, "produce", "t", "--format", "json", "--json", stdin=stdin, code=1)
    assert ran.err.startswith("error: line 3: ")
    assert why in ran.err
    assert ran.json[0]["acknowledged"] == 2
    assert values(log) == ["a", "b"]


def test_a_line_without_key_or_headers(log: str) -> None:
    ran = run(log, "produce", "t", "--key-separator", ",", stdin=b"a,b\nc\n", code=1)
    assert "line 2: there is no key separator ','" in ran.err
    ran = run(log, "produce", "t", "--parse-headers", stdin=b"x\tb\n", code=1)
    assert "write name:value" in ran.err
    assert values(log) == ["b"]


def test_a_record_that_is_too_large_is_named(log: str) -> None:
    run(log, "topics", "create", "t", "--partitions", "2", "--config", "max.message.bytes=1000")
    lines = b"k=a\n" * 10 + b"k=" + b"." * 600 + b"\nk=" + b"." * 2000 + b"\nk=b\n"
    ran = run(log, "produce", "t", "--key-separator", "=", stdin=lines, code=1)
    assert "error: line 12: " in ran.err
    assert "11 records acknowledged" in ran.err
    assert len(values(log)) == 11
    ran = run(log, "produce", "t", stdin=b"a\n" + b"." * 2000 + b"\n", code=1)
    assert "error: line 2: " in ran.err


def test_all_lines_in_one_transaction_or_none(log: str) -> None:
    run(log, "produce", "t", "--transactional-id", "x", stdin=b"a\nb\n")
    bad = b'{"value": "c"}\nnonsense\n'
    ran = run(
        log, "produce", "t", "--transactional-id", "x", "--format", "json", "--json",
        stdin=bad, code=1,
    )  # fmt: skip
    assert "The transaction was aborted: nothing is written" in ran.err
    assert ran.json[0]["acknowledged"] == 0
    assert values(log) == ["a", "b"]
    seen = run(log, "consume", "t", "--until-end", "--isolation", "read_uncommitted").lines
    assert seen == ["a", "b", "c"]


def test_wrong_usage(log: str) -> None:
    for arguments in (
        ["--format", "json", "--key-separator", ","],
        ["--key-separator", ""],
        ["--timestamp", "noon"],
        ["--timestamp", "@9223372036854775808"],
        ["--timestamp", "@" + "9" * 5000],
        ["--timestamp", "9" * 15 + "w ago"],
        ["--timestamp", "1969-12-31T23:59"],
        ["--header", "x"],
        ["--partition", "-1"],
    ):
        run(log, "produce", "t", *arguments, code=2)
    assert not Path(log).exists()


def test_many_lines_arrive_in_order(log: str) -> None:
    lines = [b"%d" % n for n in range(50_000)]
    run(log, "produce", "t", stdin=b"\n".join(lines))
    assert run(log, "consume", "t", "--until-end").out.splitlines() == lines
