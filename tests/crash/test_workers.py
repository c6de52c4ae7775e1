"""Several worker processes share an app's work; they come, go and are killed, and all counts once.

How long a record waits for its result when the number of workers changes is printed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from shared.serve_command import ServeCommand
from shared.served_log import ServedLog
from shared.worker_processes import (
    APP,
    Feed,
    Process,
    Results,
    all_ended,
    command,
    prepare,
    rescale,
)


@pytest.mark.slow
def test_workers_come_and_go_under_load(tmp_path: Path) -> None:
    """One, four of which one stands still and one is killed, two."""
    server = ServeCommand(tmp_path / "log")
    prepare(tmp_path, server.address)
    print(rescale(tmp_path, server.address))
    assert server.stop() == 0


@pytest.mark.slow
def test_one_command_starts_and_watches_them(tmp_path: Path) -> None:
    """On a log that one process owns: it serves the log to its workers. Killed ones come back."""
    (tmp_path / "app.py").write_text(APP)
    log = f"file:{tmp_path / 'log'}"
    arguments = ("--log", log, "--listen", "127.0.0.1:0", "--workers", "3")
    app = Process(command(tmp_path, *arguments))
    with all_ended([app]):
        (address,) = app.said(r"log served .*advertised=(\S+)")[:1]
        pids = [int(pid) for pid in app.said(r"worker started .*pid=(\d+)", 3)]
        feed, results = Feed(address), Results(address)
        try:
            results.again()
            for n in range(3):
                os.kill(pids[n], signal.SIGKILL)
                app.said(r"worker started .*pid=(\d+)", 4 + n)
                results.again()
        finally:
            sent = feed.finish()
        results.check(sent)
        assert app.end(signal.SIGTERM) == 0


@pytest.mark.slow
def test_the_server_is_killed_under_its_workers(tmp_path: Path) -> None:
    """It comes back on its address, and the workers go on."""
    workers: list[Process] = []
    with ServedLog(tmp_path / "log") as server, all_ended(workers):
        prepare(tmp_path, server.address)
        feed, results = Feed(server.address), Results(server.address)
        arguments = command(tmp_path, "--log", f"kafka://{server.address}")
        try:
            workers += [Process(arguments), Process(arguments)]
            results.again()
            for _ in range(3):
                server.kill()
                server.start()
                results.again()
        finally:
            sent = feed.finish()
        results.check(sent)
        assert [each.end(signal.SIGTERM) for each in workers] == [0, 0]


def test_workers_and_until_end_are_refused_together(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    ran = subprocess.run(
        command(tmp_path, "--workers", "2", "--until-end"), capture_output=True, text=True
    )
    assert ran.returncode == 2
    assert "--until-end" in ran.stderr
