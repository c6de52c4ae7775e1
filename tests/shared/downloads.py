"""What tests download or compile: once, outside the checkout, and whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

__all__ = ["digest", "download", "kept"]

WITHIN_S = 400
"""Less than a test may take: one worker may have to wait while another downloads."""


def _cache() -> Path:
    """MILLSTREAM_TEST_CACHE, or a folder in ~/.cache."""
    named = os.environ.get("MILLSTREAM_TEST_CACHE")
    folder = Path(named) if named else Path.home() / ".cache" / "millstream-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def digest(*parts: Path | str) -> str:
    """Short, and another one when a file or a text is another."""
    said = hashlib.sha256()
    for each in parts:
        said.update(each.read_bytes() if isinstance(each, Path) else each.encode())
    return said.hexdigest()[:12]


def kept(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder of this name. The first who wants it has `fill` make it, the others wait.

    It is filled under another name: when that is cut short, the next begins with an empty one.
    When `fill` skips the test, so does every other worker of the run, without trying again.
    """
    folder, run = _cache() / name, os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
    with folder.with_name(f"{name}.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder
        lock.seek(0)
        failed_in, _, why = lock.read().partition("\n")
        if run and run == failed_in:
            pytest.skip(why)
        part = folder.with_name(f"{name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            fill(part)
        except pytest.skip.Exception as skipped:
            lock.truncate(0)
            lock.write(f"{run}\n{skipped.msg}")
            raise
        part.rename(folder)
    return folder


def download(what: str, command: Sequence[str | Path], *, cwd: Path | None = None) -> None:
    """Run a command that fetches it; skips the test, saying why, when that fails."""
    said = f"{what} cannot be downloaded by {Path(command[0]).name}"
    try:
        got = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=WITHIN_S)
    except FileNotFoundError:
        pytest.skip(f"{said}: it is not installed")
    except subprocess.TimeoutExpired:
        pytest.skip(f"{said} within {WITHIN_S} s")
    if got.returncode:
        pytest.skip(f"{said}: {(got.stderr.strip() or got.stdout.strip())[:300]}")
