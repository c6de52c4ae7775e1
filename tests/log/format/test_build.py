"""An installation without a C compiler goes on without the compiled modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_a_missing_compiler_is_a_warning(tmp_path):
    places = [f"--build-lib={tmp_path}", f"--build-temp={tmp_path}"]
    built = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--force", *places],
        cwd=ROOT,
        env={**os.environ, "CC": "/there/is/no/compiler"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert 'building extension "millstream.log.format.record_reader" failed' in built.stderr
    assert list(tmp_path.rglob("*.so")) == []
