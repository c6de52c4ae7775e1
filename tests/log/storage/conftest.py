"""The three kinds of disk, each with an empty folder to work in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from millstream.log.storage.files import Files, RealFiles
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.testing.sim_files import SimFiles

settings.register_profile("storage", deadline=None)
settings.load_profile("storage")


@pytest.fixture(params=["real", "memory", "sim"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Files, str]:
    """A file system and a folder on it. Whatever holds on one must hold on all."""
    if request.param == "real":
        return RealFiles(), str(tmp_path)
    files: Files = MemoryFiles() if request.param == "memory" else SimFiles()
    files.make_dir("/folder")
    return files, "/folder"
