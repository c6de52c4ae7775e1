"""Worker processes on a log that is not open to everybody."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from millstream.log import open_log
from shared.running import feed, last_integers
from shared.serve_command import ServeCommand
from shared.users import add_user
from shared.worker_processes import APP, INT, Process, all_ended, command

PASSWORD = "correct horse"


def test_workers_log_in_as_the_url_says(tmp_path: Path) -> None:
    """And the password is not shown, nor part of a command."""
    (tmp_path / "app.py").write_text(APP)
    add_user(tmp_path / "log", "anna", PASSWORD)
    server = ServeCommand(
        tmp_path / "log",
        *("--listen", "SASL_PLAINTEXT://127.0.0.1:0"),
        "--config=super.users=User:anna",
        "--config=group.initial.rebalance.delay.ms=0",
    )
    options = "security.protocol=SASL_PLAINTEXT&sasl.mechanism=SCRAM-SHA-256"
    login = "sasl.username=anna&sasl.password=correct%20horse"
    url = f"kafka://{server.address.partition('://')[2]}?{options}&{login}"

    async def write() -> None:
        async with open_log(url) as log:
            await log.create_topic("shared-counts", partitions=4)
            rows = [("k", INT.serialize(1), n + 1) for n in range(10)]
            await feed(log, "shared-events", rows, partitions=8)

    async def counted() -> None:
        async with open_log(url) as log, asyncio.timeout(60):
            while await last_integers(log, "shared-counts") != {"k": 10}:
                await asyncio.sleep(0.05)  # asked again

    try:
        asyncio.run(write())
        app = Process(command(tmp_path, "--log", url, "--workers", "1"))
        with all_ended([app]):
            (pid,) = app.said(r"worker started .*pid=(\d+)")
            shown = Path(f"/proc/{pid}/cmdline").read_bytes()
            asyncio.run(counted())
            assert app.end(signal.SIGTERM) == 0
        assert b"worker_process" in shown
        assert b"correct" not in shown
        assert "correct" not in "".join(app.lines)
    finally:
        server.stop()
