"""The DSL under mypy --strict: decorated functions stay functions, streams know their types."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

APP = Path(__file__).with_name("typed_app.py")
ROOT = APP.parents[2]


def test_the_types_of_an_app() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(APP)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_app_is_one() -> None:
    spec = importlib.util.spec_from_file_location("typed_app", APP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["typed_app"] = module
    spec.loader.exec_module(module)
    assert len(module.app.topology().subtopologies) > 1
