"""The hello-world app of Quix Streams: greets, and counts greetings in its state, exactly once."""

from __future__ import annotations

import os

from quixstreams import Application, State


def greet(name: str, state: State) -> str:
    count = state.get("count", 0) + 1
    state.set("count", count)
    return f"hello {name} {count}"


app = Application(
    broker_address=os.environ["SERVER"],
    consumer_group="quix-hello",
    auto_offset_reset="earliest",
    processing_guarantee="exactly-once",
    commit_interval=0.2,
    consumer_extra_config={"session.timeout.ms": 3000, "heartbeat.interval.ms": 500},
    state_dir=os.environ["STATE"],
)
names = app.topic("quix-names", key_deserializer="str", value_deserializer="str")
greetings = app.topic("quix-greetings", key_serializer="str", value_serializer="str")
stream = app.dataframe(names).group_by(
    lambda name: name,
    name="name",
    key_serializer="str",
    key_deserializer="str",
    value_serializer="str",
    value_deserializer="str",
)
stream.apply(greet, stateful=True).to_topic(greetings)

if __name__ == "__main__":
    app.run()
