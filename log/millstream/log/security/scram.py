"""SCRAM (RFC 5802, RFC 7677): what a user's password becomes, and the server's side of a login.

The server keeps neither the password nor anything that logs in by itself: a salt, a number of
iterations, and two keys made of them by PBKDF2 and HMAC.

    client  n,,n=anna,r=<its nonce>
    server  r=<its nonce><ours>,s=<salt>,i=<iterations>
    client  c=biws,r=<both nonces>,p=<proof>
    server  v=<our proof>

An unknown user gets a salt too, the same each time, like those of users there are, and fails at
the end like a wrong password: nobody learns here who there is.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from secrets import token_bytes, token_urlsafe
from typing import NamedTuple, TypeVar

from millstream.log.errors import LogError

__all__ = [
    "ITERATIONS_DEFAULT",
    "ITERATIONS_MAX",
    "ITERATIONS_MIN",
    "SCRAM",
    "Credential",
    "LoginError",
    "ScramExchange",
    "ScramMechanism",
    "credential_of",
    "new_credential",
    "one_of",
    "salted_password",
    "stand_in",
]

T = TypeVar("T")

ITERATIONS_MIN = 4096
"""RFC 7677 asks for as many; Kafka refuses fewer."""
ITERATIONS_MAX = 16_384
"""Kafka refuses more."""
ITERATIONS_DEFAULT = 8192
SALT_SIZE_BYTES = 24
_SECRET = token_bytes(32)
"""Of this process: what salts of unknown users are made of."""


class LoginError(LogError):
    """A login failed. The message is for the server's own log; clients hear less."""

    kafka_code = 58


class ScramMechanism(NamedTuple):
    """One of SCRAM's two. `number` is what Kafka's requests call it."""

    name: str
    number: int
    digest: str
    digest_size_bytes: int


SCRAM = {
    each.name: each
    for each in (
        ScramMechanism("SCRAM-SHA-256", 1, "sha256", 32),
        ScramMechanism("SCRAM-SHA-512", 2, "sha512", 64),
    )
}


class Credential(NamedTuple):
    """What is kept of a password."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return f"Credential({self.iterations} iterations)"


def salted_password(
    mechanism: ScramMechanism, password: str, salt: bytes, iterations: int
) -> bytes:
    """Takes milliseconds, which is its purpose: not for the event loop."""
    return hashlib.pbkdf2_hmac(mechanism.digest, password.encode(), salt, iterations)


def credential_of(
    mechanism: ScramMechanism, salted: bytes, salt: bytes, iterations: int
) -> Credential:
    """From a salted password."""
    client_key = hmac.digest(salted, b"Client Key", mechanism.digest)
    return Credential(
        salt,
        iterations,
        hashlib.new(mechanism.digest, client_key).digest(),
        hmac.digest(salted, b"Server Key", mechanism.digest),
    )


def new_credential(
    mechanism: ScramMechanism, password: str, iterations: int = ITERATIONS_DEFAULT
) -> Credential:
    """With a salt of its own. Takes milliseconds."""
    salt = token_bytes(SALT_SIZE_BYTES)
    salted = salted_password(mechanism, password, salt, iterations)
    return credential_of(mechanism, salted, salt, iterations)


class ScramExchange:
    """One login. `step` takes a message of the client and answers one; `user` is set by the first.

    Args:
        find: the credential of a user; None where there is none.
        others: what those who are not there are to look like; see `stand_in`.
    """

    def __init__(
        self,
        mechanism: ScramMechanism,
        find: Callable[[str], Credential | None],
        others: Callable[[], Sequence[Credential]] = tuple,
        nonce: str | None = None,
    ) -> None:
        self._mechanism = mechanism
        self._find = find
        self._others = others
        self._nonce = nonce or token_urlsafe(24)
        self._begun = ""  # both first messages, as they go into the proofs
        self._is_known = False
        self._credential: Credential | None = None
        self._header = ""
        self.user = ""
        self.done = False

    def step(self, token: bytes) -> bytes:
        """Raises LoginError."""
        try:
            text = token.decode()
        except UnicodeDecodeError as error:
            raise LoginError("a SCRAM message is not UTF-8.") from error
        return (self._first(text) if self._credential is None else self._final(text)).encode()

    def _first(self, text: str) -> str:
        binding, comma, rest = text.partition(",")
        authzid, second, bare = rest.partition(",")
        if not (comma and second) or binding not in ("n", "y"):
            raise LoginError("SCRAM: the message begins with no n,, or y,,: no channel is bound.")
        if bare.startswith("m="):
            raise LoginError("SCRAM: an extension that is mandatory is not there.")
        fields = bare.split(",")
        name, client_nonce = _value(fields, 0, "n"), _value(fields, 1, "r")
        if "tokenauth=true" in fields[2:]:
            raise LoginError("SCRAM: there are no delegation tokens.")
        self.user = _unescaped(name)
        if not self.user or not client_nonce:
            raise LoginError("SCRAM: no user or no nonce.")
        if authzid and _unescaped(_value([authzid], 0, "a")) != self.user:
            raise LoginError("SCRAM: a user can log in as himself only.")
        found = self._find(self.user)
        self._is_known = found is not None
        self._credential = found or stand_in(self._mechanism, self.user, self._others())
        self._header = f"{binding},{authzid},"
        self._nonce = client_nonce + self._nonce
        salt = b64encode(self._credential.salt).decode()
        answer = f"r={self._nonce},s={salt},i={self._credential.iterations}"
        self._begun = f"{bare},{answer}"
        return answer

    def _final(self, text: str) -> str:
        credential = self._credential
        assert credential is not None
        if self.done:
            raise LoginError("SCRAM: a message after the last.")
        self.done = True
        bare, _, proof_field = text.rpartition(",")
        fields = bare.split(",")
        proof = _decoded(_value([proof_field], 0, "p"))
        if _decoded(_value(fields, 0, "c")) != self._header.encode():
            raise LoginError("SCRAM: the channel binding is another than at the beginning.")
        if not hmac.compare_digest(_value(fields, 1, "r").encode(), self._nonce.encode()):
            raise LoginError("SCRAM: the nonce is another than at the beginning.")
        digest = self._mechanism.digest
        message = f"{self._begun},{bare}".encode()
        signature = hmac.digest(credential.stored_key, message, digest)
        if len(proof) != len(signature):
            raise LoginError("SCRAM: a proof of another length.")
        key = bytes(one ^ other for one, other in zip(proof, signature, strict=True))
        right = hmac.compare_digest(hashlib.new(digest, key).digest(), credential.stored_key)
        if not (right and self._is_known):
            raise LoginError("wrong password, or no such user.")
        return f"v={b64encode(hmac.digest(credential.server_key, message, digest)).decode()}"


def one_of(others: Sequence[T], user: str) -> T:
    """Always the same one for the same user, for as long as this process runs and they stay."""
    return others[int.from_bytes(_secret_of(user)[-8:], "big") % len(others)]


def stand_in(mechanism: ScramMechanism, user: str, others: Sequence[Credential]) -> Credential:
    """For a user that is not there: no password fits, and one of `others`, always the same, is what
    it looks like from outside."""
    size_bytes, iterations = SALT_SIZE_BYTES, ITERATIONS_DEFAULT
    if others:
        like = one_of(others, user)
        size_bytes, iterations = len(like.salt), like.iterations
    salt = hashlib.shake_256(_secret_of(user)).digest(size_bytes)
    unmatched = token_bytes(mechanism.digest_size_bytes)
    return Credential(salt, iterations, unmatched, unmatched)


def _secret_of(user: str) -> bytes:
    return hmac.digest(_SECRET, user.encode(), "sha512")


def _value(fields: list[str], position: int, name: str) -> str:
    if position < len(fields):
        key, equals, value = fields[position].partition("=")
        if key == name and equals:
            return value
    raise LoginError(f"SCRAM: {name}= is missing.")


def _unescaped(name: str) -> str:
    """From RFC 5802's saslname, in which "," and "=" are =2C and =3D."""
    if "=" in name.replace("=2C", "").replace("=3D", ""):
        raise LoginError("SCRAM: a user's name has a = that stands for nothing.")
    return name.replace("=2C", ",").replace("=3D", "=")


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise LoginError("SCRAM: what must be base64 is not.") from error
