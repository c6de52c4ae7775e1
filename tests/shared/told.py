"""Waiting for a log line, instead of looking for it again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager


class Told(logging.Handler):
    """Sets `event` when something is logged, and keeps what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.event = asyncio.Event()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self.event.set()


@contextmanager
def told_by(logger_name: str) -> Iterator[Told]:
    """Listen to a logger; used inside a running event loop."""
    told = Told()
    logger = logging.getLogger(logger_name)
    logger.addHandler(told)
    try:
        yield told
    finally:
        logger.removeHandler(told)
