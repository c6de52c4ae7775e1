"""Users, access control lists and quotas: one small file of the log's folder, replaced whole.

On disk, `security.json`, readable by its owner only:

    {"version": 1,
     "users": {"anna": {"SCRAM-SHA-256": {"salt": "...", "iterations": 8192,
         "stored_key": "...", "server_key": "..."}}},
     "acls": [{"resource": "topic", "name": "orders", "pattern": "literal", "principal":
         "User:anna", "host": "*", "operation": "read", "permission": "allow"}]}

`quotas`, where there are any, are [{"user": "anna", "client_id": null, "values": {...}}]. Bytes are
base64. What is changed holds, on disk and for whoever asks, when the change returns; a
crash leaves the old file or the new one. A file that is damaged is an error: to go on without the
rules it held would let everybody in, or nobody.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import orjson

from millstream.log.errors import StorageError
from millstream.log.events import event
from millstream.log.storage.files import Files, replace_file
from millstream.log.storage.log_dir import disk_errors

from .acl import Acl, Operation, Pattern, Permission, Resource
from .quotas import QUOTAS, Entity, QuotaTable
from .scram import SCRAM, Credential

__all__ = ["SECURITY_FILE", "SecurityStore", "SecurityTable", "Users", "decode_security"]

SECURITY_FILE = "security.json"
_VERSION = 1
_SAMPLE = 100  # users that one who is not there may look like

Users = Mapping[str, Mapping[str, Credential]]
"""Name of a user -> mechanism -> what is kept of his password."""


class SecurityTable(NamedTuple):
    """Everything there is, at one moment."""

    users: Users
    acls: frozenset[Acl]
    quotas: QuotaTable


class SecurityStore:
    """The users and rules of one log.

    Args:
        run: runs blocking work elsewhere than on the event loop, and waits for it.
    """

    def __init__(
        self,
        files: Files,
        folder: str,
        run: Callable[[Callable[[], None]], Awaitable[None]],
    ) -> None:
        """Raises StorageError: the file is damaged or cannot be read."""
        self._files = files
        self._path = f"{folder}/{SECURITY_FILE}"
        self._run = run
        self._changing = asyncio.Lock()
        self.on_change: set[Callable[[SecurityTable], None]] = set()
        self._table = SecurityTable({}, frozenset(), {})
        with disk_errors(folder):
            if files.exists(self._path):
                self._table = decode_security(files.read_whole(self._path), self._path)

    @property
    def users(self) -> Users:
        """Every user."""
        return self._table.users

    @property
    def acls(self) -> frozenset[Acl]:
        """Every rule."""
        return self._table.acls

    @property
    def quotas(self) -> QuotaTable:
        """Every quota."""
        return self._table.quotas

    def credential(self, user: str, mechanism: str) -> Credential | None:
        """What is kept of a user's password."""
        return self._table.users.get(user, {}).get(mechanism)

    def credentials(self, mechanism: str) -> list[Credential]:
        """Those of some users."""
        found = (each[mechanism] for each in self._table.users.values() if mechanism in each)
        return list(islice(found, _SAMPLE))

    async def set_credentials(self, changes: Mapping[tuple[str, str], Credential | None]) -> None:
        """Replace what is kept of (user, mechanism); None takes it away, and with the last one the
        user.

        Raises:
            StorageError: the disk refused; nothing was changed.
        """

        def changed(table: SecurityTable) -> SecurityTable:
            users = {name: dict(found) for name, found in table.users.items()}
            for (name, mechanism), credential in changes.items():
                if credential is not None:
                    users.setdefault(name, {})[mechanism] = credential
                elif users.get(name, {}).pop(mechanism, None) is not None and not users[name]:
                    del users[name]
            return table._replace(users=users)

        await self._change(changed)

    async def add_acls(self, acls: Iterable[Acl]) -> None:
        """Add rules. Raises StorageError as `set_credentials` does."""
        added = frozenset(acls)
        await self._change(lambda table: table._replace(acls=table.acls | added))

    async def delete_acls(self, acls: Iterable[Acl]) -> None:
        """Take rules away. Raises StorageError as `set_credentials` does."""
        gone = frozenset(acls)
        await self._change(lambda table: table._replace(acls=table.acls - gone))

    async def set_quotas(self, changes: Mapping[Entity, Mapping[str, float | None]]) -> None:
        """Replace quotas, by name; None takes one away. Raises as `set_credentials` does."""

        def changed(table: SecurityTable) -> SecurityTable:
            quotas = {entity: dict(values) for entity, values in table.quotas.items()}
            for entity, values in changes.items():
                found = quotas.setdefault(entity, {})
                for name, value in values.items():
                    found.pop(name, None)
                    if value is not None:
                        found[name] = value
            left = {entity: found for entity, found in quotas.items() if found}
            return table._replace(quotas=left)

        await self._change(changed)

    async def _change(self, change: Callable[[SecurityTable], SecurityTable]) -> None:
        async with self._changing:
            table = change(self._table)
            if table == self._table:
                return
            try:
                await self._run(self._writing(table))
            except OSError as error:
                with suppress(OSError):  # the new one may be there already
                    await self._run(self._writing(self._table))
                raise StorageError(
                    f"{self._path} cannot be written ({error}); users and access control lists are "
                    "as before. Mend the disk, or make room on it, and try again."
                ) from error
            self._table = table
            event(
                "security changed",
                users=len(table.users),
                acls=len(table.acls),
                quotas=len(table.quotas),
            )
            for tell in self.on_change:
                tell(table)

    def _writing(self, table: SecurityTable) -> Callable[[], None]:
        data = _encoded(table)
        return lambda: replace_file(self._files, self._path, data, private=True)


def _encoded(table: SecurityTable) -> bytes:
    users = {
        name: {
            mechanism: {
                "salt": b64encode(each.salt).decode(),
                "iterations": each.iterations,
                "stored_key": b64encode(each.stored_key).decode(),
                "server_key": b64encode(each.server_key).decode(),
            }
            for mechanism, each in found.items()
        }
        for name, found in table.users.items()
    }
    acls = [
        {
            "resource": each.resource.name.lower(),
            "name": each.name,
            "pattern": each.pattern.name.lower(),
            "principal": each.principal,
            "host": each.host,
            "operation": each.operation.name.lower(),
            "permission": each.permission.name.lower(),
        }
        for each in sorted(table.acls)
    ]
    quotas = [
        {"user": entity.user, "client_id": entity.client_id, "values": dict(values)}
        for entity, values in table.quotas.items()
    ]
    document = {"version": _VERSION, "users": users, "acls": acls, "quotas": quotas}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def decode_security(data: bytes, path: str) -> SecurityTable:
    """From the bytes of `security.json`; `path` is for messages.

    Raises:
        StorageError: it is not such a file.
    """
    try:
        document = orjson.loads(data)
        if document["version"] != _VERSION:
            raise StorageError(
                f"{path} has version {document['version']}; this release reads {_VERSION}. Open "
                "the log with the release that wrote it, or a newer one."
            )
        users = {
            str(name): {
                SCRAM[mechanism].name: _credential(each) for mechanism, each in found.items()
            }
            for name, found in document["users"].items()
        }
        quotas = dict(_quota(each) for each in document.get("quotas", ()))
        return SecurityTable(users, frozenset(_acl(each) for each in document["acls"]), quotas)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"{path} is damaged ({error!r}). Restore it from a backup: it holds the users and the "
            "access control lists. Without it nobody can log in; users that are added anew get new "
            "keys, and rules have to be made again."
        ) from error


def _credential(fields: dict[str, Any]) -> Credential:
    iterations = fields["iterations"]
    if type(iterations) is not int or iterations < 1:
        raise ValueError(f"{iterations!r} iterations")
    keys = (b64decode(fields[name], validate=True) for name in ("stored_key", "server_key"))
    return Credential(b64decode(fields["salt"], validate=True), iterations, *keys)


def _quota(fields: dict[str, Any]) -> tuple[Entity, dict[str, float]]:
    entity = Entity(fields["user"], fields["client_id"])
    values = {str(name): float(value) for name, value in fields["values"].items()}
    texts = all(each is None or isinstance(each, str) for each in entity)
    if not texts or not all(name in QUOTAS and value > 0 for name, value in values.items()):
        raise ValueError(f"{fields!r} is no quota")
    return entity, values


def _acl(fields: dict[str, Any]) -> Acl:
    texts = (fields["name"], fields["principal"], fields["host"])
    if not all(isinstance(each, str) for each in texts):
        raise TypeError(f"{texts!r} are no names")
    return Acl(
        Resource[fields["resource"].upper()],
        fields["name"],
        Pattern[fields["pattern"].upper()],
        fields["principal"],
        fields["host"],
        Operation[fields["operation"].upper()],
        Permission[fields["permission"].upper()],
    )
