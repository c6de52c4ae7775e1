"""How one client shows who it is: SASL, by Kafka's requests (KIP-43, KIP-152, KIP-368).

    client  SaslHandshake     the mechanism
    client  SaslAuthenticate  what the mechanism has to say, until it is done

After version 0 of SaslHandshake the client sends the mechanism's messages as frames of their own,
without a request around them. Until a client has logged in, nothing but this and ApiVersions is
answered. A login that failed is answered late, and ends the connection. With
`connections.max.reauth.ms` a login holds for so long; then the client logs in again, as the same
user, on the same connection, or nothing else is answered.
"""

from __future__ import annotations

import hmac
import logging
import struct
from collections.abc import Awaitable, Callable, Mapping
from itertools import islice
from typing import NamedTuple, Protocol

from millstream.log.clock import Clock
from millstream.log.events import event
from millstream.log.security.scram import (
    SCRAM,
    Credential,
    LoginError,
    ScramExchange,
    ScramMechanism,
    credential_of,
    one_of,
    salted_password,
    stand_in,
)
from millstream.log.security.store import SecurityStore
from millstream.log.security_config import SecurityConfig

from .handler import HangUpError, Peer

__all__ = ["Answer", "Login", "LoginStateError", "Logins"]

_LENGTH = struct.Struct(">i")

_FIRST = next(iter(SCRAM.values()))
_SAMPLE = 100  # users that one who is not there may look like
_MESSAGES_MAX = 4
"""Of one login; SCRAM has two."""

Run = Callable[[Callable[[], bool]], Awaitable[bool]]


class LoginStateError(LoginError):
    """A request of a login that does not fit where the login stands."""

    kafka_code = 34


class Exchange(Protocol):
    """A mechanism at work."""

    @property
    def user(self) -> str:
        """Who it says it is."""
        ...

    @property
    def done(self) -> bool:
        """Whether it has shown it."""
        ...

    async def step(self, token: bytes) -> bytes:
        """Take a message of the client, answer one. Raises LoginError."""
        ...


class Answer(NamedTuple):
    """What the client hears: the mechanism's message; how long the login holds, 0 for ever."""

    token: bytes
    lifetime_ms: int


class Logins(NamedTuple):
    """What the logins of one server share. `run` runs blocking work and waits for it."""

    store: SecurityStore
    config: SecurityConfig
    clock: Clock
    run: Run


class Login:
    """Where one connection stands.

    Attributes:
        principal: who it is; None until it has logged in.
        raw: whether what comes next is no request but a message of the mechanism.
        failed: whether the connection has to end.
    """

    def __init__(self, logins: Logins, peer: Peer) -> None:
        self._logins = logins
        self._peer = peer
        self._mechanism = ""
        self._exchange: Exchange | None = None
        self._messages = 0
        self._expires_ms: int | None = None
        self.principal: str | None = None
        self.raw = False
        self.failed = False

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Those a client can choose from."""
        return self._logins.config.sasl_enabled_mechanisms

    def holds(self) -> bool:
        """Whether what is no part of a login may be asked now."""
        if self.principal is None:
            return False
        return self._expires_ms is None or self._logins.clock.monotonic_ms() < self._expires_ms

    def begin(self, mechanism: str, *, raw: bool) -> bool:
        """Choose the mechanism. False: there is no such; the client may choose another.

        Raises:
            LoginStateError: a login has begun already.
        """
        if self.failed or self._exchange is not None:
            raise LoginStateError("a login has begun already.")
        if self.principal is not None and mechanism != self._mechanism:
            self.failed = True
            raise LoginStateError(f"it logged in by {self._mechanism}, not by {mechanism}.")
        if mechanism not in self.mechanisms:
            return False
        store = self._logins.store
        if mechanism == "PLAIN":
            self._exchange = _Plain(self._logins)
        else:
            self._exchange = _Scram(
                ScramExchange(
                    SCRAM[mechanism],
                    lambda user: store.credential(user, mechanism),
                    lambda: store.credentials(mechanism),
                )
            )
        self._mechanism, self._messages, self.raw = mechanism, 0, raw
        return True

    async def step(self, token: bytes) -> Answer:
        """Take a message of the mechanism.

        Raises:
            LoginError: the login failed, and the connection has to end; it took its time.
        """
        try:
            return await self._step(token)
        except LoginError as error:
            self.failed = True
            user = self._exchange.user if self._exchange is not None else ""
            event(
                "login failed",
                logging.WARNING,
                client=self._peer.address,
                mechanism=self._mechanism,
                user=user[:100],
                error=error,
            )
            delay_ms = self._logins.config.connection_failed_authentication_delay_ms
            await self._logins.clock.sleep_ms(delay_ms)
            raise

    async def _step(self, token: bytes) -> Answer:
        exchange = self._exchange
        if exchange is None or self.failed:
            raise LoginStateError("no mechanism was chosen (SaslHandshake).")
        self._messages += 1
        if self._messages > _MESSAGES_MAX:
            raise LoginError("it does not come to an end.")
        answer = await exchange.step(token)
        if not exchange.done:
            return Answer(answer, 0)
        return Answer(answer, self._logged_in(f"User:{exchange.user}"))

    def _logged_in(self, principal: str) -> int:
        """How long it holds."""
        if self.principal not in (None, principal):
            raise LoginError(f"{self.principal} logged in again as {principal}.")
        if self.principal is None:
            event("client logged in", client=self._peer.address, principal=principal)
        self._peer.principal = self.principal = principal
        self._exchange, self.raw = None, False
        lifetime_ms = self._logins.config.connections_max_reauth_ms
        if lifetime_ms:
            self._expires_ms = self._logins.clock.monotonic_ms() + lifetime_ms
        return lifetime_ms

    async def raw_answer(self, token: bytes) -> list[bytes]:
        """The frame that answers a message which came without a request around it.

        Raises:
            HangUpError: the login failed; the client hears nothing (KIP-43).
        """
        try:
            answer = await self.step(token)
        except LoginError as error:
            raise HangUpError("a login failed.") from error
        return [_LENGTH.pack(len(answer.token)), answer.token]


class _Scram:
    def __init__(self, exchange: ScramExchange) -> None:
        self._exchange = exchange

    @property
    def user(self) -> str:
        return self._exchange.user

    @property
    def done(self) -> bool:
        return self._exchange.done

    async def step(self, token: bytes) -> bytes:
        return self._exchange.step(token)


class _Plain:
    """RFC 4616: the password itself, checked against what is kept for SCRAM."""

    def __init__(self, logins: Logins) -> None:
        self._logins = logins
        self.user = ""
        self.done = False

    async def step(self, token: bytes) -> bytes:
        try:
            parts = token.decode().split("\0")
        except UnicodeDecodeError as error:
            raise LoginError("PLAIN: the message is not UTF-8.") from error
        if len(parts) != 3 or not parts[1] or not parts[2]:
            raise LoginError("PLAIN: a message is AUTHZID NUL USER NUL PASSWORD.")
        authzid, self.user, password = parts
        if authzid not in ("", self.user):
            raise LoginError("PLAIN: a user can log in as himself only.")
        if not await self._logins.run(lambda: self._is_right(password)):
            raise LoginError("wrong password, or no such user.")
        self.done = True
        return b""

    def _is_right(self, password: str) -> bool:
        """In a thread. Takes as long for a user that is not there as for one that is."""
        users = self._logins.store.users
        mine = users.get(self.user)
        if mine:
            return _fits(password, *_looked_at(mine))
        others = [_looked_at(each) for each in islice(users.values(), _SAMPLE) if each]
        mechanism, like = one_of(others, self.user) if others else (_FIRST, None)
        seen = [like] if like is not None else []
        return _fits(password, mechanism, stand_in(mechanism, self.user, seen))


def _looked_at(kept: Mapping[str, Credential]) -> tuple[ScramMechanism, Credential]:
    """Of what is kept of one user's password, what PLAIN is checked against."""
    return next((each, kept[each.name]) for each in SCRAM.values() if each.name in kept)


def _fits(password: str, mechanism: ScramMechanism, kept: Credential) -> bool:
    salted = salted_password(mechanism, password, kept.salt, kept.iterations)
    found = credential_of(mechanism, salted, kept.salt, kept.iterations)
    return hmac.compare_digest(found.stored_key, kept.stored_key)
