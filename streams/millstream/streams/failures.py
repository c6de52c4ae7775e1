"""What becomes of a record that failed: the error that names it, the policy, the dead letter."""

from __future__ import annotations

import traceback
from typing import Final, get_args

from millstream.log.errors import MillstreamError
from millstream.log.record import Headers, Record

from .errors import ErrorPolicy, OnError, ProcessingError, SerdeError, StreamsError
from .fuse.code import Site

__all__ = ["dead_letter_headers", "located", "policy_for"]

_POLICIES: Final = get_args(ErrorPolicy)
_PREFIX: Final = "__streams.errors."


def located(error: Exception, site: Site, record: Record) -> MillstreamError:
    """The error as the app's user should see it, with the record and the step in it.

    What a store or the log raised is no fault of the record and comes back as it is.
    """
    place = f"{record.topic}-{record.partition} at offset {record.offset}"
    if site.is_deserialization:
        what = {"key": "the key", "value": "the value", "timestamp": "the timestamp"}[site.part]
        return SerdeError(
            f"{what} of {place} cannot be read by step {site.node.name!r}: {_told(error)}. Mend "
            "the data or the topic's type, or say what to do: App(on_deserialization_error=...)",
            field=error.field if isinstance(error, SerdeError) else "",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
        )
    if isinstance(error, MillstreamError) and not isinstance(error, SerdeError):
        return error
    function = site.function.where if site.function is not None else ""
    did = f"called {function}" if function else "could not write its result"
    return ProcessingError(
        f"step {site.node.name!r} {did} for {place}: {_told(error)}. "
        'Mend the function, or give the step or the app on_error="dead_letter" or "skip"',
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        step=site.node.name,
        function=function,
    )


def _told(error: Exception) -> str:
    if isinstance(error, SerdeError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def policy_for(on_error: OnError, error: StreamsError, record: Record) -> ErrorPolicy:
    """The policy, asked of the user's function if it is one.

    Raises:
        StreamsError: the function answered something else.
    """
    policy = on_error(error, record) if callable(on_error) else on_error
    if policy not in _POLICIES:
        raise StreamsError(
            f"on_error answered {policy!r}; it must be one of {', '.join(_POLICIES)}"
        ) from error
    return policy


def dead_letter_headers(record: Record, error: StreamsError) -> Headers:
    """The record's own headers, and what went wrong in Kafka's words.

    Source: KIP-1034.
    """
    cause = error.__cause__ or error
    told = {
        "exception": f"{type(cause).__module__}.{type(cause).__qualname__}",
        "message": str(error),
        "stacktrace": "".join(traceback.format_exception(cause)),
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
    }
    own = tuple((_PREFIX + name, text.encode()) for name, text in told.items())
    return tuple(record.headers) + own
