"""W2: the running count of each key; every update goes to a topic."""

from __future__ import annotations

from user_functions import count

from millstream.streams import App

app = App("w2")
events = app.topic("events", key=str, value=dict)
app.table(events)(count).changes().to("counts")
