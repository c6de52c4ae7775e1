"""Logging in, byte by byte: states, limits, logging in again, what is refused and how late."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from millstream.log import ConfigError, open_log
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log_on
from millstream.log.security.scram import SCRAM, new_credential
from millstream.log.server import server as server_module
from millstream.log.server.server import Server
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.testing.fake_clock import FakeClock
from shared.asking import request_frame
from shared.scram_client import ScramClient, log_in
from shared.wire_client import WireClient

METADATA, HANDSHAKE, AUTHENTICATE, API_VERSIONS = 3, 17, 36, 18
FAILED, ILLEGAL_STATE, UNSUPPORTED = 58, 34, 33
SETTINGS = {
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
    "connection.failed.authentication.delay.ms": 1,
    "super.users": "User:anna",
}


def served(
    test: Callable[[Server], Awaitable[None]], *, clock: FakeClock | None = None, **config: Any
) -> None:
    """Run a test on a served log in memory that asks for a login; anna has the password secret."""
    settings = SETTINGS | {name.replace("_", "."): value for name, value in config.items()}

    async def main() -> None:
        settings["flush.threads"] = 0
        async with open_log_on(MemoryFiles(), "memory", config=settings, clock=clock) as log:
            async with log.serve("SASL_PLAINTEXT://127.0.0.1:0") as server:
                assert server.logins is not None
                await server.logins.store.set_credentials(
                    {
                        ("anna", each.name): new_credential(each, "secret", 4096)
                        for each in SCRAM.values()
                    }
                )
                await test(server)

    asyncio.run(asyncio.wait_for(main(), 60))


async def is_answered(client: WireClient) -> bool:
    client.send(request_frame(METADATA, 9, topics=None))
    return await client.frame() is not None


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_after_the_login_everything_is_answered(mechanism: str) -> None:
    async def test(server: Server) -> None:
        async with WireClient(server.address) as client:
            assert (await client.ask(API_VERSIONS, 0)).error_code == 0
            answer = await log_in(client, "anna", "secret", mechanism)
            assert (answer.error_code, answer.session_lifetime.total_seconds()) == (0, 0)
            assert await is_answered(client)

    served(test)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize(("user", "password"), [("anna", "Secret"), ("nobody", "secret")])
def test_a_login_that_fails_ends_the_connection(
    mechanism: str, user: str, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(server: Server) -> None:
        async with WireClient(server.address) as client:
            answer = await log_in(client, user, password, mechanism)
            assert answer.error_code == FAILED
            assert (answer.error_message, answer.auth_bytes) == ("Authentication failed.", b"")
            assert await client.frame() is None

    with caplog.at_level(logging.WARNING, "millstream.log"):
        served(test)
    (line,) = [each.getMessage() for each in caplog.records]
    assert line.startswith("login failed client=127.0.0.1")
    assert f"user={user}" in line
    assert password not in line


def test_a_login_that_fails_is_answered_late() -> None:
    async def test(server: Server) -> None:
        async with WireClient(server.address) as client:
            begun = time.monotonic()
            assert (await log_in(client, "anna", "wrong", "PLAIN")).error_code == FAILED
            assert time.monotonic() - begun >= 0.3

    served(test, connection_failed_authentication_delay_ms=300)


def test_plain_takes_as_long_for_a_user_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as for some user that is, whatever is kept of him."""
    work: list[tuple[str, int]] = []
    real = hashlib.pbkdf2_hmac

    def noted(digest: str, password: bytes, salt: bytes, iterations: int) -> bytes:
        work.append((digest, iterations))
        return real(digest, password, salt, iterations)

    async def test(server: Server) -> None:
        assert server.logins is not None
        small, large = SCRAM["SCRAM-SHA-256"], SCRAM["SCRAM-SHA-512"]
        await server.logins.store.set_credentials(
            {
                ("anna", small.name): None,
                ("bob", large.name): new_credential(large, "secret", 5000),
                ("carl", small.name): new_credential(small, "secret", 6000),
            }
        )
        monkeypatch.setattr(hashlib, "pbkdf2_hmac", noted)
        users = ("anna", "bob", "carl")
        for user in users:
            async with WireClient(server.address) as client:
                assert (await log_in(client, user, "wrong", "PLAIN")).error_code == FAILED
        known = set(work)
        assert known == {("sha512", 4096), ("sha512", 5000), ("sha256", 6000)}
        work.clear()
        for i in range(24):
            async with WireClient(server.address) as client:
                assert (await log_in(client, f"no{i}", "wrong", "PLAIN")).error_code == FAILED
        assert len(work) == 24
        assert set(work) <= known
        assert len(set(work)) > 1, "not all like one"

    served(test)


def test_without_a_login_nothing_else_is_answered() -> None:
    async def test(server: Server) -> None:
        for begin in ([], [request_frame(HANDSHAKE, 1, mechanism="PLAIN")]):
            async with WireClient(server.address) as client:
                for frame in begin:
                    client.send(frame)
                    assert await client.frame() is not None
                assert not await is_answered(client)

    served(test)


def test_requests_sent_ahead_of_the_login_wait_for_it() -> None:
    async def test(server: Server) -> None:
        for password, expected in (("secret", 3), ("wrong", 2)):
            async with WireClient(server.address) as client:
                token = f"\0anna\0{password}".encode()
                client.send(request_frame(HANDSHAKE, 1, mechanism="PLAIN"))
                client.send(request_frame(AUTHENTICATE, 2, auth_bytes=token))
                client.send(request_frame(METADATA, 9, topics=None))
                client.writer.write_eof()
                answers = 0
                while await client.frame() is not None:
                    answers += 1
                assert answers == expected

    served(test)


def test_a_mechanism_that_is_not_there() -> None:
    async def test(server: Server) -> None:
        async with WireClient(server.address) as client:
            answer = await client.ask(HANDSHAKE, 1, mechanism="PLAIN")
            assert (answer.error_code, answer.mechanisms) == (UNSUPPORTED, ("SCRAM-SHA-512",))
            assert (await log_in(client, "anna", "secret", "SCRAM-SHA-512")).error_code == 0

    served(test, sasl_enabled_mechanisms="SCRAM-SHA-512")


def test_messages_out_of_turn() -> None:
    async def test(server: Server) -> None:
        async with WireClient(server.address) as client:
            assert (await client.ask(AUTHENTICATE, 2, auth_bytes=b"x")).error_code == ILLEGAL_STATE
            assert await client.frame() is None
        async with WireClient(server.address) as client:
            assert (await client.ask(HANDSHAKE, 1, mechanism="PLAIN")).error_code == 0
            again = await client.ask(HANDSHAKE, 1, mechanism="PLAIN")
            assert again.error_code == ILLEGAL_STATE

    served(test)


def test_messages_without_requests_around_them() -> None:
    """Version 0 of SaslHandshake; PLAIN's may be shorter than any request."""

    async def test(server: Server) -> None:
        assert server.logins is not None
        await server.logins.store.set_credentials(
            {("u", "SCRAM-SHA-256"): new_credential(SCRAM["SCRAM-SHA-256"], "p", 4096)}
        )
        async with WireClient(server.address) as client:
            await client.ask(HANDSHAKE, 0, mechanism="PLAIN")
            client.send(b"\0u\0p")
            assert await client.frame() == b""
            assert await is_answered(client)
        async with WireClient(server.address) as client:
            await client.ask(HANDSHAKE, 0, mechanism="SCRAM-SHA-512")
            scram = ScramClient("SCRAM-SHA-512", "anna", "secret")
            client.send(scram.first())
            first = await client.frame()
            assert first is not None
            client.send(scram.final(first))
            final = await client.frame()
            assert final is not None
            scram.check(final)
            assert await is_answered(client)
        async with WireClient(server.address) as client:
            await client.ask(HANDSHAKE, 0, mechanism="PLAIN")
            client.send(b"\0u\0wrong")
            assert await client.frame() is None

    served(test)


@pytest.mark.parametrize(
    "token",
    [b"", b"\0anna", b"anna\0secret", b"root\0anna\0secret", b"\0\0secret", b"\0anna\0",
     b"\0anna\0secret\0", b"\0anna\0\xff"],
)  # fmt: skip
def test_messages_that_are_not_plain(token: bytes) -> None:
    async def test(server: Server) -> None:
        async with WireClient(server.address) as client:
            await client.ask(HANDSHAKE, 1, mechanism="PLAIN")
            assert (await client.ask(AUTHENTICATE, 2, auth_bytes=token)).error_code == FAILED
            assert await client.frame() is None

    served(test)


def test_a_login_is_for_a_time() -> None:
    clock = FakeClock()

    async def test(server: Server) -> None:
        async with WireClient(server.address) as client, WireClient(server.address) as other:
            answer = await log_in(client, "anna", "secret")
            assert answer.session_lifetime.total_seconds() == 0.4
            await log_in(other, "anna", "secret")
            for _ in range(3):
                clock.advance(300)
                assert (await log_in(client, "anna", "secret")).error_code == 0
                assert await is_answered(client)
            assert not await is_answered(other)

    served(test, clock=clock, connections_max_reauth_ms=400)


def test_nobody_becomes_somebody_else() -> None:
    async def test(server: Server) -> None:
        assert server.logins is not None
        await server.logins.store.set_credentials(
            {("bert", "SCRAM-SHA-256"): new_credential(SCRAM["SCRAM-SHA-256"], "secret", 4096)}
        )
        async with WireClient(server.address) as client:
            await log_in(client, "anna", "secret")
            assert (await log_in(client, "bert", "secret")).error_code == FAILED
            assert await client.frame() is None
        async with WireClient(server.address) as client:
            await log_in(client, "anna", "secret")
            answer = await client.ask(HANDSHAKE, 1, mechanism="PLAIN")
            assert answer.error_code == ILLEGAL_STATE
            assert await client.frame() is None

    served(test)


def test_large_requests_are_for_those_who_logged_in() -> None:
    async def test(server: Server) -> None:
        async with WireClient(server.address) as client:
            client.send(request_frame(AUTHENTICATE, 2, auth_bytes=bytes(3000)))
            assert await client.frame() is None
        async with WireClient(server.address) as client:
            await log_in(client, "anna", "secret")
            topics = [{"name": f"{number}" * 100, "topic_id": None} for number in range(100)]
            answer = await client.ask(METADATA, 9, topics=topics)
            assert len(answer.topics) == 100

    served(test, sasl_server_max_receive_size=2000)


def test_a_client_that_does_not_log_in_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LOGIN_S", 0.2)

    async def test(server: Server) -> None:
        async with WireClient(server.address) as client, WireClient(server.address) as known:
            await log_in(known, "anna", "secret")
            while True:
                client.send(request_frame(API_VERSIONS, 0))
                if await client.frame() is None:
                    break
                await asyncio.sleep(0.01)  # to leave the server time for others
            assert await is_answered(known)

    served(test, connections_max_idle_ms=1000)


def test_noise_on_the_way_to_a_login() -> None:
    """Frames of a right login, mutated, and noise: the server answers or closes, and lives."""
    source = Random(17)

    async def test(server: Server) -> None:
        right = [
            request_frame(API_VERSIONS, 3),
            request_frame(HANDSHAKE, 1, mechanism="SCRAM-SHA-256"),
            request_frame(HANDSHAKE, 0, mechanism="PLAIN"),
            request_frame(AUTHENTICATE, 2, auth_bytes=b"n,,n=anna,r=nonce"),
            request_frame(AUTHENTICATE, 0, auth_bytes=b"c=biws,r=nonce,p=AAAA"),
            request_frame(AUTHENTICATE, 1, auth_bytes=b"\0anna\0wrong"),
        ]
        for _ in range(400):
            async with WireClient(server.address) as client:
                for _ in range(source.randrange(1, 5)):
                    frame = bytearray(source.choice(right))
                    for _ in range(source.choice([0, 0, 1, 3])):
                        frame[source.randrange(len(frame))] = source.randrange(256)
                    client.send(bytes(frame[: source.choice([len(frame), source.randrange(40)])]))
                client.writer.write_eof()
                while await client.frame() is not None:
                    pass
        assert server.stats().running == 0
        async with WireClient(server.address) as client:
            assert (await log_in(client, "anna", "secret")).error_code == 0

    served(test)


def test_a_listener_that_asks_nobody() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            assert isinstance(log, EmbeddedLog)
            async with log.serve("127.0.0.1:0") as server, WireClient(server.address) as client:
                answer = await client.ask(HANDSHAKE, 1, mechanism="PLAIN")
                assert (answer.error_code, answer.mechanisms) == (ILLEGAL_STATE, ())
                answer = await client.ask(AUTHENTICATE, 2, auth_bytes=b"")
                assert answer.error_code == ILLEGAL_STATE

    asyncio.run(main())


@pytest.mark.parametrize(
    ("listen", "config", "problem"),
    [
        ("SASL_PLAINTEXT://0.0.0.0:0", {"sasl.enabled.mechanisms": "PLAIN"}, "sends passwords"),
        ("SSL://0.0.0.0:0", {}, "asks nobody there"),
        ("SSL://0.0.0.0:0", {"ssl.client.auth": "requested"}, "asks nobody there"),
        ("SASL_SSL://127.0.0.1:0", {}, "needs a certificate"),
        ("SASL_SSL://127.0.0.1:0", {"ssl.certificate.location": "none.pem"}, "cannot be used"),
        ("SASL_PLAINTEXT://127.0.0.1:0", {"sasl.enabled.mechanisms": ""}, "is empty"),
        ("SASL_PLAINTEXT://127.0.0.1:0", {"super.users": "User:a;anna"}, "'anna', which is no"),
        ("SMTP://127.0.0.1:0", {}, "no security protocol"),
        ("127.0.0.1:0,SASL_PLAINTEXT://0.0.0.0:0", {}, "clients must be told one"),
    ],
)
def test_listeners_that_are_refused(listen: str, config: dict[str, str], problem: str) -> None:
    async def main() -> None:
        async with open_log("memory:", config=config) as log:
            assert isinstance(log, EmbeddedLog)
            with pytest.raises(ConfigError, match=problem):
                await log.serve(listen).__aenter__()

    asyncio.run(main())


def test_clients_are_told_of_the_listener_they_came_by() -> None:
    async def main() -> None:
        async with open_log("memory:", config=SETTINGS) as log:
            assert isinstance(log, EmbeddedLog)
            listen = "127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0"
            told = "one.example:1,two.example:2"
            async with log.serve(listen, advertised=told) as server:
                assert server.addresses == [
                    "PLAINTEXT://one.example:1",
                    "SASL_PLAINTEXT://two.example:2",
                ]
                assert server.logins is not None
                credential = new_credential(SCRAM["SCRAM-SHA-256"], "secret", 4096)
                await server.logins.store.set_credentials({("anna", "SCRAM-SHA-256"): credential})
                found = []
                for listener in server.listeners:
                    assert listener.sockets is not None
                    port = listener.sockets.sockets[0].getsockname()[1]
                    async with WireClient(f"127.0.0.1:{port}") as client:
                        if listener.at.protocol.sasl:
                            await log_in(client, "anna", "secret")
                        (broker,) = (await client.ask(METADATA, 9, topics=None)).brokers
                        found.append((broker.host, broker.port))
                assert found == [("one.example", 1), ("two.example", 2)]

    asyncio.run(main())
