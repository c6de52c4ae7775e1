"""The page on metrics says what the code says: every metric, every event."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
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


def events_of(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """`event("what", level, name=...)`; `what` may be chosen from a table of the module."""
    tables = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Dict)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "event":
            what = node.args[0]
            chosen = [what]
            if isinstance(what, ast.Subscript) and isinstance(what.value, ast.Name):
                chosen = tables[what.value.id].values
            level = node.args[1].attr.lower() if len(node.args) > 1 else "info"
            fields = ", ".join(each.arg or "" for each in node.keywords)
            for each in chosen:
                yield ast.literal_eval(each), level, fields


def test_every_event_of_the_log_with_its_fields() -> None:
    row = re.compile(r"^\| `([^`]+)` \| (\w+) \| ([^|]*) \|$", re.MULTILINE)
    table = row.findall(section("## Log lines"))
    found: set[tuple[str, str, str]] = set()
    for path in (ROOT / "log").rglob("*.py"):
        found.update(events_of(ast.parse(path.read_text())))
    assert sorted(found) == table
