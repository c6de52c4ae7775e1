"""Worker processes on a log where one has to show who one is."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from confluent_kafka import Consumer, Producer

from shared.serve_command import serving
from shared.users import add_user
from shared.worker_processes import APP, INT, STR, Process, all_ended, command

PASSWORD = "correct-horse"
LOGIN = {
    "security.protocol": "sasl_plaintext",
    "sasl.mechanism": "SCRAM-SHA-256",
    "sasl.username": "root",
    "sasl.password": PASSWORD,
}


def test_workers_log_in_as_the_command_does(tmp_path: Path) -> None:
    """By the options of its URL, which nobody else is shown."""
    (tmp_path / "app.py").write_text(APP)
    add_user(tmp_path / "log", "root", PASSWORD)
    listen = ("--listen", "SASL_PLAINTEXT://127.0.0.1:0", "--config", "super.users=User:root")
    with serving(tmp_path / "log", *listen) as server:
        address = server.address.partition("://")[2]
        url = f"kafka://{address}?" + "&".join(f"{key}={value}" for key, value in LOGIN.items())
        app = Process(command(tmp_path, "--log", url, "--workers", "2"))
        with all_ended([app]):
            pids = app.said(r"worker started .*pid=(\d+)", 2)
            for pid in pids:
                line = Path(f"/proc/{pid}/cmdline")
                assert not line.exists() or PASSWORD not in line.read_text()
            assert counted({"bootstrap.servers": address, **LOGIN}, app) == 1
            assert app.end(signal.SIGTERM) == 0
        assert PASSWORD not in "".join(app.lines)


def counted(login: dict[str, str], app: Process) -> int:
    """What the app makes of one event."""
    producer = Producer(login)
    producer.produce("shared-events", INT.serialize(7), key=STR.serialize("key"))
    assert producer.flush(30) == 0
    consumer = Consumer({**login, "group.id": "test", "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe(["shared-counts"])
        end = time.monotonic() + 60
        while time.monotonic() < end and app.popen.poll() is None:
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                return INT.deserialize(message.value())
    finally:
        consumer.close()
    raise AssertionError("".join(app.lines))
