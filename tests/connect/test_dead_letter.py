"""Dead letters fit their topic, whatever they carry, and say what was cut."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.connect import BadRecordError, Rejection
from millstream.connect.dead_letter import dead_letter_columns, place_of
from millstream.connect.source_parts import RECORD_OVERHEAD_BYTES
from millstream.log import Headers, TopicPartition, open_log

LIMIT_BYTES = 20_000


def rejection(
    key: bytes | None, value: bytes | None, reason: str = "bad", headers: Headers = ()
) -> Rejection:
    return Rejection(
        BadRecordError(reason),
        "TASK_PUT",
        key,
        value,
        headers=headers,
        origin=(TopicPartition("flights", 2), 17),
    )


@given(
    st.none() | st.binary(max_size=100),
    st.sampled_from([None, b"", b"small", b"x" * LIMIT_BYTES, b"y" * 3 * LIMIT_BYTES]),
    st.sampled_from([b"", b"k" * 2 * LIMIT_BYTES]),
)
def test_a_letter_always_fits(key: bytes | None, value: bytes | None, more_key: bytes) -> None:
    if more_key:
        key = (key or b"") + more_key
    keys, values, headers = dead_letter_columns([rejection(key, value)], "c", 0, LIMIT_BYTES)
    size_bytes = RECORD_OVERHEAD_BYTES + len(keys[0] or b"") + len(values[0] or b"")
    size_bytes += sum(len(name) + len(data or b"") + 10 for name, data in headers[0])
    assert size_bytes <= LIMIT_BYTES
    known = dict(headers[0])
    for name, whole, kept in (("key", key, keys[0]), ("value", value, values[0])):
        size = known.get(f"__connect.errors.{name}.size.bytes")
        assert (kept == whole) == (size is None)
        if size is not None and whole is not None and kept is not None:
            assert int(size) == len(whole)
            assert whole.startswith(kept)


def test_a_letter_at_the_limit_is_accepted_by_the_log() -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            await log.create_topic("dlq", config={"max.message.bytes": LIMIT_BYTES})
            large = rejection(b"k", b"v" * 10 * LIMIT_BYTES)
            keys, values, headers = dead_letter_columns([large], "c", 0, LIMIT_BYTES)
            async with log.producer() as producer:
                await producer.send("dlq", values[0], key=keys[0], headers=headers[0])

    asyncio.run(check())


def test_the_original_headers_come_first_and_a_strange_reason_is_no_problem() -> None:
    original = (("trace", b"1"), ("trace", None))
    _, _, [headers] = dead_letter_columns(
        [rejection(b"k", None, "lone \ud800 surrogate", original)], "c", 3, LIMIT_BYTES
    )
    assert headers[:2] == original
    assert dict(headers)["__connect.errors.exception.message"] == b"lone \\ud800 surrogate"
    assert dict(headers)["__connect.errors.task.id"] == b"3"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (rejection(None, None), "flights partition 2 offset 17"),
        (
            Rejection(
                BadRecordError("x"),
                "TASK_POLL",
                source_partition={"file": "/a.csv"},
                source_offset={"line": 3},
            ),
            "file /a.csv, line 3",
        ),
    ],
)
def test_people_are_told_where_it_was(where: Rejection, said: str) -> None:
    assert place_of(where) == said
