"""The house rules, held by tests: sizes, seams, one-way dependencies, types, format."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE_ROOTS = ["log", "streams", "connect", "connectors", "cli"]
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70


def product_files() -> list[Path]:
    """Every Python file of the five packages and the examples."""
    roots = [*SOURCE_ROOTS, "examples"]
    return sorted(path for root in roots for path in (ROOT / root).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def test_files_are_small() -> None:
    too_long = {
        name_of(path): lines
        for path in product_files()
        if (lines := len(path.read_text().splitlines())) > FILE_LINES_MAX
    }
    assert too_long == {}


def test_functions_fit_on_a_screen() -> None:
    too_long = {}
    for path in product_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
                start = (first.end_lineno or 0) + 1 if is_docstring else node.lineno
                lines = (node.end_lineno or 0) - start + 1
                if lines > FUNCTION_LINES_MAX:
                    too_long[f"{name_of(path)}:{node.name}"] = lines
    assert too_long == {}


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("rocksdict", ["streams/millstream/streams/state/"]),
        ("sqlalchemy", ["connectors/millstream/connectors/sql/"]),
        ("confluent_kafka", ["log/millstream/log/kafka/"]),
        ("socket", ["log/millstream/log/server/"]),
        ("cramjam", ["log/millstream/log/format/"]),
    ],
)
def test_a_library_has_one_home(library: str, allowed: list[str]) -> None:
    elsewhere = [
        name_of(path)
        for path in product_files()
        if any(name == library or name.startswith(library + ".") for name in imports_of(path))
        and not name_of(path).startswith(tuple(allowed))
    ]
    assert elsewhere == []


def test_only_the_seam_touches_the_disk_for_the_log() -> None:
    """Opening files, `os` and pathlib are banned in millstream.log outside storage/files.py."""
    offenders = []
    for path in sorted((ROOT / "log").rglob("*.py")):
        if name_of(path) == "log/millstream/log/storage/files.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id == "open":
                    offenders.append(f"{name_of(path)}:{node.lineno} open()")
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names]
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                    if [alias.name for alias in node.names] == ["urandom"]:
                        continue  # of os, and no disk
                offenders += [
                    f"{name_of(path)}:{node.lineno} imports {name}"
                    for name in names
                    if name in {"os", "shutil", "pathlib", "io", "mmap"}
                ]
    assert offenders == []


def test_dependencies_run_one_way() -> None:
    """The contracts of import-linter in pyproject.toml."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / root) for root in SOURCE_ROOTS),
    }
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())",
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
    ],
    ids=["ruff", "format", "mypy"],
)
def test_the_checkers_are_content(command: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("package", ["log", "streams", "connect", "connectors"])
def test_public_names_exist(package: str) -> None:
    module = importlib.import_module(f"millstream.{package}")
    missing = [name for name in getattr(module, "__all__", []) if not hasattr(module, name)]
    assert missing == []


def test_no_file_is_left_half_done() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")
    found = [
        f"{name_of(path)}:{number} {word}"
        for path in product_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for word in words
        if word in line
    ]
    assert found == []
