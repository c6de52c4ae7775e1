"""Who has which state folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from millstream.streams.state import StateStoreError
from millstream.streams.state_dir import StateDirectory

CLAIM = """
import sys
from pathlib import Path
from millstream.streams.state_dir import StateDirectory
with StateDirectory.of("app", "kafka://h:1", Path(sys.argv[1])).claimed() as (directory, name):
    print(directory.path, name, flush=True)
    sys.stdin.read()
"""


def claim(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def told(process: subprocess.Popen[str]) -> tuple[Path, str]:
    assert process.stdout is not None
    path, name = process.stdout.readline().split()
    return Path(path), name


def test_a_log_of_one_process_has_one_folder(tmp_path: Path) -> None:
    whole = StateDirectory.of("app", "file:./data", tmp_path)
    with whole.claimed() as (directory, name):
        assert (directory.path, name) == (tmp_path / "app", "0")


def test_memory_has_none() -> None:
    with StateDirectory.of("app", "memory:", None).claimed() as (directory, name):
        assert (directory.path, name) == (None, "0")


def test_workers_that_share_a_log_share_no_state(tmp_path: Path) -> None:
    with claim(tmp_path) as first, claim(tmp_path) as second:
        claims = [told(first), told(second)]
        assert {path for path, _ in claims} == {
            tmp_path / "app" / "worker-0",
            tmp_path / "app" / "worker-1",
        }
        assert claims[0][1] != claims[1][1]
        first.kill()
        first.wait()
        with claim(tmp_path) as third:
            assert told(third) == claims[0], "who comes next takes over, name and all"
            third.communicate()
        second.communicate()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "app").write_text("in the way")
    with (
        pytest.raises(StateStoreError, match=r"worker-0: .*state_dir="),
        StateDirectory.of("app", "kafka://h:1", tmp_path).claimed(),
    ):
        pass
