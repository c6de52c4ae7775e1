"""A call of librdkafka that never ends is not waited for for ever, and keeps nothing open."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from millstream.log import LogClosedError, LogTimeoutError, TopicPartition
from millstream.log.kafka import kafka_producer
from millstream.log.kafka.kafka_producer import KafkaProducer
from millstream.log.kafka.own_thread import OwnThread
from millstream.log.kafka.recent_topics import RecentTopics
from millstream.log.kafka.settings import KafkaProducerConfig


class Stuck:
    """Stands for librdkafka's producer, whose coordinator never comes back."""

    is_asked = threading.Event()
    comes_back = threading.Event()

    def __init__(self, _settings: Any) -> None:
        pass

    def __len__(self) -> int:
        return 0

    def poll(self, _timeout_s: float) -> None:
        pass

    def init_transactions(self, _timeout_s: float) -> None:
        pass

    def begin_transaction(self) -> None:
        pass

    def send_offsets_to_transaction(self, *_: Any) -> None:
        self.is_asked.set()
        self.comes_back.wait()


def test_offsets_that_are_never_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_producer, "LibrdkafkaProducer", Stuck)
    monkeypatch.setattr(kafka_producer, "ANSWER_MIN_S", 0.01)
    threads = set(threading.enumerate())

    async def main() -> None:
        config = KafkaProducerConfig.parse({"transaction.timeout.ms": 1_000})
        async with KafkaProducer(
            *({"socket.timeout.ms": 1_000}, "kafka://x"),
            transactional_id="orders",
            config=config,
            recent=RecentTopics(),
            on_close=lambda _: None,
        ) as producer:
            with pytest.raises(LogTimeoutError, match=r"orders: .*Make another") as caught:
                async with producer.transaction():
                    await producer.send_offsets({TopicPartition("t", 0): 3}, group="g")
            assert caught.value.retriable
            with pytest.raises(LogClosedError):
                await producer.begin_transaction()

    asyncio.run(asyncio.wait_for(main(), 60))
    all_end(threads)


def test_an_end_behind_offsets_that_are_never_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for those any more, as when the app is told to end at once."""
    monkeypatch.setattr(kafka_producer, "LibrdkafkaProducer", Stuck)
    monkeypatch.setattr(kafka_producer, "ANSWER_MIN_S", 0.01)
    Stuck.is_asked.clear()
    Stuck.comes_back.clear()
    threads = set(threading.enumerate())

    async def main() -> None:
        producer = KafkaProducer(
            *({"socket.timeout.ms": 1_000}, "kafka://x"),
            transactional_id="orders",
            config=KafkaProducerConfig.parse({"transaction.timeout.ms": 1_000}),
            recent=RecentTopics(),
            on_close=lambda _: None,
        )
        await producer.begin_transaction()
        sending = asyncio.create_task(producer.send_offsets({TopicPartition("t", 0): 3}, group="g"))
        await asyncio.to_thread(Stuck.is_asked.wait, 60)
        sending.cancel()
        await asyncio.wait([sending])
        with pytest.raises(LogTimeoutError, match=r"orders: .*Make another"):
            await producer.close()

    asyncio.run(asyncio.wait_for(main(), 30))
    all_end(threads)


def all_end(before: set[threading.Thread]) -> None:
    """Those that were not there before, as soon as librdkafka answers."""
    Stuck.comes_back.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive(), thread


def test_a_call_in_time_is_no_reason_to_give_up() -> None:
    async def main() -> None:
        def fail() -> None:
            raise TimeoutError("its own")

        thread = OwnThread("producer")
        assert await thread.run_within(60, lambda: 5) == 5
        with pytest.raises(TimeoutError, match="its own"):
            await thread.run_within(60, fail)
        assert not thread.is_given_up
        assert await thread.run(lambda: 6) == 6
        await thread.stop()

    asyncio.run(main())
