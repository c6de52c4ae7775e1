"""Closing a log closes everything in it, also when some of it cannot be closed well."""

from __future__ import annotations

import asyncio

import pytest

from millstream.log.errors import StorageError
from millstream.log.testing.sim_files import disk_error
from shared.error_sweep import SEED, CountedFiles, opened, run_strictly


def test_a_disk_that_fails_while_clients_are_open() -> None:
    files = CountedFiles(on_operation=None)

    async def main() -> None:
        log = opened(files)
        await log.__aenter__()
        for topic in ("one", "two"):
            await log.create_topic(topic)
            await log.producer().send_batch(topic, [b"on its way"] * 3)
        consumers = [log.consumer("one", "two", group="readers") for _ in range(3)]
        for _ in range(3):
            for consumer in consumers:
                await consumer.poll(100)
        await log.producer().send_batch("two", [b"never on the disk"])
        files.on_operation = lambda operation: (
            disk_error("EIO", operation.path) if operation.is_write else None
        )
        with pytest.raises(StorageError):
            await log.close()
        await log.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a heartbeat goes on"
        assert not files.left_open()
        assert not files._locks

    run_strictly(main, SEED)
