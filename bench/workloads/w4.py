"""W4: word count of `text`, through a repartition topic."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from millstream.streams import App

app = App("w4")
events = app.topic("events", key=str, value=dict)


@app.pipeline
def words() -> None:
    def split(event: dict[str, Any]) -> Iterable[str]:
        return event["text"].split()

    app.stream(events).flat_map_values(split).group_by(lambda word: word).count().changes().to(
        "words"
    )
