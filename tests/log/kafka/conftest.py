"""A served log that all tests of `kafka://` share, each with topics and groups of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from shared.served_log import ServedLog


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's."""
    with ServedLog(tmp_path_factory.mktemp("served")) as server:
        yield f"kafka://{server.address}"


@pytest.fixture
def topic() -> str:
    """A name nobody else has."""
    return f"t-{uuid.uuid4().hex[:12]}"
