"""The commands for a log, on one that is reached over the network, of either kind."""

from __future__ import annotations

import asyncio
import re
import threading

from millstream.log import open_log
from shared.commands import run

LINES = b"".join(b"key-%d\tvalue-%d\n" % (n % 3, n) for n in range(30))
VALUES = [f"value-{n}" for n in range(30)]


def test_topics(kafka_url: str) -> None:
    created = run(
        kafka_url, "topics", "create", "orders", "--partitions", "2", "--config", "retention.ms=-1"
    )
    assert "orders" in created.text
    assert run(kafka_url, "topics", "list").lines == ["orders"]
    run(kafka_url, "topics", "alter", "orders", "--partitions", "3", "--config", "segment.ms=60000")
    run(kafka_url, "produce", "orders", "--key-separator", r"\t", stdin=LINES)
    [told] = run(kafka_url, "topics", "describe", "orders", "--json").json
    assert [each["partition"] for each in told["partitions"]] == [0, 1, 2]
    assert sum(each["high_watermark"] for each in told["partitions"]) == 30
    assert "3 partitions" in run(kafka_url, "topics", "describe", "orders").text
    run(kafka_url, "topics", "delete", "orders", "--yes")
    assert run(kafka_url, "topics", "list").lines == []
    refused = run(kafka_url, "topics", "describe", "orders", code=1)
    assert "orders" in refused.err
    assert "Traceback" not in refused.err


def test_produce_and_consume(kafka_url: str) -> None:
    run(kafka_url, "topics", "create", "orders", "--partitions", "2")
    run(kafka_url, "produce", "orders", "--key-separator", r"\t", stdin=LINES)
    everything = run(kafka_url, "consume", "orders", "--until-end", "--format", "json")
    assert sorted((each["key"], each["value"]) for each in everything.json) == sorted(
        (f"key-{n % 3}", f"value-{n}") for n in range(30)
    )
    run(kafka_url, "topics", "create", "copy", "--partitions", "2")
    run(kafka_url, "produce", "copy", "--format", "json", stdin=everything.out)
    copied = run(kafka_url, "consume", "copy", "--until-end", "--format", "json").json
    assert sorted(map(str, copied)) == sorted(
        str(each | {"topic": "copy"}) for each in everything.json
    )
    last = max(each["offset"] for each in everything.json if each["partition"] == 0)
    tail = run(
        kafka_url, "consume", "orders", "--until-end", "--partition", "0", "--from", str(last)
    )
    assert len(tail.lines) == 1
    assert run(kafka_url, "consume", "orders", "--until-end", "--from", "end").lines == []
    assert len(run(kafka_url, "consume", "orders", "--count", "7").lines) == 7


def test_groups(kafka_url: str) -> None:
    run(kafka_url, "topics", "create", "orders", "--partitions", "2")
    run(kafka_url, "produce", "orders", "--key-separator", r"\t", stdin=LINES)
    group = ("--group", "billing", "--until-end")
    first = run(kafka_url, "consume", "orders", "--count", "10", *group).lines
    rest = run(kafka_url, "consume", "orders", *group).lines
    assert (len(first), sorted(first + rest)) == (10, sorted(VALUES))
    assert run(kafka_url, "consume", "orders", *group).lines == []
    run(kafka_url, "produce", "orders", stdin=b"late\n")
    assert run(kafka_url, "consume", "orders", *group).lines == ["late"]

    assert "billing" in run(kafka_url, "groups", "list").text
    described = run(kafka_url, "groups", "describe", "billing").text
    assert re.search(r"^billing: Empty, 0 members", described)
    to_beginning = ("groups", "reset", "billing", "--to", "beginning")
    run(kafka_url, *to_beginning)
    assert run(kafka_url, "consume", "orders", *group).lines == []
    run(kafka_url, *to_beginning, "--execute")
    again = run(kafka_url, "consume", "orders", *group).lines
    assert sorted(again) == sorted([*VALUES, "late"])
    run(kafka_url, "groups", "delete", "billing")
    assert "billing" not in run(kafka_url, "groups", "list").text
    assert "Traceback" not in run(kafka_url, "groups", "describe", "billing", code=1).err


def test_consume_waits_for_a_transaction_that_is_open(kafka_url: str) -> None:
    run(kafka_url, "topics", "create", "orders")
    is_open = threading.Event()

    async def write() -> None:
        async with (
            open_log(kafka_url) as log,
            log.producer(transactional_id="other") as producer,
        ):
            await producer.begin_transaction()
            await producer.send("orders", b"in the transaction")
            await producer.flush()
            is_open.set()
            await asyncio.sleep(2)  # in which a command that does not wait is over
            await producer.commit_transaction()

    writing = threading.Thread(target=lambda: asyncio.run(write()))
    writing.start()
    assert is_open.wait(60)
    try:
        found = run(kafka_url, "consume", "orders", "--until-end").lines
        dirty = run(
            kafka_url, "consume", "orders", "--until-end", "--isolation", "read_uncommitted"
        )
    finally:
        writing.join()
    assert found == dirty.lines == ["in the transaction"]
