"""`open_log`: URLs, who owns a directory, what closing means."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from millstream.log import (
    ConfigError,
    LogClosedError,
    LogLockedError,
    StorageError,
    TopicPartition,
    open_log,
)
from shared.logs import values

T0 = TopicPartition("t", 0)


def write_and_read(url: str, **options: str) -> list[bytes | None]:
    async def main() -> list[bytes | None]:
        async with open_log(url, **options) as log:
            async with log.producer() as producer:
                await producer.send("t", b"x")
            return await values(log, T0)

    return asyncio.run(main())


def test_a_directory(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "log"
    assert write_and_read(f"file:{folder}") == [b"x"]
    assert write_and_read(f"file:{folder}/") == [b"x"] * 2
    assert write_and_read(f"file://{folder}") == [b"x"] * 3
    assert (folder / "t-0" / "00000000000000000000.log").stat().st_size > 0


def test_a_relative_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_and_read("file:./data")
    assert write_and_read("file:data") == [b"x"] * 2


def test_memory_is_gone_when_it_is_closed() -> None:
    assert write_and_read("memory:") == [b"x"]
    assert write_and_read("memory:") == [b"x"]


def test_durability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With "os" nothing waits for an fsync; with "fsync", the default, everything does."""
    synced: list[int] = []
    fdatasync = os.fdatasync

    def counted(fd: int) -> None:
        synced.append(fd)
        fdatasync(fd)

    monkeypatch.setattr(os, "fdatasync", counted)

    async def main(url: str, durability: str | None) -> int:
        async with open_log(url, durability=durability) as log:
            async with log.producer(config={"linger.ms": 0}) as producer:
                await producer.send("t", b"")
                before = len(synced)
                for _ in range(5):
                    await producer.send("t", b"")
                return len(synced) - before

    assert asyncio.run(main(f"file:{tmp_path}/a", None)) == 5
    assert asyncio.run(main(f"file:{tmp_path}/b?durability=os", None)) == 0
    assert asyncio.run(main(f"file:{tmp_path}/b", "os")) == 0


def test_group_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Producers that wait at the same time share fsyncs."""
    synced: list[int] = []
    fdatasync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (synced.append(fd), fdatasync(fd))[1])

    async def main() -> None:
        async with open_log(f"file:{tmp_path}") as log:
            await log.create_topic("t")
            producers = [log.producer(config={"linger.ms": 0}) for _ in range(20)]
            await asyncio.gather(*[each.send("t", b"") for each in producers])
            before = len(synced)
            await asyncio.gather(*[each.send("t", b"") for each in producers * 3])
            assert len(synced) - before <= 6
            assert len(await values(log, T0)) == 80

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data", "is no log"),
        ("file:", "is no log"),
        ("file://", "is no log"),
        ("file://?durability=os", "is no log"),
        ("memory:x", "is no log"),
        ("ftp://host", "is no log"),
        ("file:data?durability=maybe", "fsync.*os"),
        ("file:data?speed=high", "unknown option speed"),
        ("file:data?durability", "is no option"),
    ],
)
def test_wrong_urls(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_log(url)


def test_wrong_broker_settings() -> None:
    with pytest.raises(ConfigError, match=r"num\.partition'.*num\.partitions"):
        open_log("memory:", config={"num.partition": 3})


def test_a_log_that_is_not_open() -> None:
    log = open_log("memory:")
    with pytest.raises(LogClosedError, match="async with open_log"):
        log.producer()


def test_a_closed_log() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await log.create_topic("t")
        await log.close()
        with pytest.raises(LogClosedError):
            await log.create_topic("u")
        with pytest.raises(LogClosedError):
            await log.producer().send("t", b"")

    asyncio.run(main())


def test_one_owner(tmp_path: Path) -> None:
    url = f"file:{tmp_path}"

    async def main() -> None:
        async with open_log(url) as log:
            await log.create_topic("t")
            with pytest.raises(LogLockedError, match=str(os.getpid())):
                async with open_log(url):
                    pass
            code = (
                "import asyncio\n"
                "from millstream.log import open_log\n"
                "async def main():\n"
                f"    async with open_log({url!r}): pass\n"
                "asyncio.run(main())\n"
            )
            child = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=False
            )
            assert "LogLockedError" in child.stderr
            assert str(os.getpid()) in child.stderr
        async with open_log(url) as log:
            assert await log.topics() == ["t"]

    asyncio.run(main())


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("not a directory")
    with pytest.raises(StorageError, match=str(path)):
        write_and_read(f"file:{path}")


def test_importing_the_names_does_not_load_the_engine() -> None:
    code = (
        "import sys, millstream.log\n"
        "loaded = [name for name in sys.modules if name.startswith('millstream.log.')]\n"
        "print([name for name in loaded if 'broker' in name or 'client' in name])\n"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"
