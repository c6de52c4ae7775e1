"""The page on metrics says what the code says: every metric, every event."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "metrics.md"


def section(heading: str) -> str:
    """The text of one section, up to the next of its level."""
    _, found, rest = PAGE.read_text().partition(f"\n{heading}\n")
    assert found, heading
    return rest.split("\n## ", 1)[0]


@pytest.mark.parametrize(
    ("heading", "module"),
    [
        ("## The metrics of a log", "millstream.log.metrics"),
        ("## The metrics of an app", "millstream.streams.metrics"),
        ("## The metrics of connectors", "millstream.connect.metrics"),
    ],
)
def test_metrics_with_their_meaning(heading: str, module: str) -> None:
    shown = [line for line in section(heading).splitlines() if line.startswith("| `")]
    families = importlib.import_module(module).FAMILIES
    assert shown == [
        f"| `{each.name}` | {each.kind} | {', '.join(each.labels)} | {each.help} |"
        for each in families
    ]


def test_every_event_of_the_log_with_its_fields() -> None:
    """`event("what", level, name=...)` in the sources, against the table."""
    row = re.compile(r"^\| `([^`]+)` \| (\w+) \| ([^|]*) \|$", re.MULTILINE)
    table = row.findall(section("## Log lines"))
    found = set()
    for path in (ROOT / "log").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "event":
                what = ast.literal_eval(node.args[0])
                level = node.args[1].attr.lower() if len(node.args) > 1 else "info"
                found.add((what, level, ", ".join(each.arg or "" for each in node.keywords)))
    assert sorted(found) == table
