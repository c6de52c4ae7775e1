"""Logging in to a server by the options of a `kafka://` URL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from millstream.log import AuthenticationError, Log, NotAuthorizedError, open_log
from shared.certificates import Authority
from shared.kafka_log import on_log, records
from shared.serve_command import ServeCommand
from shared.users import add_user

PASSWORD = "correct horse, b=ttery & staple"


class Served(NamedTuple):
    address: str
    ca: Path

    def url(self, password: str, **options: str) -> str:
        named = {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": "anna",
            "sasl.password": quote(password),
            "ssl.ca.location": str(self.ca),
            **{name.replace("_", "."): value for name, value in options.items()},
        }
        pairs = "&".join(f"{name}={value}" for name, value in named.items())
        return f"kafka://{self.address}?{pairs}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with TLS and passwords, where only what a rule allows is allowed."""
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    certificate, key = authority.sign("server", "/CN=localhost")
    add_user(folder / "log", "anna", PASSWORD)
    settings = {
        "sasl.enabled.mechanisms": "SCRAM-SHA-256",
        "ssl.certificate.location": certificate,
        "ssl.key.location": key,
        "super.users": "User:anna",
    }
    add_user(folder / "log", "ben", PASSWORD)
    server = ServeCommand(
        folder / "log",
        *("--listen", "SASL_SSL://127.0.0.1:0"),
        *(f"--config={name}={value}" for name, value in settings.items()),
    )
    assert server.ready, server.process.communicate()
    try:
        yield Served(server.address.partition("://")[2], authority.certificate)
    finally:
        server.stop()


def test_there_and_back(served: Served, topic: str) -> None:
    async def body(log: Log) -> None:
        await log.create_topic(topic)
        async with log.producer(transactional_id=topic) as producer, producer.transaction():
            await producer.send(topic, b"secret")
        async with log.consumer(topic, group=topic) as consumer:
            assert [each.value for each in await records(consumer, 1)] == [b"secret"]

    on_log(served.url(PASSWORD), body)


def test_who_is_not_let_in(served: Served) -> None:
    async def enter(url: str) -> None:
        async with open_log(url):
            pass

    with pytest.raises(AuthenticationError, match=r"sasl\.\*") as raised:
        asyncio.run(enter(served.url("wrong")))
    assert "wrong" not in str(raised.value)
    with pytest.raises(AuthenticationError):
        asyncio.run(enter(served.url(PASSWORD, sasl_username="eve")))


def test_what_is_not_allowed(served: Served, topic: str) -> None:
    async def body(log: Log) -> None:
        with pytest.raises(NotAuthorizedError):
            await log.create_topic(topic)

    on_log(served.url(PASSWORD, sasl_username="ben"), body)
