"""Standard input and output for commands that move data: in a thread, in large pieces, unbuffered.

Reading a pipe and writing to one may wait for ever, and neither may hold up the event loop or the
end of the process. So each has a daemon thread that uses the descriptor's raw file object: a
buffered one is locked while it waits, which Python's exit does not survive.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TextIO, TypeVar

from millstream.log.errors import ConfigError

__all__ = ["StdinReader", "StdoutWriter"]

T = TypeVar("T")

READ_BYTES = 1 << 20


class StdinReader:
    """Pieces of standard input. Raises ConfigError when it is closed."""

    def __init__(self) -> None:
        self._raw = _raw(sys.stdin, "input")

    async def read(self) -> bytes:
        """The next piece; empty at the end. May be cancelled: then a piece may be lost."""
        return await _in_daemon_thread(lambda: self._raw.read(READ_BYTES) or b"")


class StdoutWriter:
    """Writes whole pieces to standard output. Raises ConfigError when it is closed."""

    def __init__(self) -> None:
        self._raw = _raw(sys.stdout, "output")

    async def write(self, data: bytes) -> None:
        """Return when every byte was taken.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        await _in_daemon_thread(lambda: self._write(data))

    def _write(self, data: bytes) -> None:
        with memoryview(data) as view:
            position = 0
            while position < len(view):
                position += self._raw.write(view[position:])


def _raw(stream: TextIO | None, name: str) -> Any:
    if stream is None:
        raise ConfigError(f"Standard {name} is closed. Connect it to a file or a pipe.")
    return getattr(stream.buffer, "raw", stream.buffer)


async def _in_daemon_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread that does not keep the process alive."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def answer(settle: Callable[[], None]) -> None:
        if not done.cancelled():
            settle()

    def main() -> None:
        try:
            settle = partial(done.set_result, work())
        except OSError as error:
            settle = partial(done.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(answer, settle)

    threading.Thread(target=main, daemon=True).start()
    return await done
