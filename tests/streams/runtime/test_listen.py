"""An app's process lets Kafka clients reach its log."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer

from millstream.log.errors import ConfigError
from millstream.streams import App
from millstream.streams.run import run_app
from shared.told import told_by

ADDRESS = re.compile(r"log served .*advertised=(\S+)")


def shouting(log: str, listen: str | None) -> App:
    app = App("shouting", log=log, listen=listen, commit_interval_ms=10)
    words = app.topic("words", value=str, partitions=1)

    @app.stream(words, to="shouts")
    def shout(word: str) -> str:
        return word.upper()

    return app


def shouted(address: str, word: str) -> str:
    """What the app makes of a word, by a client of another make."""
    producer = Producer({"bootstrap.servers": address})
    producer.produce("words", f'"{word}"')
    assert producer.flush(30) == 0
    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": "test", "auto.offset.reset": "earliest"}
    )
    try:
        consumer.subscribe(["shouts"])
        (message,) = consumer.consume(1, timeout=30)
        while (error := message.error()) is not None:  # the client was faster than the app
            assert error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
            (message,) = consumer.consume(1, timeout=30)
        return bytes(message.value()).decode()
    finally:
        consumer.close()


def test_clients_reach_the_log_of_an_app(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> str:
        stop = asyncio.Event()
        app = shouting(f"file:{tmp_path}/data", "127.0.0.1:0")
        with told_by("millstream.log") as told:
            running = asyncio.create_task(run_app(app, stop=stop))
            while not (found := ADDRESS.search("\n".join(told.messages))):
                told.event.clear()
                await told.event.wait()
        try:
            return await asyncio.to_thread(shouted, found[1], "hello")
        finally:
            stop.set()
            await running

    with caplog.at_level(logging.INFO, "millstream.log"):
        assert asyncio.run(main()) == '"HELLO"'


def test_a_log_beyond_this_machine_is_not_opened_to_everybody(tmp_path: Path) -> None:
    app = shouting(f"file:{tmp_path}/data", "0.0.0.0:0")
    with pytest.raises(ConfigError, match=r"can be reached from other machines.*log\.serve"):
        asyncio.run(run_app(app, until_end=True))
