"""What streams can raise, in one tree under `MillstreamError`.

    MillstreamError
    └── StreamsError
        ├── TopologyError      the app is put together wrongly: mend the code
        ├── SerdeError         bytes and types do not fit: mend the data or the type
        └── ProcessingError    a user function raised; its exception is the cause

A `TopologyError` is raised before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from millstream.log.errors import MillstreamError
from millstream.log.record import Record

__all__ = [
    "ErrorPolicy",
    "OnError",
    "ProcessingError",
    "SerdeError",
    "StreamsError",
    "TopologyError",
    "check_policy",
]

ErrorPolicy = Literal["fail", "dead_letter", "skip"]
"""What becomes of a record that failed: stop the app, send it to the dead-letter topic, drop it."""

OnError = ErrorPolicy | Callable[["StreamsError", Record], ErrorPolicy]
"""A policy, or a function that is shown the error and the record as read and answers a policy."""


class StreamsError(MillstreamError):
    """Something the streams package refuses or could not do."""


class TopologyError(StreamsError):
    """The app is put together wrongly. Raised before anything is processed."""


class SerdeError(StreamsError):
    """A key or a value does not fit its type.

    `field` names the part of the value that does not fit (`legs[2].carrier`), empty for the whole.
    `topic`, `partition` and `offset` are known once the record is: `None` before.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        topic: str | None = None,
        partition: int | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message)
        self.field = field
        self.topic = topic
        self.partition = partition
        self.offset = offset


class ProcessingError(StreamsError):
    """A user function, or writing what it returned, raised. The exception is `__cause__`.

    Nothing of the record is committed when the policy is "fail": the transaction it was part of is
    aborted, and a restart reads the record again.
    """

    def __init__(
        self, message: str, *, topic: str, partition: int, offset: int, step: str, function: str
    ) -> None:
        super().__init__(message)
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.step = step
        self.function = function


def check_policy(where: str, on_error: OnError) -> None:
    """Refuse a policy there is none of, while the app is built and not at the first bad record.

    Raises:
        TopologyError: names `where` and the policies there are.
    """
    if not callable(on_error) and on_error not in get_args(ErrorPolicy):
        raise TopologyError(
            f"{where} is {on_error!r}; it is one of {', '.join(get_args(ErrorPolicy))}, or a "
            "function that answers one"
        )
