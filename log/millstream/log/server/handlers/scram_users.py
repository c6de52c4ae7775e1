"""DescribeUserScramCredentials, AlterUserScramCredentials (KIP-554): who can log in.

A client sends what it made of a password with a salt; the password itself is never on the way.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from millstream.log.errors import LogError
from millstream.log.security.scram import SCRAM, Credential, ScramMechanism, credential_of
from millstream.log.security.store import SecurityStore
from millstream.log.security.users import UnacceptableCredentialError, check_user
from millstream.log.server.handler import Context, Fields, Handler

__all__ = ["HANDLERS"]

_NUMBERS = {each.number: each for each in SCRAM.values()}


class _UnsupportedMechanismError(LogError):
    kafka_code = 33


class _NoSuchUserError(LogError):
    kafka_code = 91


class _DuplicateError(LogError):
    kafka_code = 92


async def _describe(request: Any, context: Context) -> Fields:
    users = context.broker.security().users
    times = Counter(each.name for each in request.users or ())
    return {"results": [_described(name, times[name], users) for name in times or sorted(users)]}


def _described(name: str, times: int, users: Any) -> Fields:
    if times > 1:
        return {"user": name, **_error(_DuplicateError(f"{name} is named {times} times."))}
    if name not in users:
        return {"user": name, **_error(_no_user(name))}
    return {
        "user": name,
        "credential_infos": [
            {"mechanism": SCRAM[mechanism].number, "iterations": each.iterations}
            for mechanism, each in sorted(users[name].items())
        ],
    }


def _error(error: LogError) -> dict[str, Any]:
    return {"error_code": error.kafka_code, "error_message": str(error)}


def _no_user(name: str) -> LogError:
    return _NoSuchUserError(f"User {name!r} has no such keys; add them first.")


async def _alter(request: Any, context: Context) -> Fields:
    """What is asked for one user is done whole or not at all."""
    store = context.broker.security()
    entries = [*request.deletions, *request.upsertions]
    times = Counter((each.name, each.mechanism) for each in entries)
    by_user: dict[str, list[Any]] = {}
    for each in entries:
        by_user.setdefault(each.name, []).append(each)
    results = []
    changes: dict[tuple[str, str], Credential | None] = {}
    for name, mine in by_user.items():
        try:
            if any(times[name, each.mechanism] > 1 for each in mine):
                raise _DuplicateError(f"User {name}: one mechanism is named more than once.")
            changes |= {(name, _known(each).name): _changed(each, store) for each in mine}
            results.append({"user": name})
        except LogError as error:
            results.append({"user": name, **_error(error)})
    await store.set_credentials(changes)
    return {"results": results}


def _known(entry: Any) -> ScramMechanism:
    mechanism = _NUMBERS.get(entry.mechanism)
    if mechanism is None:
        raise _UnsupportedMechanismError(
            f"There is no mechanism {entry.mechanism}; 1 is SCRAM-SHA-256, 2 SCRAM-SHA-512."
        )
    return mechanism


def _changed(entry: Any, store: SecurityStore) -> Credential | None:
    """The new keys of a user, None to delete them."""
    mechanism = _known(entry)
    if not hasattr(entry, "salted_password"):
        if store.credential(entry.name, mechanism.name) is None:
            raise _no_user(entry.name)
        return None
    check_user(entry.name, entry.iterations)
    if not entry.salt or len(entry.salted_password) != mechanism.digest_size_bytes:
        raise UnacceptableCredentialError(
            f"User {entry.name}: a salt, and {mechanism.digest_size_bytes} bytes made of it and "
            "the password, have to be sent."
        )
    return credential_of(mechanism, entry.salted_password, entry.salt, entry.iterations)


def _alter_failed(request: Any, code: int) -> Fields:
    names = dict.fromkeys(each.name for each in (*request.deletions, *request.upsertions))
    return {"results": [{"user": name, "error_code": code} for name in names]}


HANDLERS = {
    50: Handler(range(1), _describe),
    51: Handler(range(1), _alter, failed=_alter_failed),
}
