"""`millstream users`: who can log in to a log that is served."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

from millstream.log.security_config import SCRAM_MECHANISMS

from .command import (
    LogGroup,
    check_is_there,
    fail,
    json_option,
    log_option,
    print_json,
    reported_errors,
)

if TYPE_CHECKING:
    from millstream.log.security.store import SecurityStore

__all__ = ["users"]

mechanisms_option = click.option(
    "--mechanism",
    "mechanisms",
    type=click.Choice(SCRAM_MECHANISMS),
    multiple=True,
    help="Of these only. Repeatable. Default: both.",
)


@click.group(cls=LogGroup)
def users() -> None:
    """List, add and delete users of a log that is served.

    The log keeps keys made of a password, never the password. While the log is served, Kafka's own
    tools do the same (kafka-configs.sh --entity-type users).

    \b
    millstream users add anna --password-file anna.txt
    millstream users list
    """


@users.command("list")
@log_option
@json_option
def list_users(log_url: str, as_json: bool) -> None:
    """Names of the users, one a line, with how they can log in."""

    with _store(log_url) as store:
        for name, found in sorted(store.users.items()):
            if as_json:
                iterations = {mechanism: each.iterations for mechanism, each in found.items()}
                print_json({"name": name, "iterations": iterations})
            else:
                click.echo(f"{name}: {', '.join(sorted(found))}")


@users.command()
@click.argument("name")
@click.option(
    "--password-file",
    type=click.File("r"),
    help="Its first line is the password; - is standard input. Default: ask on the terminal.",
)
@mechanisms_option
@click.option(
    "--iterations", type=int, help="4096 to 16384: what a guess costs a thief. Default: 8192."
)
@log_option
@json_option
def add(
    name: str,
    password_file: TextIO | None,
    mechanisms: Sequence[str],
    iterations: int | None,
    log_url: str,
    as_json: bool,
) -> None:
    """Add the user NAME, or give him another password. The log is made if it is not there."""
    from millstream.log.security.scram import ITERATIONS_DEFAULT, SCRAM, new_credential
    from millstream.log.security.users import check_user

    iterations = ITERATIONS_DEFAULT if iterations is None else iterations
    password = _password(name, password_file)
    with _store(log_url, must_exist=False) as store:
        there = name in store.users
        check_user(name, iterations)
        chosen = mechanisms or SCRAM_MECHANISMS
        made = {(name, each): new_credential(SCRAM[each], password, iterations) for each in chosen}
        asyncio.run(store.set_credentials(made))
    _tell(name, "altered" if there else "added", as_json=as_json)


@users.command()
@click.argument("name")
@mechanisms_option
@log_option
@json_option
def delete(name: str, mechanisms: Sequence[str], log_url: str, as_json: bool) -> None:
    """Delete the user NAME. Access control lists that name him stay."""
    with _store(log_url) as store:
        gone = [each for each in mechanisms or SCRAM_MECHANISMS if store.credential(name, each)]
        if not gone:
            fail(f"There is no such user {name!r}. `millstream users list` names those there are.")
        asyncio.run(store.set_credentials({(name, each): None for each in gone}))
    _tell(name, "deleted", as_json=as_json)


@contextmanager
def _store(url: str, *, must_exist: bool = True) -> Iterator[SecurityStore]:
    """The users of the log at `url`, which nobody has open."""
    from millstream.log.open import folder_of
    from millstream.log.security.closed_log import has_users, opened_security

    folder = folder_of(url)
    if folder is None:
        fail("Users are kept in a log's folder: name it, --log file:DIR.")
    with reported_errors():
        if must_exist and not has_users(folder):
            check_is_there(url)
        with opened_security(folder) as store:
            yield store


def _password(name: str, file: TextIO | None) -> str:
    if file is None:
        if not sys.stdin.isatty():
            raise click.UsageError("There is no terminal to ask on: give --password-file.")
        return str(click.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True))
    try:
        password = file.readline().rstrip("\r\n")
        password.encode()
    except UnicodeError:  # which would say a part of it
        raise click.UsageError("The password is no text of this system's encoding.") from None
    if not password:
        raise click.UsageError("The password is empty.")
    return password


def _tell(name: str, what: str, *, as_json: bool) -> None:
    result: dict[str, Any] = {"name": name, "result": what}
    if as_json:
        print_json(result)
    else:
        click.echo(f"{name}: {what}")
