"""What a function may ask about the record it is given: a parameter named `ctx` or of this type."""

from __future__ import annotations

from typing import Any

from millstream.log.record import Headers

__all__ = ["Context"]


class Context:
    """Where the record at hand comes from. Made per record, only for functions that ask for it.

    For the result of a closed window `topic` is the changelog of its store and `offset` is -1.
    """

    __slots__ = ("headers", "key", "offset", "partition", "stream_time", "timestamp", "topic")

    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int,
        timestamp: int,
        key: Any,
        headers: Headers,
        stream_time: int,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.timestamp = timestamp
        self.key = key
        self.headers = headers
        self.stream_time = stream_time

    def __repr__(self) -> str:
        place = f"{self.topic}-{self.partition} offset {self.offset}"
        return f"Context({place}, timestamp {self.timestamp})"
