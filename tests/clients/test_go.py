"""franz-go writes, reads, and looks after a served log."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from shared.downloads import digest, download, kept

pytestmark = pytest.mark.slow

SOURCES = Path(__file__).with_name("go")


@pytest.fixture(scope="session")
def program() -> Path:
    """The program, built with what go.mod and go.sum name; the sums are compared."""
    sources = sorted(each for each in SOURCES.iterdir() if each.is_file())

    def fill(folder: Path) -> None:
        for each in sources:
            shutil.copy(each, folder)
        download("franz-go", ["go", "mod", "download"], cwd=folder)
        subprocess.run(["go", "build", "-o", "clients"], cwd=folder, check=True, timeout=500)

    return kept(f"franz-go-{digest(*sources)}", fill) / "clients"


def test_franz_go(program: Path, either: str) -> None:
    ran = subprocess.run([program, either], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {
        "created": [0, 3, 1],
        "again": 36,
        "copies": 38,
        "sent": 100,
        "read": 100,
        "positions": {
            "beginning": [*"01234"],
            "offset": [*"234"],
            "time": [*"34"],
            "end": ["4"],  # one back from there
        },
        "shares": [3, 1, 2, 3],
        "committed": True,
        "aborted": False,
        "fenced": 90,
        "errors": [10, 17, 1],
        "altered": 0,
        "config": ["600000", "DYNAMIC_TOPIC_CONFIG"],
        "partitions": 0,
        "emptied": True,
        "group": "Empty",
        "deleted": 0,
        "gone": 0,
        "unknown": 3,
    }
