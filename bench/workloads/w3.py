"""W3: the sum of `amount` per key and minute of event time; each result once, at the close."""

from __future__ import annotations

from typing import Any

from millstream.streams import App, tumbling

app = App("w3")
events = app.topic("events", key=str, value=dict)


@app.table(events, window=tumbling("1m", grace="2s"))
def amount(total: float, event: dict[str, Any]) -> float:
    return total + event["amount"]


amount.final().to("amounts")
