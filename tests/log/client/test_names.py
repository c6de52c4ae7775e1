"""Names and offsets that no record can hold are refused, and leave nothing behind."""

from __future__ import annotations

import pytest

from millstream.log import TopicPartition
from millstream.log.errors import ConfigError
from shared.logs import with_log

LONG = "x" * 40_000
NO_TEXT = "\udc80"
A = TopicPartition("a", 0)


@pytest.mark.parametrize("name", [LONG, NO_TEXT])
def test_names(name: str) -> None:
    async def body(log) -> None:
        await log.create_topic("a")
        with pytest.raises(ConfigError):
            await log.alter_group_offsets(name, {A: 1})
        with pytest.raises(ConfigError):
            await log.producer(transactional_id=name).begin_transaction()
        with pytest.raises(ConfigError):
            await log.consumer("a", group=name).poll(100)
        assert not await log.groups()
        async with log.producer(transactional_id="app") as producer, producer.transaction():
            await producer.send_offsets({A: 0}, group="readers")

    with_log(body)


def test_an_offset_has_64_bits() -> None:
    async def body(log) -> None:
        await log.create_topic("a")
        with pytest.raises(ConfigError, match="An offset is 0 or more"):
            await log.alter_group_offsets("readers", {A: 1 << 63})
        await log.alter_group_offsets("readers", {A: (1 << 63) - 1})

    with_log(body)
