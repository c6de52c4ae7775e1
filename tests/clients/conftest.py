"""One `millstream serve` for all tests of clients, each of which has topics of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.serve_command import serving

FENCED = "transaction aborted .* reason=.another producer took over.$"


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a server."""
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, "--config", "num.partitions=2", says=FENCED) as server:
        yield server.address
