"""One `millstream serve` for all tests of clients, each of which has topics of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.serve_command import serving


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a server."""
    with serving(tmp_path_factory.mktemp("served"), "--config", "num.partitions=2") as server:
        yield server.address
