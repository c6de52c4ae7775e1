"""Access control lists: what one says, and which are meant by a filter. Numbers are Kafka's."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

__all__ = [
    "ANY_HOST",
    "ANY_USER",
    "CLUSTER_NAME",
    "EVERY_NAME",
    "OPERATIONS",
    "Acl",
    "AclFilter",
    "Operation",
    "Pattern",
    "Permission",
    "Resource",
    "operation_bits",
]

EVERY_NAME = "*"
ANY_USER = "User:*"
ANY_HOST = "*"
CLUSTER_NAME = "kafka-cluster"
"""The name of the one resource of type cluster."""


class Resource(IntEnum):
    """What something is done to."""

    ANY = 1
    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5


class Pattern(IntEnum):
    """How the name of an ACL is meant. ANY and MATCH are for filters only."""

    ANY = 1
    MATCH = 2
    LITERAL = 3
    PREFIXED = 4


class Operation(IntEnum):
    """What is done."""

    ANY = 1
    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12


class Permission(IntEnum):
    """Whether it is allowed."""

    ANY = 1
    DENY = 2
    ALLOW = 3


OPERATIONS: dict[Resource, tuple[Operation, ...]] = {
    Resource.TOPIC: (
        Operation.READ,
        Operation.WRITE,
        Operation.CREATE,
        Operation.DELETE,
        Operation.ALTER,
        Operation.DESCRIBE,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
    ),
    Resource.GROUP: (Operation.READ, Operation.DELETE, Operation.DESCRIBE),
    Resource.CLUSTER: (
        Operation.CREATE,
        Operation.ALTER,
        Operation.DESCRIBE,
        Operation.CLUSTER_ACTION,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
        Operation.IDEMPOTENT_WRITE,
    ),
    Resource.TRANSACTIONAL_ID: (Operation.WRITE, Operation.DESCRIBE),
}
"""What can be done to a resource of each type, and be allowed or denied besides ALL."""


def operation_bits(resource: Resource) -> int:
    """All that can be done, as Kafka's fields of bits tell it."""
    return sum(1 << each for each in OPERATIONS[resource])


class Acl(NamedTuple):
    """One rule: whether a principal may, from a host, do an operation to what a pattern names."""

    resource: Resource
    name: str
    pattern: Pattern
    principal: str
    host: str
    operation: Operation
    permission: Permission


class AclFilter(NamedTuple):
    """Which rules are meant; None and ANY are all. The pattern MATCH means those that apply to
    `name`: of that name, of every name, and prefixes of it."""

    resource: Resource
    name: str | None
    pattern: Pattern
    principal: str | None
    host: str | None
    operation: Operation
    permission: Permission

    def matches(self, acl: Acl) -> bool:
        """Whether it means this rule."""
        return (
            self.resource in (Resource.ANY, acl.resource)
            and self.principal in (None, acl.principal)
            and self.host in (None, acl.host)
            and self.operation in (Operation.ANY, acl.operation)
            and self.permission in (Permission.ANY, acl.permission)
            and self._names(acl)
        )

    def _names(self, acl: Acl) -> bool:
        if self.pattern not in (Pattern.ANY, Pattern.MATCH, acl.pattern):
            return False
        if self.name is None or self.name == acl.name:
            return True
        if self.pattern is not Pattern.MATCH:
            return False
        if acl.pattern is Pattern.LITERAL:
            return acl.name == EVERY_NAME
        return self.name.startswith(acl.name)
