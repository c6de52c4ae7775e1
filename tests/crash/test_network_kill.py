"""Apps, connectors and the servers of their log are killed with SIGKILL, at any moment and not at
the same one. What comes out is what a run that nobody kills gives: on `millstream serve`, and on an
Apache Kafka cluster, whose brokers are killed in turn."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from millstream.log import Log, open_log
from shared.counting_app import check_counts, count_command, write_counted, write_counting_app
from shared.flights import JANUARY, Row, demo, expected_table, run_demo, stored_table
from shared.kafka_jars import Java
from shared.kafka_nodes import KafkaNodes
from shared.killed_connectors import KilledSink, KilledSource, connect_command
from shared.killed_servers import KilledServers, kills_between, written
from shared.running import decided, records
from shared.served_log import ServedLog

pytestmark = pytest.mark.slow


@pytest.fixture(params=["server", pytest.param("cluster", marks=pytest.mark.cluster)])
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KilledServers]:
    folder = tmp_path_factory.mktemp("servers")
    if request.param == "server":
        with ServedLog(folder / "log") as server:
            yield KilledServers(server)
    else:
        java: Java = request.getfixturevalue("java")
        with KafkaNodes(java, folder, 3) as nodes:
            yield KilledServers(nodes)


def killed(who: list[str], started: float) -> None:
    """Both were, and how long it took."""
    counts = Counter(who)
    assert min(counts["command"], counts["server"]) > 0, counts
    print(f"killed: {dict(counts)}, in {time.monotonic() - started:.0f} s")


def test_300_000_records_count_once_each(tmp_path: Path, servers: KilledServers) -> None:
    write_counting_app(tmp_path, "commit_interval_ms=50")
    count = 300_000
    expected = asyncio.run(write_counted(servers.url, count))
    command = count_command(tmp_path, servers.url, "--until-end", "--json")
    started = time.monotonic()
    kills = kills_between(count, 4 * count, commands=3, servers=4, seed=1)
    killed(servers.run(command, tmp_path, kills), started)
    asyncio.run(check_counts(servers.url, expected))


async def days(url: str) -> list[Row]:
    """All committed records of carrier-daily, as rows; a doubled one shows up twice."""
    async with open_log(url) as log:
        await decided(log, "carrier-daily")
        found = await records(log, "carrier-daily")
    return sorted(tuple(orjson.loads(each.value or b"").values()) for each in found)


def test_flights_end_in_the_same_table(tmp_path: Path, servers: KilledServers) -> None:
    async def whole_run() -> int:
        async with open_log(f"file:{tmp_path / 'file' / 'log'}") as log:
            return await written(log)

    run_demo(tmp_path / "file")
    table = stored_table(tmp_path / "file" / "demo.db")
    assert table == expected_table(JANUARY)
    folder = tmp_path / "network"
    command = demo(folder, "--log", servers.url)
    started = time.monotonic()
    kills = kills_between(0, asyncio.run(whole_run()), commands=3, servers=4, seed=2)
    killed(servers.run(command, tmp_path, kills), started)
    assert stored_table(folder / "demo.db") == table
    assert asyncio.run(days(servers.url)) == table


def test_connectors_deliver_every_record_once(tmp_path: Path, servers: KilledServers) -> None:
    url = servers.url
    source = KilledSource(tmp_path / "source", 20_000)
    sink = KilledSink(tmp_path / "sink", url, 5_000)
    started = time.monotonic()
    command = connect_command(tmp_path / "source", source.config, url)
    kills = kills_between(5_000, 25_000, commands=3, servers=3, seed=3)
    killed(servers.run(command, tmp_path / "source", kills), started)
    source.check(url)
    command = connect_command(tmp_path / "sink", sink.config, url)
    kills = kills_between(0, 5_000, commands=2, servers=2, seed=4)

    async def rows(_log: Log) -> int:
        return len(sink.rows())

    started = time.monotonic()
    killed(servers.run(command, tmp_path / "sink", kills, rows), started)
    sink.check(url)
