"""What librdkafka reports of records: that they are acknowledged, or why not.

A report is a call in the thread that polls. For records sent in batches the call is that of a
dictionary, which keeps the last message of each error and of success: no Python runs for a record.
Those who wait for one record are told together, once a poll.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as LibrdkafkaProducer

from millstream.log.errors import LogError
from millstream.log.record import RecordMetadata

from .errors import error_of
from .own_thread import call_soon

__all__ = ["Deliveries"]

_POLL_S: Final = 0.1
"""How long a poll waits for reports that are to come."""
_IDLE_POLL_S: Final = 1.0
"""How often librdkafka is polled for what it wants to log, with no reports to come."""


_Report = tuple[asyncio.Future[Any], KafkaError | None, Message | None]
_GIVEN_UP: Final = {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}


class Deliveries:
    """The reports of one producer. Made in any thread; `stop` ends its own."""

    def __init__(self, producer: LibrdkafkaProducer) -> None:
        self._producer = producer
        self._reports: dict[KafkaError | None, Message] = {}
        self.report: Callable[[KafkaError | None, Message], None] = self._reports.__setitem__
        """What to have called back for a record that nobody waits for by itself."""
        self._answers: deque[tuple[asyncio.Future[Any], KafkaError | None, Message | None]] = (
            deque()
        )
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._expected = threading.Event()
        self._fatal: KafkaError | None = None
        self._stopped = False
        self._thread = threading.Thread(
            target=self._poll, name="millstream-kafka-deliveries", daemon=True
        )
        self._thread.start()

    def expect(self) -> None:
        """Records were handed over."""
        self._expected.set()

    def reported_to(
        self, answer: asyncio.Future[RecordMetadata]
    ) -> Callable[[KafkaError | None, Message], None]:
        """What to have called back for a record somebody waits for."""

        def report(error: KafkaError | None, message: Message) -> None:
            self._answers.append((answer, error, message))

        return report

    async def next_report(self, timeout_s: float) -> None:
        """Wait until something was reported, or the time is over."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._expected.set()
        await asyncio.wait([waiter], timeout=timeout_s)

    @property
    def failure(self) -> LogError | None:
        """The first record that failed since the last call of `forget_failure`."""
        for error, message in list(self._reports.items()):
            if error is not None:
                return self._error(error, message)
        return None

    def _error(self, error: KafkaError, message: Message) -> LogError:
        """A record that was given up with all others failed for the reason the producer did."""
        if error.code() in _GIVEN_UP and self._fatal is not None:
            error = self._fatal
        return error_of(error, _where(message))

    def note(self, raised: KafkaException) -> None:
        """Polling, or flushing, says once that the producer is past help; then what was sent is
        reported as given up."""
        if raised.args and isinstance(raised.args[0], KafkaError):
            self._fatal = raised.args[0]

    def forget_failure(self) -> None:
        """What failed is known by now."""
        self._reports.clear()

    def raise_failure(self) -> None:
        """Raise the first failure, once."""
        failure = self.failure
        self.forget_failure()
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """End the thread, and wait for it; not to be called by the event loop. Waiters go on."""
        self._stopped = True
        self._expected.set()
        self._thread.join()
        self.tell()

    def _poll(self) -> None:
        while not self._stopped:
            try:
                if len(self._producer):
                    self._producer.poll(_POLL_S)
                else:
                    self._expected.clear()
                    if not len(self._producer):  # nor meanwhile
                        self._expected.wait(_IDLE_POLL_S)
                    self._producer.poll(0)
            except KafkaException as raised:
                self.note(raised)
            self.tell()

    def tell(self) -> None:
        """Tell those who wait what was reported; after a call that polled by itself, too."""
        told: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
        with suppress(IndexError):  # another thread may append meanwhile
            while True:
                self._answers.append((self._waiting.popleft(), None, None))
        with suppress(IndexError):
            while True:
                future, error, message = self._answers.popleft()
                result: RecordMetadata | LogError | None = None
                if message is not None:
                    result = _metadata(message) if error is None else self._error(error, message)
                told.setdefault(future.get_loop(), []).append((future, result))
        for loop, results in told.items():
            call_soon(loop, _settle_all, results)


def _settle_all(results: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in results:
        if future.done():
            continue
        if isinstance(result, LogError):
            future.set_exception(result)
        else:
            future.set_result(result)


def _metadata(message: Message) -> RecordMetadata:
    return RecordMetadata(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        message.timestamp()[1],
    )


def _where(message: Message) -> str:
    partition = message.partition()
    if partition is None or partition < 0:
        return f"Topic {message.topic()}"
    return f"Partition {message.topic()}-{partition}"
