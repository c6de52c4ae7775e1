"""Kafka's rules of who may do what, case by case, and against a slow way to say them."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.log.security.acl import Acl, AclFilter, Operation, Pattern, Permission, Resource
from millstream.log.security.authorizer import Authorizer

ANNA, HOST = "User:anna", "10.0.0.1"
TOPIC, GROUP = Resource.TOPIC, Resource.GROUP
READ, WRITE, ALL, DESCRIBE = Operation.READ, Operation.WRITE, Operation.ALL, Operation.DESCRIBE
LITERAL, PREFIXED = Pattern.LITERAL, Pattern.PREFIXED
ALLOW, DENY = Permission.ALLOW, Permission.DENY


def acl(
    name: str = "orders",
    operation: Operation = READ,
    *,
    resource: Resource = TOPIC,
    pattern: Pattern = LITERAL,
    principal: str = ANNA,
    host: str = "*",
    permission: Permission = ALLOW,
) -> Acl:
    return Acl(resource, name, pattern, principal, host, operation, permission)


def may(
    operation: Operation,
    name: str,
    *acls: Acl,
    principal: str = ANNA,
    host: str = HOST,
    resource: Resource = TOPIC,
    allow_if_no_acl: bool = False,
) -> bool:
    authorizer = Authorizer(["User:root"], allow_if_no_acl=allow_if_no_acl)
    authorizer.set_acls(acls)
    first = authorizer.allows(principal, host, operation, resource, name)
    assert authorizer.allows(principal, host, operation, resource, name) is first
    return first


def test_without_a_rule_nobody_may() -> None:
    assert not may(READ, "orders")
    assert may(READ, "orders", principal="User:root")
    assert may(READ, "orders", allow_if_no_acl=True)


def test_a_rule_for_somebody_closes_what_was_open_to_all() -> None:
    other = acl(principal="User:bert")
    assert not may(READ, "orders", other, allow_if_no_acl=True)
    assert may(READ, "other", other, allow_if_no_acl=True)


def test_a_rule_is_for_one_name_one_operation_one_type_one_principal() -> None:
    assert may(READ, "orders", acl())
    assert not may(READ, "orders2", acl())
    assert not may(WRITE, "orders", acl())
    assert not may(READ, "orders", acl(), resource=GROUP)
    assert not may(READ, "orders", acl(), principal="User:bert")


def test_patterns() -> None:
    assert may(READ, "orders", acl("*"))
    assert may(READ, "orders", acl("ord", pattern=PREFIXED))
    assert may(READ, "ord", acl("ord", pattern=PREFIXED))
    assert not may(READ, "or", acl("ord", pattern=PREFIXED))
    assert not may(READ, "orders", acl("*", pattern=PREFIXED))


def test_everybody_and_every_operation() -> None:
    assert may(READ, "orders", acl(principal="User:*"))
    assert may(WRITE, "orders", acl(operation=ALL))


def test_hosts() -> None:
    assert may(READ, "orders", acl(host=HOST))
    assert not may(READ, "orders", acl(host="10.0.0.2"))


@pytest.mark.parametrize("host", ["2001:db8::a", "2001:DB8:0:0:0:0:0:A", "2001:0db8::000a"])
def test_hosts_of_ipv6_in_any_spelling(host: str) -> None:
    client = "2001:db8::a"
    assert may(READ, "orders", acl(host=host), host=client)
    assert not may(READ, "orders", acl(), acl(host=host, permission=DENY), host=client)
    assert not may(READ, "orders", acl(host=host), host="2001:db8::b")
    assert not may(READ, "orders", acl(host="no:address"), host=client)


def test_what_denies_beats_what_allows() -> None:
    everything = acl("*", ALL)
    for denied in (acl(permission=DENY), acl("o", ALL, pattern=PREFIXED, permission=DENY)):
        assert not may(READ, "orders", everything, denied)
        assert not may(READ, "orders", denied, everything)
        assert may(READ, "others" if denied.pattern is LITERAL else "x", everything, denied)
    assert may(READ, "orders", acl(permission=DENY), principal="User:root")


def test_who_may_read_may_describe_but_denying_implies_nothing() -> None:
    for operation in (READ, WRITE, Operation.DELETE, Operation.ALTER):
        assert may(DESCRIBE, "orders", acl(operation=operation))
        assert may(DESCRIBE, "orders", acl(operation=DESCRIBE), acl("x", permission=DENY))
    assert may(DESCRIBE, "orders", acl(operation=DESCRIBE), acl(permission=DENY))
    assert not may(DESCRIBE, "orders", acl(operation=Operation.CREATE))
    assert may(Operation.DESCRIBE_CONFIGS, "orders", acl(operation=Operation.ALTER_CONFIGS))
    assert not may(Operation.ALTER_CONFIGS, "orders", acl(operation=Operation.DESCRIBE_CONFIGS))


def may_any(*acls: Acl) -> bool:
    authorizer = Authorizer([], allow_if_no_acl=False)
    authorizer.set_acls(acls)
    return authorizer.allows_any(ANNA, HOST, WRITE, TOPIC)


def test_some_topic_may_be_written_to() -> None:
    right = acl("orders", WRITE)
    assert not may_any()
    assert not may_any(acl())
    assert may_any(right)
    assert may_any(right, acl("other", WRITE, permission=DENY))
    assert not may_any(right, acl("orders", WRITE, permission=DENY))
    assert not may_any(right, acl("or", ALL, pattern=PREFIXED, permission=DENY))
    assert not may_any(right, acl("*", WRITE, permission=DENY))
    assert may_any(acl("or", WRITE, pattern=PREFIXED), acl("orders", WRITE, permission=DENY))


def test_new_rules_hold_at_once() -> None:
    authorizer = Authorizer([], allow_if_no_acl=False)
    assert not authorizer.allows(ANNA, HOST, READ, TOPIC, "orders")
    authorizer.set_acls([acl()])
    assert authorizer.allows(ANNA, HOST, READ, TOPIC, "orders")
    authorizer.set_acls([])
    assert not authorizer.allows(ANNA, HOST, READ, TOPIC, "orders")


def test_who_asks_for_long_names_makes_it_remember_nothing() -> None:
    authorizer = Authorizer([], allow_if_no_acl=False)
    authorizer.set_acls([acl(pattern=PREFIXED)])
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for i in range(200):
            assert authorizer.allows(ANNA, HOST, READ, TOPIC, f"orders{i}{'x' * 20_000}")
            assert not authorizer.allows(ANNA, HOST, READ, GROUP, f"orders{i}{'x' * 20_000}")
        assert tracemalloc.get_traced_memory()[0] - before < 500_000
    finally:
        tracemalloc.stop()


def test_a_refusal_of_a_long_name_is_a_short_line(caplog: pytest.LogCaptureFixture) -> None:
    authorizer = Authorizer([], allow_if_no_acl=False)
    with caplog.at_level("INFO", "millstream.log"):
        assert not authorizer.allows(ANNA, HOST, READ, TOPIC, "x" * 20_000)
    (line,) = caplog.messages
    assert "access refused" in line
    assert len(line) < 1000


names = st.sampled_from(["a", "ab", "abc", "b", "*"])
acls = st.builds(
    Acl,
    st.sampled_from([TOPIC, GROUP]),
    names,
    st.sampled_from([LITERAL, PREFIXED]),
    st.sampled_from([ANNA, "User:bert", "User:*"]),
    st.sampled_from([HOST, "*", "other"]),
    st.sampled_from([READ, ALL, DESCRIBE, Operation.ALTER_CONFIGS]),
    st.sampled_from([ALLOW, DENY]),
)


@given(
    st.lists(acls, max_size=8),
    st.sampled_from([READ, WRITE, DESCRIBE, Operation.DESCRIBE_CONFIGS]),
    names,
    st.booleans(),
)
def test_as_a_slow_way_says(
    rules: list[Acl], operation: Operation, name: str, allow_if_no_acl: bool
) -> None:
    named = AclFilter(TOPIC, name, Pattern.MATCH, None, None, Operation.ANY, Permission.ANY)
    about = [each for each in rules if named.matches(each)]
    mine = [
        each for each in about if each.principal in (ANNA, "User:*") and each.host in (HOST, "*")
    ]
    implied = {
        DESCRIBE: {READ, WRITE, Operation.DELETE, Operation.ALTER},
        Operation.DESCRIBE_CONFIGS: {Operation.ALTER_CONFIGS},
    }.get(operation, set())
    if not about:
        expected = allow_if_no_acl
    elif any(each.permission is DENY and each.operation in (operation, ALL) for each in mine):
        expected = False
    else:
        expected = any(
            each.permission is ALLOW and each.operation in {operation, ALL, *implied}
            for each in mine
        )
    assert may(operation, name, *rules, allow_if_no_acl=allow_if_no_acl) is expected
