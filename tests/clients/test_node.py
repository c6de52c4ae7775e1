"""Clients for Node.js: KafkaJS and @platformatic/kafka write, read, and look after a served log."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shared.downloads import digest, download, kept

pytestmark = pytest.mark.slow

SOURCES = Path(__file__).with_name("node")
POSITIONS = {
    "beginning": [*"01234"],
    "offset": [*"234"],
    "time": [*"34"],
    "end": ["5"],
}


@pytest.fixture(scope="session")
def packages() -> Path:
    """What the programs need, from npm, which compares the sums in package-lock.json."""
    described = [SOURCES / "package.json", SOURCES / "package-lock.json"]

    def fill(folder: Path) -> None:
        for each in described:
            shutil.copy(each, folder)
        install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
        download("KafkaJS and @platformatic/kafka", install, cwd=folder)

    return kept(f"node-{digest(*described)}", fill) / "node_modules"


@pytest.fixture
def clients(packages: Path, tmp_path: Path) -> Path:
    """A folder with the programs, beside what they need."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    for each in SOURCES.glob("*.mjs"):
        shutil.copy(each, tmp_path)
    (tmp_path / "node_modules").symlink_to(packages)
    return tmp_path


def run(clients: Path, program: str, address: str) -> dict[str, Any]:
    ran = subprocess.run(
        ["node", program, address], cwd=clients, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    seen: dict[str, Any] = json.loads(ran.stdout)
    return seen


def test_kafkajs(clients: Path, either: str) -> None:
    assert run(clients, "kafkajs.mjs", either) == {
        "created": True,
        "createdAgain": False,
        "copies": 38,
        "sent": 30,  # with each compression
        "read": 30,
        "value": "N/js",
        "positions": POSITIONS,
        "shares": [3, [1, 2], 3],
        "fenced": 47,
        "committed": ["committed/tx"],
        "txOffset": "5",
        "tooLarge": 10,
        "nowhere": 17,
        "altered": 0,
        # AlterConfigs replaces: retention.ms, which was set, has its default again
        "configs": ["600000", "604800000", "delete"],
        "partitions": 4,
        "emptied": True,
        "group": "Empty",
        "listed": True,
        "unknownGroup": 69,
        "left": False,
        "unknownTopic": 3,
    }


def test_platformatic(clients: Path, either: str) -> None:
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    major, minor, _ = map(int, told.strip().removeprefix("v").split("."))
    if (major, minor) < (20, 19):
        pytest.skip(f"@platformatic/kafka wants Node 20.19 or newer, this is {told.strip()}")
    assert run(clients, "platformatic.mjs", either) == {
        "created": ["platformatic", 3, 1],
        "again": 36,
        "copies": 38,
        "sent": 20,  # with each compression
        "read": 20,
        "value": "N/js",
        "positions": POSITIONS,
        "shares": [3, [1, 2], 3],
        "claims": 90,
        "fenced": 90,
        "transactions": ["committed", "successor"],
        "tooLarge": 10,
        "nowhere": 17,
        "configs": [["cleanup.policy", "delete", 5], ["segment.ms", "600000", 1]],
        "badConfig": 40,
        "partitions": 4,
        "emptied": True,
        "group": "EMPTY",
        "left": False,
        "unknownTopic": 3,
    }
