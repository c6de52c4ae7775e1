"""Users and rules on disk: there for good when the change returns, whole after any crash."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest

from millstream.log.errors import StorageError
from millstream.log.security import acl
from millstream.log.security.acl import Acl, Pattern, Permission, Resource
from millstream.log.security.quotas import DEFAULT, Entity
from millstream.log.security.scram import SCRAM, Credential, new_credential
from millstream.log.security.store import SECURITY_FILE, SecurityStore
from millstream.log.storage.files import Files, RealFiles
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.testing.sim_files import Crash, Operation, SimFiles, disk_error

ACL = Acl(
    Resource.TOPIC, "a\"b'ü", Pattern.PREFIXED, "User:CN=x,O=y", "*", acl.Operation.ALTER_CONFIGS,
    Permission.DENY,
)  # fmt: skip


async def here(work: Callable[[], None]) -> None:
    work()


def opened(files: Files, folder: str = "log") -> SecurityStore:
    return SecurityStore(files, folder, here)


def credential(number: int) -> Credential:
    return Credential(b"salt", 4096 + number, b"stored", b"server")


def test_what_was_set_is_there_when_it_is_opened_again() -> None:
    files = MemoryFiles()
    files.make_dir("log")
    store, kept = opened(files), new_credential(SCRAM["SCRAM-SHA-512"], "secret")
    asyncio.run(store.set_credentials({("anna", "SCRAM-SHA-512"): kept}))
    asyncio.run(store.add_acls([ACL]))
    quotas = {Entity("anna", DEFAULT): {"producer_byte_rate": 1.5}, Entity(None, "app"): {}}
    asyncio.run(store.set_quotas(quotas))
    again = opened(files)
    assert again.quotas == {Entity("anna", DEFAULT): {"producer_byte_rate": 1.5}}
    assert again.credential("anna", "SCRAM-SHA-512") == kept
    assert again.credential("anna", "SCRAM-SHA-256") is None
    assert again.acls == {ACL}
    asyncio.run(again.delete_acls([ACL]))
    asyncio.run(again.set_credentials({("anna", "SCRAM-SHA-512"): None}))
    assert (dict(opened(files).users), opened(files).acls) == ({}, frozenset())


def test_whoever_asks_is_told_of_rules() -> None:
    files = MemoryFiles()
    files.make_dir("log")
    store = opened(files)
    told: list[list[Acl]] = []
    store.on_change.add(lambda table: told.append(list(table.acls)))
    asyncio.run(store.add_acls([ACL]))
    asyncio.run(store.add_acls([ACL]))
    asyncio.run(store.delete_acls([ACL]))
    assert told == [[ACL], []]


def test_only_its_owner_can_read_the_file(tmp_path: Path) -> None:
    store = opened(RealFiles(), str(tmp_path))
    asyncio.run(store.set_credentials({("anna", "SCRAM-SHA-256"): credential(0)}))
    assert (tmp_path / SECURITY_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{", b'{"version": 2}', b'{"version": 1, "users": {}}',
        b'{"version": 1, "users": {"a": {"SCRAM-MD5": {}}}, "acls": []}',
        b'{"version": 1, "users": {"a": {"SCRAM-SHA-256": {"salt": "!"}}}, "acls": []}',
        b'{"version": 1, "users": {}, "acls": [{"resource": "house"}]}',
        b'{"version": 1, "users": {}, "acls": [{"resource": "topic", "name": 1}]}',
    ],
)  # fmt: skip
def test_a_damaged_file_lets_nobody_in(content: bytes) -> None:
    files = MemoryFiles()
    files.make_dir("log")
    files.open(f"log/{SECURITY_FILE}", create=True).append(content)
    with pytest.raises(StorageError, match=r"security\.json"):
        opened(files)


def changing(files: SimFiles) -> SecurityStore:
    """A disk with a user on it for good."""
    files.make_dir("log")
    files.fsync_dir(".")
    store = opened(files)
    asyncio.run(store.set_credentials({("anna", "SCRAM-SHA-256"): credential(1)}))
    return store


def found(files: Files) -> Credential | None:
    return opened(files).credential("anna", "SCRAM-SHA-256")


def test_a_crash_at_any_step_leaves_the_old_or_the_new() -> None:
    finished = False
    crashes = 0
    while not finished:
        files = SimFiles()
        store = changing(files)
        files.crash_at = files.writes + crashes
        with suppress(Crash):
            asyncio.run(store.set_credentials({("anna", "SCRAM-SHA-256"): credential(2)}))
            finished = True
        allowed = [credential(2)] if finished else [credential(1), credential(2)]
        for seed in range(20):
            assert found(files.after_crash(seed=seed)) in allowed
        crashes += 1
    assert crashes > 4


@pytest.mark.parametrize("kind", ["EIO", "ENOSPC"])
def test_a_disk_that_refuses_leaves_everything_as_it_was(kind: Literal["EIO", "ENOSPC"]) -> None:
    for number in range(100):
        files = SimFiles()
        store = changing(files)
        at = len(files.operations) + number

        def fail(operation: Operation, at: int = at) -> OSError | None:
            return disk_error(kind, operation.path) if operation.number == at else None

        files.on_operation = fail
        try:
            asyncio.run(store.set_credentials({("anna", "SCRAM-SHA-256"): credential(2)}))
        except StorageError:
            assert store.credential("anna", "SCRAM-SHA-256") == credential(1)
            assert found(files.restart()) == credential(1)
        else:
            assert number > 4
            return
    raise AssertionError("it never succeeded")
