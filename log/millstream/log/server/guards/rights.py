"""What a guard is: it stands before the handler of an API where access is controlled.

    async def _delete_records(request, context, handler):
        return await by_topic(request, context, handler, Operation.DELETE)

    GUARDS = {21: _delete_records}

A guard takes out of a request what the client may not do, lets the handler answer the rest, and
adds what it refused, in the form the handler's own `failed` has. So handlers know no rights, and
where nobody has to show who he is, guards cost nothing. An API without a guard is refused.

What each API asks for is Kafka's ("Operations and resources on protocols" in its documentation).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

from millstream.log.errors import LogError
from millstream.log.security.acl import CLUSTER_NAME, Operation, Resource
from millstream.log.server.handler import Context, Fields, Handler

__all__ = [
    "CLUSTER_REFUSED",
    "GROUP_REFUSED",
    "TOPIC_REFUSED",
    "TRANSACTIONAL_ID_REFUSED",
    "ClusterRefusedError",
    "GroupRefusedError",
    "Guard",
    "TransactionalIdRefusedError",
    "by_topic",
    "check_cluster",
    "check_group",
    "check_transactional_id",
    "guarded",
    "guards",
    "is_named_allowed",
    "joined",
    "split",
]

T = TypeVar("T")
Guard = Callable[[Any, Context, Handler], Awaitable[Fields | None]]

TOPIC_REFUSED = 29
GROUP_REFUSED = 30
CLUSTER_REFUSED = 31
TRANSACTIONAL_ID_REFUSED = 53
_MODULES = ("cluster", "groups", "metadata", "topics", "transactions")


class GroupRefusedError(LogError):
    """The client may not do this to the group."""

    kafka_code = GROUP_REFUSED


class ClusterRefusedError(LogError):
    """The client may not do this to the log as a whole."""

    kafka_code = CLUSTER_REFUSED


class TransactionalIdRefusedError(LogError):
    """The client may not do this under the transactional id."""

    kafka_code = TRANSACTIONAL_ID_REFUSED


@cache
def guards() -> dict[int, Guard]:
    """Every guard, by API key."""
    found: dict[int, Guard] = {}
    for name in _MODULES:
        found |= import_module(f"{__package__}.{name}").GUARDS
    return found


async def guarded(handler: Handler, request: Any, context: Context) -> Fields | None:
    """What the handler answers to what the client may ask.

    Raises:
        LogError: it may not ask this at all.
    """
    guard = guards().get(context.api_key)
    if guard is None:
        raise ClusterRefusedError(f"API {context.api_key} has no guard.")
    return await guard(request, context, handler)


# Checks of the whole request


def check_cluster(context: Context, operation: Operation) -> None:
    """Raises ClusterRefusedError."""
    if not context.allows(operation, Resource.CLUSTER, CLUSTER_NAME):
        raise ClusterRefusedError(
            f"{context.principal} may not do {operation.name} to the cluster."
        )


def check_group(context: Context, operation: Operation, group: str) -> None:
    """Raises GroupRefusedError."""
    if not context.allows(operation, Resource.GROUP, group):
        raise GroupRefusedError(f"{context.principal} may not do {operation.name} to {group}.")


def check_transactional_id(context: Context, operation: Operation, name: str) -> None:
    """Raises TransactionalIdRefusedError."""
    if not context.allows(operation, Resource.TRANSACTIONAL_ID, name):
        raise TransactionalIdRefusedError(
            f"{context.principal} may not do {operation.name} under {name}."
        )


# Parts of a request


def split(items: Iterable[T], allowed: Callable[[T], bool]) -> tuple[list[T], list[T]]:
    """Those that are allowed, and the others."""
    kept: list[T] = []
    refused: list[T] = []
    for each in items:
        (kept if allowed(each) else refused).append(each)
    return kept, refused


def _names(topic: Any, context: Context) -> Iterator[str]:
    """Every name an entry may mean: some have a name and an id, and the handler takes one."""
    for field in ("name", "topic"):
        if getattr(topic, field, None):
            yield getattr(topic, field)
    topic_id = getattr(topic, "topic_id", None)
    found = context.broker.partitions.topic_with_id(topic_id) if topic_id else None
    if found is not None:
        yield found.name


def is_named_allowed(topic: Any, context: Context, operation: Operation) -> bool:
    """Whether the operation may be done to the topic of an entry. An id that no topic has is for
    the handler to refuse."""
    return all(context.allows(operation, Resource.TOPIC, name) for name in _names(topic, context))


def joined(answer: Fields, field: str, more: Sequence[Fields]) -> Fields:
    """An answer with more entries in one of its fields."""
    return {**answer, field: [*answer.get(field, ()), *more]} if more else answer


async def by_topic(
    request: Any,
    context: Context,
    handler: Handler,
    operation: Operation,
    *,
    asked: str = "topics",
    answered: str = "topics",
) -> Fields | None:
    """The handler's answer for the topics that are allowed, and its refusals for the others.

    Args:
        asked: the field of the request that has an entry for each topic.
        answered: the field of the response.
    """
    kept, refused = split(
        getattr(request, asked), lambda each: is_named_allowed(each, context, operation)
    )
    if not refused:
        return await handler.handle(request, context)
    assert handler.failed is not None
    answer = await handler.handle(request._replace(**{asked: tuple(kept)}), context)
    refusal = handler.failed(request._replace(**{asked: tuple(refused)}), TOPIC_REFUSED)
    return None if answer is None else joined(answer, answered, refusal[answered])
