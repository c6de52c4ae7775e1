"""Threads for the disk when the system has too few of them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from millstream.log import StorageError, open_log
from millstream.log.broker import disk_threads
from millstream.log.broker.disk_threads import DiskThreads


def allow(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many threads can be started, and no more."""
    left = [count]

    class Limited(threading.Thread):
        def start(self) -> None:
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
            super().start()

    monkeypatch.setattr(disk_threads, "Thread", Limited)


def test_one_thread_does_the_work_of_those_that_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allow(1, monkeypatch)

    async def main() -> list[int]:
        threads = DiskThreads(4)
        works = [threads.run(lambda number=number: number) for number in range(10)]
        found = await asyncio.wait_for(asyncio.gather(*works), 5)
        threads.close()
        return found

    assert asyncio.run(main()) == list(range(10))


def test_without_a_thread_the_log_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    allow(0, monkeypatch)

    async def main() -> None:
        async with open_log(f"file:{tmp_path}"):
            pass

    with pytest.raises(StorageError, match="No thread can be started"):
        asyncio.run(main())
