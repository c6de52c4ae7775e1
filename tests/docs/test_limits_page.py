"""docs/limits.md names every API and version of Kafka that is known and not advertised."""

from __future__ import annotations

import re
from pathlib import Path

from kio.schema.index import api_key_map

from millstream.log.server.dispatch import apis
from millstream.log.server.kio_names import versions_of

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
SECTION = PAGE.partition("### APIs and versions")[2].partition("\n#")[0]
LATER = {(18, 5), (28, 6), (42, 3), (93, None), (94, None)}
"""Of Kafka 4.4, which kio does not know yet."""


def test_what_is_not_advertised() -> None:
    names = {
        key: "".join(map(str.capitalize, name.split("_"))) for key, name in api_key_map.items()
    }
    keys = {name: key for key, name in names.items()}
    told: set[tuple[int, int | None]] = set()
    for name, key in re.findall(r"(\w+) \((\d+)\)", SECTION):
        told.add((int(key), None))
        assert keys.get(name, int(key)) == int(key), name
    for name, first, second in re.findall(
        r"(\b[A-Z]\w+[a-z]) (\d+)(?: and (\d+))?(?=[,;| ])", SECTION
    ):
        if name in keys:
            told |= {(keys[name], int(each)) for each in (first, second) if each}
    served = apis()
    missing: set[tuple[int, int | None]] = {(key, None) for key in names if key not in served}
    for key, handler in served.items():
        missing |= {(key, each) for each in versions_of(key) if each >= handler.versions.stop}
    assert told - LATER == missing
    assert told >= LATER
