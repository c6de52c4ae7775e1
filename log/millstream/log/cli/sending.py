"""Sends lines: reads pieces of standard input, makes columns of them, hands them to a producer.

Memory is bounded by one piece, one line and the producer's buffer. While the next piece is awaited,
what was read is on its way: a person who types sees each line acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from millstream.log.errors import LogError
from millstream.log.record import Headers

from .pipes import StdinReader
from .record_lines import BadLineError, LineReader, PlainLines, Row

if TYPE_CHECKING:
    from millstream.log.interface import Producer
    from millstream.log.record import TopicDescription

__all__ = ["Request", "Sent", "send_lines"]

LINE_BYTES_MAX = 64 << 20
"""More than any topic takes by default; a line without an end must not fill the memory."""
BATCH_LINES = 20_000
TRANSACTION_TIMEOUT_MS = 900_000


class Request(NamedTuple):
    """What to send where."""

    log_url: str
    topic: str
    reader: LineReader
    headers: Headers
    partition: int | None
    timestamp: int | None
    compression: str
    transactional_id: str | None


class Sent(NamedTuple):
    """What became of it. `problem` says why it ended early, if it did."""

    lines: int
    acknowledged: int
    problem: str
    stopped: bool


class _FailedError(Exception):
    """What ends the sending; lines before it were handed over."""


async def send_lines(request: Request, stop: asyncio.Event) -> Sent:
    """Send standard input until it ends, a line is bad, or `stop` is set.

    Raises:
        LogError: the log could not be opened or written.
    """
    from millstream.log import open_log

    config: dict[str, str | int] = {"compression.type": request.compression}
    if request.transactional_id is not None:
        config["transaction.timeout.ms"] = TRANSACTION_TIMEOUT_MS
    async with open_log(request.log_url) as log:
        producer = log.producer(transactional_id=request.transactional_id, config=config)
        async with producer:
            topic = await log.create_topic(request.topic, exist_ok=True)
            return await _Sending(request, producer, stop, topic).run()


class _Sending:
    """One run of the command."""

    def __init__(
        self, request: Request, producer: Producer, stop: asyncio.Event, topic: TopicDescription
    ) -> None:
        self._request = request
        self._producer = producer
        self._stop = stop
        self._stdin = StdinReader()
        self._lines = 0
        self._partitions = topic.partitions
        fixed_bytes = sum(len(name) + len(value or b"") for name, value in request.headers)
        self._small_bytes = int(topic.config["max.message.bytes"]) // 2 - fixed_bytes
        """Up to this size no record is too large for the topic, whatever surrounds it."""
        self._in_transaction = request.transactional_id is not None

    async def run(self) -> Sent:
        problem = ""
        if self._in_transaction:
            await self._producer.begin_transaction()
        try:
            stopped = await self._send_all()
        except _FailedError as failure:
            stopped, problem = False, str(failure)
        if self._in_transaction and (problem or stopped):
            await self._producer.abort_transaction()
            note = " The transaction was aborted: nothing is written." if problem else ""
            return Sent(self._lines, 0, problem + note, stopped)
        try:
            if self._in_transaction:
                await self._producer.commit_transaction()
            else:
                await self._producer.flush()
        except LogError as error:
            what = f"{error} How many of {self._lines:,} records were written is not known."
            return Sent(self._lines, 0, problem or what, stopped)
        return Sent(self._lines, self._lines, problem, stopped)

    async def _send_all(self) -> bool:
        """Send everything; returns whether it was stopped before the end."""
        stopping = asyncio.ensure_future(self._stop.wait())
        rest = b""
        try:
            while True:
                reading = asyncio.ensure_future(self._stdin.read())
                await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.cancel()
                    return True
                piece = reading.result()
                if not piece and self._stop.is_set():
                    return True
                lines = (rest + piece).split(b"\n")
                rest = lines.pop()
                if len(rest) > LINE_BYTES_MAX:
                    raise _FailedError(
                        f"line {self._lines + len(lines) + 1}: more than {LINE_BYTES_MAX} bytes "
                        "without an end of line."
                    )
                if not piece and rest:
                    lines.append(rest)
                for start in range(0, len(lines), BATCH_LINES):
                    await self._send(lines[start : start + BATCH_LINES])
                if not piece or self._stop.is_set():
                    return bool(piece)
        finally:
            stopping.cancel()

    async def _send(self, lines: list[bytes]) -> None:
        """Send lines; those before a bad one are handed over before it is reported."""
        reader = self._request.reader
        if isinstance(reader, PlainLines) and reader.only_values and not self._request.headers:
            await self._send_values(lines)
            return
        rows: list[Row] = []
        bad = ""
        for number, line in enumerate(lines, self._lines + 1):
            try:
                row = reader.row(line)
                if row.partition is not None and row.partition >= self._partitions:
                    raise BadLineError(
                        f"there is no partition {row.partition} of {self._request.topic}, which "
                        f"has {self._partitions}"
                    )
                rows.append(row)
            except BadLineError as error:
                bad = f"line {number}: {error}."
                break
        for group in _groups(rows, self._request.partition):
            await self._send_rows(group)
        if bad:
            raise _FailedError(bad)

    async def _send_values(self, values: list[bytes]) -> None:
        """Values as they stand: the fast way."""
        if max(map(len, values), default=0) > self._small_bytes:
            rows = [Row(None, value, (), None, None) for value in values]
            await self._send_rows(rows)
            return
        timestamp = self._request.timestamp
        timestamps = None if timestamp is None else [timestamp] * len(values)
        await self._hand_over(values, None, timestamps, None, self._request.partition)

    async def _send_rows(self, rows: list[Row]) -> None:
        """Rows of one partition, or of those that their keys say. One that may be too large goes
        alone, so that it fails alone."""
        start = 0
        for i, row in enumerate(rows):
            if _size_bytes(row) > self._small_bytes:
                await self._send_columns(rows[start:i])
                await self._send_columns([row])
                start = i + 1
        await self._send_columns(rows[start:])

    async def _send_columns(self, rows: list[Row]) -> None:
        if not rows:
            return
        now_ms = self._request.timestamp
        if now_ms is None:
            now_ms = time.time_ns() // 1_000_000
        fixed = self._request.headers
        headers = [fixed + row.headers for row in rows]
        partition = self._request.partition
        await self._hand_over(
            [row.value for row in rows],
            [row.key for row in rows],
            [now_ms if row.timestamp is None else row.timestamp for row in rows],
            headers if any(headers) else None,
            rows[0].partition if partition is None else partition,
        )

    async def _hand_over(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None,
        timestamps: Sequence[int] | None,
        headers: Sequence[Headers] | None,
        partition: int | None,
    ) -> None:
        try:
            await self._producer.send_batch(
                self._request.topic,
                values,
                keys=keys,
                timestamps=timestamps,
                headers=headers,
                partition=partition,
            )
        except LogError as error:
            where = f"line {self._lines + 1}" + (" or one behind it" if len(values) > 1 else "")
            raise _FailedError(f"{where}: {error}") from None
        self._lines += len(values)


def _groups(rows: list[Row], partition: int | None) -> Iterator[list[Row]]:
    """Rows that may be sent together. Order within each partition stays: rows that say theirs and
    rows that leave it to their keys are never swapped."""
    if partition is not None or not rows:
        yield rows
        return
    if all(row.partition is not None for row in rows):
        by_partition: dict[int | None, list[Row]] = {}
        for row in rows:
            by_partition.setdefault(row.partition, []).append(row)
        yield from by_partition.values()
        return
    for _, run in groupby(rows, key=lambda row: row.partition):
        yield list(run)


def _size_bytes(row: Row) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in row.headers)
    return len(row.key or b"") + len(row.value or b"") + headers
