"""W3: the sum of `amount` per key and minute of event time; each result once, at the close."""

from __future__ import annotations

from user_functions import amount

from millstream.streams import App, tumbling

app = App("w3")
events = app.topic("events", key=str, value=dict)
app.table(events, window=tumbling("1m", grace="2s"))(amount).final().to("amounts")
