"""SCRAM by the examples of its RFCs, and what it refuses."""

from __future__ import annotations

import base64

import pytest

from millstream.log.security.scram import (
    SCRAM,
    Credential,
    LoginError,
    ScramExchange,
    credential_of,
    new_credential,
    salted_password,
)
from shared.scram_client import ScramClient

SHA_256 = SCRAM["SCRAM-SHA-256"]
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")


def exchange(
    password: str = "pencil", name: str = "SCRAM-SHA-256", user: str = "user"
) -> ScramExchange:
    mechanism = SCRAM[name]
    credential = new_credential(mechanism, password, 4096)
    return ScramExchange(mechanism, {user: credential}.get)


def test_the_example_of_rfc_7677() -> None:
    salted = salted_password(SHA_256, "pencil", SALT, 4096)
    credential = credential_of(SHA_256, salted, SALT, 4096)
    login = ScramExchange(SHA_256, {"user": credential}.get, nonce="%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert login.step(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    answer = login.step(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert answer == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert (login.user, login.done) == ("user", True)


@pytest.mark.parametrize("name", list(SCRAM))
@pytest.mark.parametrize("user", ["anna", "a,b=c", "Zoë"])
def test_the_right_password(name: str, user: str) -> None:
    login, client = exchange(name=name, user=user), ScramClient(name, user, "pencil")
    client.check(login.step(client.final(login.step(client.first()))))
    assert login.user == user


@pytest.mark.parametrize(("user", "password"), [("user", "pencil "), ("other", "pencil")])
def test_a_wrong_password_and_a_user_that_is_not_there_look_the_same(
    user: str, password: str
) -> None:
    login, client = exchange(), ScramClient("SCRAM-SHA-256", user, password)
    final = client.final(login.step(client.first()))
    with pytest.raises(LoginError, match="wrong password, or no such user"):
        login.step(final)


def test_a_user_that_is_not_there_has_one_salt() -> None:
    answers = {exchange().step(b"n,,n=nobody,r=x").split(b",")[1] for _ in range(3)}
    assert len(answers) == 1


def test_a_user_that_is_not_there_looks_like_one_that_is() -> None:
    there = [Credential(bytes(size), 4096 + size, b"", b"") for size in (7, 40)]
    looks = set()
    for number in range(50):
        first = ScramExchange(SHA_256, lambda _: None, lambda: there).step(
            f"n,,n=nobody{number},r=x".encode()
        )
        fields = dict(each.split("=", 1) for each in first.decode().split(","))
        looks.add((len(base64.b64decode(fields["s"])), int(fields["i"])))
    assert looks == {(7, 4103), (40, 4136)}


@pytest.mark.parametrize(
    "first",
    [
        b"", b"\xff", b"n", b"n,,", b"n,,n=user", b"n,,r=x,n=user", b"n,,n=,r=x", b"n,,n=user,r=",
        b"p=tls-unique,,n=user,r=x", b"n,a=root,n=user,r=x", b"n,,m=1,n=user,r=x",
        b"n,,n=us=er,r=x", b"n,,n=user,r=x,tokenauth=true", b"x,,n=user,r=x",
    ],
)  # fmt: skip
def test_what_is_no_first_message(first: bytes) -> None:
    with pytest.raises(LoginError):
        exchange().step(first)


@pytest.mark.parametrize(
    "change",
    [
        lambda final: b"",
        lambda final: final.replace(b"c=biws", b"c=eSws"),
        lambda final: final.replace(b"c=biws", b"c=!!!"),
        lambda final: final.replace(b"r=", b"r=x"),
        lambda final: final.replace(b",p=", b",x=1,p=A"),
        lambda final: final.rpartition(b",")[0],
        lambda final: final.rpartition(b",")[0] + b",p=",
        lambda final: final.rpartition(b",")[0] + b",p=" + base64.b64encode(bytes(32)),
    ],
)
def test_a_final_message_that_was_changed(change: object) -> None:
    login, client = exchange(), ScramClient("SCRAM-SHA-256", "user", "pencil")
    final = client.final(login.step(client.first()))
    assert callable(change)
    with pytest.raises(LoginError):
        login.step(change(final))


@pytest.mark.parametrize(
    ("wrong", "problem"), [({"binding": "eSws"}, "binding"), ({"nonce": "noncex"}, "nonce")]
)
def test_a_final_message_that_is_proven_and_wrong(wrong: dict[str, str], problem: str) -> None:
    login, client = exchange(), ScramClient("SCRAM-SHA-256", "user", "pencil")
    final = client.final(login.step(client.first()), **wrong)
    with pytest.raises(LoginError, match=problem):
        login.step(final)


def test_a_message_after_the_last() -> None:
    login, client = exchange(), ScramClient("SCRAM-SHA-256", "user", "pencil")
    final = client.final(login.step(client.first()))
    login.step(final)
    with pytest.raises(LoginError, match="after the last"):
        login.step(final)


def test_keys_are_not_shown() -> None:
    shown = repr(Credential(b"salt", 4096, b"stored", b"server"))
    assert "4096" in shown
    assert not any(each in shown for each in ("salt", "stored", "server"))
