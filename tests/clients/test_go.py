"""franz-go writes, reads, and looks after a served log."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SOURCES = Path(__file__).with_name("go")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built; what it needs is in Go's own cache after the first time."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    built = tmp_path_factory.mktemp("go") / "clients"
    download = ["go", "mod", "download"]
    got = subprocess.run(download, cwd=SOURCES, capture_output=True, text=True, timeout=300)
    if got.returncode:
        pytest.skip(f"go cannot download the client: {got.stderr.strip()[-200:]}")
    build = ["go", "build", "-o", str(built), "."]
    subprocess.run(build, cwd=SOURCES, check=True, timeout=500)
    return built


def test_franz_go(program: Path, address: str) -> None:
    ran = subprocess.run([program, address], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {
        "created": [0, 3, 1],
        "again": 36,
        "copies": 38,
        "sent": 100,
        "read": 100,
        "committed": True,
        "aborted": False,
        "altered": 0,
        "config": ["600000", "DYNAMIC_TOPIC_CONFIG"],
        "partitions": 0,
        "emptied": True,
        "group": "Empty",
        "deleted": 0,
        "gone": 0,
        "unknown": 3,
    }
