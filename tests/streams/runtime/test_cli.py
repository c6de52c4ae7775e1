"""The commands run, topology, replay and reset, as a user types them."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import orjson
import pytest

from millstream.log import open_log
from shared.running import feed, last_integers, records

APP = textwrap.dedent(
    """
    from millstream.streams import App, tumbling

    LATE_FROM = 15
    app = App("delays")
    events = app.topic("events", key=str, value=dict)


    @app.table(events, window=tumbling("1h"))
    def late(total: int, event: dict) -> int:
        return total + (event["delay"] >= LATE_FROM)


    late.final().to("late-per-hour")


    @app.table(events)
    def seen(total: int, event: dict) -> int:
        return total + 1


    seen.changes().to("seen")
    """
)
ROWS = [(f"k{n % 3}", {"delay": n % 40}, n * 60_000) for n in range(240)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with an app and a log with its input."""
    (tmp_path / "delays.py").write_text(APP)

    async def write() -> None:
        async with open_log(f"file:{tmp_path / 'data'}") as log:
            await feed(log, "events", ROWS, partitions=2)

    asyncio.run(write())
    return tmp_path


def millstream(project: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "MILLSTREAM_LOG"}
    result = subprocess.run(
        [sys.executable, "-c", "from millstream.cli.main import main; main()", *arguments],
        cwd=project,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "100"},
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result


def lines_of(result: subprocess.CompletedProcess[str]) -> list[Any]:
    return [orjson.loads(line) for line in result.stdout.splitlines()]


async def counts(project: Path) -> dict[str, int]:
    async with open_log(f"file:{project / 'data'}") as log:
        return await last_integers(log, "seen")


def test_run_until_end(project: Path) -> None:
    first = millstream(project, "run", "delays.py", "--log", "file:data", "--until-end")
    assert "delays: 240 records in, 252 out" in first.stdout
    assert asyncio.run(counts(project)) == {"k0": 80, "k1": 80, "k2": 80}
    assert (project / "data-state" / "delays" / "seen").is_dir()
    again = millstream(
        project, "run", "delays.py:app", "--log", "file:data", "--until-end", "--json"
    )
    [result] = lines_of(again)
    assert (result["records"], result["restored"], result["app"]) == (0, 0, "delays")


def test_the_app_can_be_a_module_and_the_log_a_variable(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = subprocess.run(
        [
            *(sys.executable, "-c", "from millstream.cli.main import main; main()"),
            *("run", "delays", "--until-end"),
        ],
        cwd=project,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"MILLSTREAM_LOG": "file:data", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.returncode == 0, result.stderr
    assert "240 records in" in result.stdout


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("missing.py", "there is no file missing.py"),
        ("missing.module", "there is no module 'missing.module'"),
        ("delays.py:other", "no App called 'other'; it has app: use delays.py:app"),
    ],
)
def test_an_app_that_is_not_there(project: Path, reference: str, message: str) -> None:
    result = millstream(project, "run", reference, "--log", "file:data", code=2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_wrong_usage(project: Path) -> None:
    assert "Usage" in millstream(project, "run", code=2).stderr
    assert "--as" in millstream(project, "replay", "delays.py", "--from", "1d", code=2).stderr


def test_a_function_that_raises(project: Path) -> None:
    """The user's line, where the record lies, what to do; and nothing is lost."""
    broken = APP.replace('event["delay"]', 'event["dealy"]')
    (project / "broken.py").write_text(broken)
    arguments = ("--log", "file:data", "--until-end")
    result = millstream(project, "run", "broken.py", *arguments, code=1)
    assert "KeyError: 'dealy'" in result.stderr
    assert 'return total + (event["dealy"] >= LATE_FROM)' in result.stderr
    assert "at offset 0" in result.stderr
    assert "on_error" in result.stderr
    assert "/millstream/streams/" not in result.stderr
    millstream(project, "run", "delays.py", *arguments)
    assert asyncio.run(counts(project)) == {"k0": 80, "k1": 80, "k2": 80}


def test_a_missing_topic(project: Path) -> None:
    result = millstream(project, "run", "delays.py", "--log", "file:empty", code=1)
    assert "reads topic 'events', which does not exist" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_state_directory(project: Path) -> None:
    state = project / "data-state"
    state.mkdir()
    state.chmod(stat.S_IRUSR | stat.S_IXUSR)
    result = millstream(project, "run", "delays.py", "--log", "file:data", "--until-end", code=1)
    assert str(state) in result.stderr
    assert "state_dir" in result.stderr
    state.chmod(stat.S_IRWXU)
    millstream(project, "run", "delays.py", "--log", "file:data", "--until-end")
    assert asyncio.run(counts(project)) == {"k0": 80, "k1": 80, "k2": 80}


def test_a_state_directory_that_is_a_file(project: Path) -> None:
    (project / "data-state").write_text("in the way")
    result = millstream(project, "run", "delays.py", "--log", "file:data", "--until-end", code=1)
    assert "data-state" in result.stderr
    assert "state_dir" in result.stderr
    assert "Traceback" not in result.stderr
    (project / "data-state").unlink()
    millstream(project, "run", "delays.py", "--log", "file:data", "--until-end")
    assert asyncio.run(counts(project)) == {"k0": 80, "k1": 80, "k2": 80}


def test_a_second_process_on_the_same_log(project: Path) -> None:
    async def main() -> None:
        async with open_log(f"file:{project / 'data'}"):
            await asyncio.to_thread(refused)

    def refused() -> None:
        result = millstream(project, "run", "delays.py", "--log", "file:data", code=1)
        assert str(os.getpid()) in result.stderr
        assert "Traceback" not in result.stderr

    asyncio.run(main())


def test_topology(project: Path) -> None:
    text = millstream(project, "topology", "delays.py").stdout
    for words in ("sub-topology 0", "<- topic events", "-> topic seen", "windows of 1h, grace 0ms"):
        assert words in text
    mermaid = millstream(project, "topology", "delays.py", "--format", "mermaid").stdout
    assert mermaid.startswith("flowchart TD\n")
    assert '[("late-per-hour")]' in mermaid


def test_replay_and_compare(project: Path) -> None:
    millstream(project, "run", "delays.py", "--log", "file:data", "--until-end")
    (project / "delays30.py").write_text(APP.replace("LATE_FROM = 15", "LATE_FROM = 30"))
    arguments = ("--log", "file:data", "--from", "beginning", "--as", "late30", "--compare")
    text = millstream(project, "replay", "delays30.py", *arguments).stdout
    assert "late-per-hour and late30.late-per-hour: 0 keys are the same, 12 differ" in text
    assert "seen and late30.seen: 3 keys are the same, 0 differ" in text
    assert "1970-01-01 01:00" in text
    summary, *lines = lines_of(millstream(project, "replay", "delays30.py", *arguments, "--json"))
    assert summary["shadows"]["seen"] == "late30.seen"
    differences = [line for line in lines if "kind" in line]
    assert len(differences) == 12
    assert {line["kind"] for line in differences} == {"changed"}
    assert {line["window_start"] for line in differences} == {n * 3_600_000 for n in range(4)}

    async def originals() -> int:
        async with open_log(f"file:{project / 'data'}") as log:
            return len(await records(log, "late-per-hour"))

    assert asyncio.run(originals()) == 12


def test_reset(project: Path) -> None:
    log = ("--log", "file:data")
    millstream(project, "run", "delays.py", *log, "--until-end")
    dry = millstream(project, "reset", "delays.py", *log, "--dry-run").stdout
    assert "would do" in dry
    assert "delete topic delays-seen-changelog" in dry
    assert (project / "data-state" / "delays").exists()
    assert "done" in millstream(project, "reset", "delays.py", *log).stdout
    assert not (project / "data-state" / "delays").exists()
    assert "nothing to reset" in millstream(project, "reset", "delays.py", *log).stdout
    [plan] = lines_of(millstream(project, "reset", "delays.py", *log, "--json"))
    assert plan["topics"] == []
    millstream(project, "run", "delays.py", *log, "--until-end")
    assert asyncio.run(counts(project)) == {"k0": 80, "k1": 80, "k2": 80}
