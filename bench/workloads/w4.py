"""W4: word count of `text`, through a repartition topic."""

from __future__ import annotations

from user_functions import words

from millstream.streams import App

app = App("w4")
events = app.topic("events", key=str, value=dict)


@app.pipeline
def word_count() -> None:
    by_word = app.stream(events).flat_map_values(words).group_by(lambda word: word)
    by_word.count().changes().to("words")
