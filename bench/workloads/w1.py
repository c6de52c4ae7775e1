"""W1: parse JSON, keep `amount > 50`, add a field, serialise."""

from __future__ import annotations

from user_functions import large

from millstream.streams import App

app = App("w1")
events = app.topic("events", key=str, value=dict)
app.stream(events, to="large")(large)
