"""Log lines: one for one event, the same fields as text and as JSON, and the events are there."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys

import pytest

from millstream.log import ConfigError, StorageError
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.events import event
from millstream.log.log_format import JsonLines, TextLines, write_log_lines
from millstream.log.open import open_log_on
from millstream.log.testing.sim_files import Operation, SimFiles, disk_error
from shared.logs import with_log


def events(caplog: pytest.LogCaptureFixture) -> dict[str, dict[str, object]]:
    return {each.event: each.fields for each in caplog.records if hasattr(each, "event")}


def test_one_event(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        event("segment rolled", partition="t-0", base_offset=7, note='a "b"\nc', empty="", x="a=b")
        event("not wanted", logging.DEBUG, number=1)
    (record,) = caplog.records
    text = 'segment rolled partition=t-0 base_offset=7 note="a \\"b\\"\\nc" empty="" x="a=b"'
    assert record.getMessage() == text
    assert (record.name, record.funcName) == ("millstream.log", "test_one_event")
    line = TextLines().format(record)
    assert line.endswith(f"Z info millstream.log {text}")
    as_json = json.loads(JsonLines().format(record))
    assert as_json.pop("time").endswith("Z")
    assert as_json == {
        "level": "info",
        "logger": "millstream.log",
        "event": "segment rolled",
        "message": text,
        "partition": "t-0",
        "base_offset": 7,
        "note": 'a "b"\nc',
        "empty": "",
        "x": "a=b",
    }


def test_what_acts_on_a_terminal_is_written_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        event("login failed", user="a\r\x1b[2J\u2028b\\", other="gr\u00fcn")
    text = 'login failed user="a\\r\\x1b[2J\\u2028b\\\\" other=gr\u00fcn'
    assert caplog.messages == [text]


def test_other_records_are_lines_too() -> None:
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        record = logging.LogRecord("other", 40, __file__, 1, "%s\nfailed", ("it",), sys.exc_info())
    for form in (TextLines(), JsonLines()):
        line = form.format(record)
        assert "\n" not in line
        assert "ValueError" in line
    assert json.loads(JsonLines().format(record))["event"] == "it\nfailed"


def test_lines_of_all_packages(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("millstream")
    before = logger.level, logger.propagate
    handler = write_log_lines("json")
    try:
        event("first", number=1)
        logging.getLogger("millstream.streams").warning("second")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["logger"], line["event"]) for line in lines] == [
        ("millstream.log", "first"),
        ("millstream.streams", "second"),
    ]
    with pytest.raises(ConfigError, match="text or json"):
        write_log_lines("xml")


def test_the_command_line_writes_them(tmp_path) -> None:
    (tmp_path / "app.py").write_text(
        "from millstream.streams import App\n"
        "app = App('shop', log='file:data')\n"
        "orders = app.topic('orders', key=str, value=dict, partitions=1)\n"
        "@app.stream(orders, to='out')\n"
        "def same(order: dict) -> dict:\n"
        "    return order\n"
    )
    start = "from millstream.cli.main import main; main()"
    command = [sys.executable, "-c", start, "--log-format", "json"]
    result = subprocess.run(
        [*command, "run", "app.py", "--until-end", "--metrics", "127.0.0.1:0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "metrics: http://127.0.0.1:" in result.stderr
    lines = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    assert {"metrics served", "group rebalanced"} <= {line["event"] for line in lines}


def test_a_segment_is_rolled_and_a_group_rebalanced(caplog: pytest.LogCaptureFixture) -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", config={"segment.bytes": 1024})
        async with log.producer() as producer:
            for _ in range(2):
                await producer.send("t", b"." * 800)
        async with log.consumer("t", group="g") as consumer:
            await consumer.poll(100)

    with caplog.at_level(logging.INFO):
        with_log(body)
    found = events(caplog)
    assert str(found["segment rolled"]["partition"]) == "t-0"
    assert found["segment rolled"]["base_offset"] == 1
    assert found["group rebalanced"]["members"] == 1


def test_a_disk_failure(caplog: pytest.LogCaptureFixture) -> None:
    files = SimFiles()

    def fail(operation: Operation) -> OSError | None:
        due = operation.kind == "fsync" and "/t-0/" in operation.path
        return disk_error("EIO", operation.path) if due else None

    async def main() -> None:
        async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
            await log.create_topic("t")
            files.on_operation = fail
            async with log.producer() as producer:
                with pytest.raises(StorageError):
                    await producer.send("t", b"lost")

    with caplog.at_level(logging.INFO), pytest.raises(StorageError):
        asyncio.run(main())
    assert str(events(caplog)["disk failed"]["partition"]) == "t-0"
