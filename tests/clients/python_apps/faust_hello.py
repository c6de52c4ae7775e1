"""The hello-world app of Faust: greets, and counts greetings in a table."""

from __future__ import annotations

import os

import faust

app = faust.App(
    "faust-hello",
    broker=f"kafka://{os.environ['SERVER']}",
    store="memory://",
    value_serializer="raw",
    topic_partitions=2,
    stream_wait_empty=False,
    datadir=os.environ["STATE"],
)
names = app.topic("faust-names", key_type=bytes, value_type=bytes)
greetings = app.topic("faust-greetings", key_type=bytes, value_type=bytes)
counts = app.Table("greeted", default=int, key_type=str, value_type=int, partitions=2)


@app.agent(names)
async def greet(stream):
    async for name in stream.group_by(lambda value: value, name="by_name"):
        key = name.decode()
        counts[key] += 1
        await greetings.send(key=name, value=f"hello {key} {counts[key]}".encode())


if __name__ == "__main__":
    app.main()
