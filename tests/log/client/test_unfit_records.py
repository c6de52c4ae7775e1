"""Records that no batch can hold: a clear error for each, and for nobody else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from millstream.log import (
    InvalidRecordError,
    InvalidTimestampError,
    RecordMetadata,
    TopicPartition,
)
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.format.header import TIMESTAMP_MAX
from millstream.log.settings import LONG_MAX
from shared.logs import values, with_log

T0 = TopicPartition("t", 0)
UNFIT = [
    ({"timestamp": 1 << 70}, InvalidTimestampError, "timestamp"),
    ({"timestamp": TIMESTAMP_MAX + 1}, InvalidTimestampError, "timestamp"),
    ({"timestamp": -2}, InvalidTimestampError, "timestamp"),
    ({"timestamp": 1.5}, TypeError, "integer"),
    ({"timestamp": "now"}, TypeError, "integer"),
    ({"headers": (("\ud800", b""),)}, InvalidRecordError, "header"),
    ({"headers": ((b"key", b""),)}, TypeError, "header"),
]


@pytest.mark.parametrize(("given", "error", "match"), UNFIT)
def test_what_no_record_can_hold_harms_no_other_record(
    given: dict[str, Any], error: type[Exception], match: str
) -> None:
    async def body(log: EmbeddedLog) -> None:
        async with log.producer() as producer:
            results = await asyncio.gather(
                producer.send("t", b"bad", **given),
                producer.send("t", b"good", timestamp=TIMESTAMP_MAX),
                producer.send("t", b"bad", **given),
                return_exceptions=True,
            )
            assert [type(each) for each in results] == [error, RecordMetadata, error]
            assert match in str(results[0])
            columns: dict[str, Any] = {
                name.rstrip("s") + "s": [value] for name, value in given.items()
            }
            with pytest.raises(error):
                await producer.send_batch("t", [b"bad"], **columns)
        async with log.producer(transactional_id="x") as producer:
            for send in (
                lambda: producer.send("t", b"bad", **given),
                lambda: producer.send_batch("t", [b"bad"], **columns),
            ):
                await producer.begin_transaction()
                with pytest.raises(error):
                    await send()
                with pytest.raises(error):
                    await producer.commit_transaction()  # it lost a record
                await producer.abort_transaction()
        assert await values(log, T0) == [b"good"]

    async def make_topic(log: EmbeddedLog) -> None:
        await log.create_topic("t", config={"message.timestamp.after.max.ms": LONG_MAX})
        await asyncio.wait_for(body(log), 5)

    with_log(make_topic)
