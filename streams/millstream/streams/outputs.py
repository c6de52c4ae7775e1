"""What a task sends, gathered in columns until the commit."""

from __future__ import annotations

from dataclasses import dataclass

from millstream.log.record import Headers

__all__ = ["OutputColumns"]


@dataclass(slots=True)
class OutputColumns:
    """Records for one topic, in order, in columns."""

    topic: str
    keys: list[bytes | None]
    values: list[bytes | None]
    timestamps: list[int]
    headers: list[Headers] | None = None
    windowed_keys: bool = False
    """Keys end with an int64 window start: partition by what stands before it (`key[:-8]`)."""

    def __len__(self) -> int:
        return len(self.values)

    def with_headers(self) -> list[Headers]:
        """The column of headers, filled up to the length of the others."""
        if self.headers is None:
            self.headers = []
        self.headers.extend([()] * (len(self.values) - len(self.headers)))
        return self.headers

    def take(self) -> OutputColumns:
        """What is here now; this one begins anew."""
        taken = OutputColumns(
            self.topic,
            self.keys,
            self.values,
            self.timestamps,
            self.with_headers() if self.headers is not None else None,
            self.windowed_keys,
        )
        self.keys, self.values, self.timestamps, self.headers = [], [], [], None
        return taken
