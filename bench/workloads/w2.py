"""W2: the running count of each key; every update goes to a topic."""

from __future__ import annotations

from typing import Any

from millstream.streams import App

app = App("w2")
events = app.topic("events", key=str, value=dict)


@app.table(events)
def count(total: int, event: dict[str, Any]) -> int:
    return total + (1 if event["amount"] >= 0 else 0)


count.changes().to("counts")
