"""Runs every example of the documentation, as a reader would, page by page.

A fence with a title is a file that the reader saves; `console` fences are typed: lines after `$ `
are run in one folder per page, and the lines below must be what is printed to standard output
(`...` stands for any text; progress goes to standard error and may come or not).
A `python` fence without a title is run as a script. Fences of other languages are only shown.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(
    r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Fence:
    language: str
    title: str | None
    body: str


def fences(page: Path) -> list[Fence]:
    return [Fence(**match.groupdict()) for match in FENCE.finditer(page.read_text())]


def runs_something(page: Path) -> bool:
    return any(fence.language in {"console", "python"} for fence in fences(page))


def environment() -> dict[str, str]:
    binaries = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
        "MILLSTREAM_LOG": "",
    }


def run(command: list[str], folder: Path) -> str:
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, (
        f"{command} ended with {result.returncode}:\n{result.stdout}{result.stderr}"
    )
    return result.stdout


def expect(command: str, printed: str, expected: list[str]) -> None:
    pattern = r"\n".join(
        r".*" if line.strip() == "..." else re.escape(line.rstrip()).replace(r"\.\.\.", ".*")
        for line in expected
    )
    shown = "\n".join(line.rstrip() for line in printed.strip("\n").splitlines())
    assert re.fullmatch(pattern, shown, re.DOTALL), (
        f"$ {command}\nprinted:\n{shown}\nnot:\n{expected}"
    )


def type_in(body: str, folder: Path) -> None:
    """Run a console fence: each `$ command` (continued by a trailing backslash) and its output."""
    commands: list[tuple[str, list[str]]] = []
    for line in body.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            commands.append((line.removeprefix("$ "), []))
        else:
            commands[-1][1].append(line)
    for command, expected in commands:
        printed = run(["bash", "-c", command], folder)
        if expected:
            expect(command, printed, expected)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.relative_to(ROOT).as_posix())
        for page in PAGES
        if runs_something(page)
    ],
)
def test_the_examples_of_a_page_do_what_it_says(page: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for fence in fences(page):
        if fence.title is not None:
            path = tmp_path / fence.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fence.body)
        elif fence.language == "python":
            run([sys.executable, "-c", fence.body], tmp_path)
        elif fence.language == "console":
            type_in(fence.body, tmp_path)


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def leads_somewhere(page: Path, target: str, anchor: str) -> bool:
    found = page.parent / target if target else page
    return found.exists() and (not anchor or anchor in anchors(found))


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)} -> {target}#{anchor}"
        for page in PAGES
        for target, anchor in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", page.read_text())
        if not leads_somewhere(page, target, anchor)
    ]
    assert broken == []
