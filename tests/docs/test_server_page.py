"""docs/server.md lists what the server speaks."""

from __future__ import annotations

import re
from pathlib import Path

from millstream.log.server.dispatch import apis
from millstream.log.server.kio_names import api_name, versions_of

PAGE = Path(__file__).parents[2] / "docs" / "server.md"
ROW = re.compile(r"^\| (\d+) \| (\w+) \| (\d+)-(\d+) \|", re.MULTILINE)


def test_every_api_with_its_versions() -> None:
    told = [
        (int(key), name, int(first), int(last))
        for key, name, first, last in ROW.findall(PAGE.read_text())
    ]
    assert told == [
        (
            key,
            "".join(word.capitalize() for word in api_name(key).split("_")),
            handler.versions.start if handler.advertised_from is None else handler.advertised_from,
            handler.versions.stop - 1,
        )
        for key, handler in apis().items()
    ]


def test_every_version_has_a_schema() -> None:
    for key, handler in apis().items():
        assert set(handler.versions) <= set(versions_of(key)), key
