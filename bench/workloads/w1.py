"""W1: parse JSON, keep `amount > 50`, add a field, serialise."""

from __future__ import annotations

from typing import Any

from millstream.streams import App

app = App("w1")
events = app.topic("events", key=str, value=dict)


@app.stream(events, to="large")
def large(event: dict[str, Any]) -> dict[str, Any] | None:
    if event["amount"] > 50:
        event["large"] = True
        return event
    return None
