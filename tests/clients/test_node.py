"""Clients for Node.js: KafkaJS and @platformatic/kafka write, read, and look after a served log."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SOURCES = Path(__file__).with_name("node")


@pytest.fixture(scope="session")
def clients(pytestconfig: pytest.Config) -> Path:
    """A folder with the programs and what they need, from npm once and for all."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = pytestconfig.cache.mkdir("node-clients")
    for each in (SOURCES / "package.json", *SOURCES.glob("*.mjs")):
        shutil.copy(each, folder)
    install = ["npm", "install", "--no-audit", "--no-fund", "--prefer-offline"]
    installed = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=300)
    if installed.returncode:
        pytest.skip(f"npm cannot install the clients: {installed.stderr.strip()[-200:]}")
    return Path(folder)


def run(clients: Path, program: str, address: str) -> dict[str, Any]:
    ran = subprocess.run(
        ["node", program, address], cwd=clients, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    seen: dict[str, Any] = json.loads(ran.stdout)
    return seen


def test_kafkajs(clients: Path, address: str) -> None:
    assert run(clients, "kafkajs.mjs", address) == {
        "created": True,
        "createdAgain": False,
        "copies": 38,
        "sent": 60,
        "read": 60,
        "value": "N/js",
        "committed": ["committed/tx"],
        "txOffset": "5",
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


def test_platformatic(clients: Path, address: str) -> None:
    assert run(clients, "platformatic.mjs", address) == {
        "created": ["platformatic", 3, 1],
        "again": 36,
        "copies": 38,
        "sent": 80,
        "read": 80,
        "value": "N/js",
        "configs": [["cleanup.policy", "delete", 5], ["segment.ms", "600000", 1]],
        "badConfig": 40,
        "partitions": 4,
        "emptied": True,
        "group": "EMPTY",
        "left": False,
        "unknownTopic": 3,
    }
