"""Whether a principal may do something: Kafka's rules over the access control lists there are.

A rule that denies beats those that allow. Who may read, write, delete or alter may describe; who
may alter settings may describe them. Where no rule names the resource at all, whoever it is of,
nobody may do anything, or everybody with `allow.everyone.if.no.acl.found`. Super users may do
everything, and are asked for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address

from millstream.log.events import event

from .acl import (
    ANY_HOST,
    ANY_USER,
    EVERY_NAME,
    OPERATIONS,
    Acl,
    Operation,
    Pattern,
    Permission,
    Resource,
)

__all__ = ["Authorizer"]

_ANSWERS_KEPT = 10_000
_NAME_KEPT_MAX = 255
"""Characters of a name whose answer is kept, and of what is logged of one. Nothing that is there
has a longer one, as a rule; a client may ask for 10,000 of 32 KB."""
_IMPLIED_BY: dict[Operation, frozenset[Operation]] = {
    Operation.DESCRIBE: frozenset(
        {Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER}
    ),
    Operation.DESCRIBE_CONFIGS: frozenset({Operation.ALTER_CONFIGS}),
}


class Authorizer:
    """The rules, made for looking up. `set_acls` replaces them."""

    def __init__(self, super_users: Iterable[str], *, allow_if_no_acl: bool) -> None:
        self._super_users = frozenset(super_users)
        self._allow_if_no_acl = allow_if_no_acl
        self._literal: dict[tuple[Resource, str], list[Acl]] = {}
        self._prefixed: dict[Resource, dict[str, list[Acl]]] = {}
        self._lengths: dict[Resource, list[int]] = {}
        self._answers: dict[tuple[str, str, Operation, Resource, str], bool] = {}

    def set_acls(self, acls: Iterable[Acl]) -> None:
        """From now on these hold, and no others."""
        self._literal, self._prefixed, self._answers = {}, {}, {}
        for each in acls:
            if each.pattern is Pattern.PREFIXED:
                by_prefix = self._prefixed.setdefault(each.resource, {})
                by_prefix.setdefault(each.name, []).append(each)
            else:
                self._literal.setdefault((each.resource, each.name), []).append(each)
        self._lengths = {
            resource: sorted(set(map(len, found))) for resource, found in self._prefixed.items()
        }

    def allows(
        self, principal: str, host: str, operation: Operation, resource: Resource, name: str
    ) -> bool:
        """Whether it may be done. Asked again the same, it costs a look into a dict."""
        asked = (principal, host, operation, resource, name)
        answer = self._answers.get(asked)
        if answer is None:
            answer = self._decide(*asked)
            if len(name) <= _NAME_KEPT_MAX:
                if len(self._answers) >= _ANSWERS_KEPT:
                    self._answers.clear()
                self._answers[asked] = answer
            # Once for as long as these rules hold; and not of what is only looked for.
            if not answer and operation is not Operation.DESCRIBE:
                event(
                    "access refused",
                    principal=principal,
                    client=host,
                    operation=operation.name,
                    resource=resource.name,
                    name=name[:_NAME_KEPT_MAX],
                )
        return answer

    def operations(self, principal: str, host: str, resource: Resource, name: str) -> int:
        """What may be done to it, as Kafka's field of bits."""
        return sum(
            1 << each
            for each in OPERATIONS[resource]
            if self.allows(principal, host, each, resource, name)
        )

    def allows_any(
        self, principal: str, host: str, operation: Operation, resource: Resource
    ) -> bool:
        """Whether there may be a resource of this type it may be done to (KIP-679)."""
        if principal in self._super_users:
            return True
        mine = [
            each
            for each in self._of_type(resource)
            if _is_about(each, principal, host) and each.operation in (operation, Operation.ALL)
        ]
        denied = [each for each in mine if each.permission is Permission.DENY]
        if any(each.pattern is Pattern.LITERAL and each.name == EVERY_NAME for each in denied):
            return False
        allowed = [each for each in mine if each.permission is Permission.ALLOW]
        return self._allow_if_no_acl or any(not _is_covered(each, denied) for each in allowed)

    def _decide(
        self, principal: str, host: str, operation: Operation, resource: Resource, name: str
    ) -> bool:
        if principal in self._super_users:
            return True
        found = list(self._naming(resource, name))
        if not found:
            return self._allow_if_no_acl
        allowing = {operation, Operation.ALL, *_IMPLIED_BY.get(operation, ())}
        allowed = False
        for each in found:
            if not _is_about(each, principal, host):
                continue
            if each.permission is Permission.DENY:
                if each.operation in (operation, Operation.ALL):
                    return False
            elif each.operation in allowing:
                allowed = True
        return allowed

    def _naming(self, resource: Resource, name: str) -> Iterator[Acl]:
        """The rules that apply to a resource, whoever they are for."""
        yield from self._literal.get((resource, name), ())
        if name != EVERY_NAME:
            yield from self._literal.get((resource, EVERY_NAME), ())
        prefixed = self._prefixed.get(resource, {})
        for length in self._lengths.get(resource, ()):
            if length > len(name):
                break
            yield from prefixed.get(name[:length], ())

    def _of_type(self, resource: Resource) -> Iterator[Acl]:
        for (kind, _), acls in self._literal.items():
            if kind is resource:
                yield from acls
        for acls in self._prefixed.get(resource, {}).values():
            yield from acls


def _is_about(acl: Acl, principal: str, host: str) -> bool:
    if acl.principal not in (principal, ANY_USER):
        return False
    return acl.host in (host, ANY_HOST) or _is_same_address(acl.host, host)


def _is_same_address(one: str, other: str) -> bool:
    """IPv6 is written in more than one way: ::1 is 0:0:0:0:0:0:0:1, as rules for Kafka have it."""
    if ":" not in one or ":" not in other:
        return False
    with suppress(ValueError):
        return ip_address(one) == ip_address(other)
    return False


def _is_covered(allowed: Acl, denied: list[Acl]) -> bool:
    """Whether what is allowed is denied all the same, for every name it has."""
    return any(
        allowed.name.startswith(each.name)
        if each.pattern is Pattern.PREFIXED
        else allowed.pattern is Pattern.LITERAL and allowed.name == each.name
        for each in denied
    )
