"""TLS, byte by byte: what is refused, who is stuck, and that it is the same server behind it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from millstream.log import ConfigError, open_log
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.security.scram import SCRAM, new_credential
from millstream.log.security.tls import principal_of
from millstream.log.server import connection as connection_module
from millstream.log.server.server import Server
from shared.asking import request_frame
from shared.certificates import Authority
from shared.scram_client import log_in
from shared.wire_client import WireClient

METADATA, CONFIGS = 3, 32


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def settings(authority: Authority) -> dict[str, str]:
    certificate, key = authority.sign("server", "/CN=localhost", password="hidden")
    return {
        "ssl.certificate.location": str(certificate),
        "ssl.key.location": str(key),
        "ssl.key.password": "hidden",
        "ssl.ca.location": str(authority.certificate),
        "super.users": "User:CN=anna,O=tests; User:anna",
    }


def context_of(authority: Authority, *client: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if client:
        context.load_cert_chain(*client)
    return context


def served(
    test: Callable[[Server], Awaitable[None]], config: dict[str, str], listen: str = "SSL"
) -> None:
    async def main() -> None:
        async with open_log("memory:", config=config) as log:
            assert isinstance(log, EmbeddedLog)
            await log.create_topic("t")
            async with log.serve(f"{listen}://127.0.0.1:0") as server:
                await test(server)

    asyncio.run(asyncio.wait_for(main(), 60))


async def names(client: WireClient) -> list[str]:
    return [each.name for each in (await client.ask(METADATA, 9, topics=None)).topics]


def test_who_one_is_by_certificate(authority: Authority, settings: dict[str, str]) -> None:
    async def test(server: Server) -> None:
        anna = authority.sign("anna", "/O=tests/CN=anna")
        bert = authority.sign("bert", "/O=tests/CN=bert")
        async with WireClient(server.address, context_of(authority, *anna)) as client:
            assert await names(client) == ["t"]
        async with WireClient(server.address, context_of(authority, *bert)) as client:
            assert await names(client) == []
        async with WireClient(server.address, context_of(authority)) as client:
            assert await names(client) == []

    served(test, settings | {"ssl.client.auth": "requested"})


@pytest.mark.parametrize("what", ["none", "expired", "other"])
def test_a_certificate_that_is_required(
    authority: Authority, settings: dict[str, str], tmp_path: Path, what: str
) -> None:
    client: tuple[Path, ...] = ()
    if what == "expired":
        client = authority.sign("expired", "/O=tests/CN=anna", days=-1)
    elif what == "other":
        client = Authority(tmp_path, "other").sign("anna", "/O=tests/CN=anna")

    async def test(server: Server) -> None:
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            async with WireClient(server.address, context_of(authority, *client)) as one:
                await names(one)
        anna = authority.sign("anna", "/O=tests/CN=anna")
        async with WireClient(server.address, context_of(authority, *anna)) as one:
            assert await names(one) == ["t"]
        assert server.refused == 1

    served(test, settings | {"ssl.client.auth": "required"})


def test_a_login_over_tls(authority: Authority, settings: dict[str, str]) -> None:
    """And many requests at once, whose answers are larger than any buffer."""

    async def test(server: Server) -> None:
        assert server.logins is not None
        credential = new_credential(SCRAM["SCRAM-SHA-256"], "secret", 4096)
        await server.logins.store.set_credentials({("anna", "SCRAM-SHA-256"): credential})
        async with WireClient(server.address, context_of(authority)) as client:
            assert (await log_in(client, "anna", "secret")).error_code == 0
            for number in range(200):
                client.send(request_frame(CONFIGS, 4, correlation_id=number, resources=[
                    {"resource_type": 4, "resource_name": "0", "configuration_keys": None}
                ], include_documentation=True))  # fmt: skip
            frames = [await client.frame() for _ in range(200)]
            found = [int.from_bytes(each[:4], "big") for each in frames if each is not None]
            assert found == list(range(200))

    served(test, settings, "SASL_SSL")


def test_the_password_of_the_key_is_not_told(
    authority: Authority, settings: dict[str, str]
) -> None:
    async def test(server: Server) -> None:
        assert "hidden" not in repr(server.broker.config)
        anna = authority.sign("anna", "/O=tests/CN=anna")
        async with WireClient(server.address, context_of(authority, *anna)) as client:
            resource = {"resource_type": 4, "resource_name": "0", "configuration_keys": None}
            answer = await client.ask(
                CONFIGS, 4, resources=[resource], include_synonyms=True, include_documentation=True
            )
            assert "hidden" not in repr(answer)
            (entry,) = (e for e in answer.results[0].configs if e.name == "ssl.key.password")
            assert (entry.value, entry.is_sensitive) == (None, True)

    served(test, settings | {"ssl.client.auth": "required"})


def test_what_is_no_tls(authority: Authority, settings: dict[str, str]) -> None:
    source = Random(3)

    async def test(server: Server) -> None:
        async with WireClient(server.address, context_of(authority)) as known:
            for _ in range(100):
                async with WireClient(server.address) as client:
                    client.writer.write(source.randbytes(source.randrange(1, 2000)))
                    client.writer.write_eof()
                    try:
                        while await client.reader.read(1000):
                            pass
                    except ConnectionError:
                        pass
            async with WireClient(server.address) as client:
                client.send(request_frame(METADATA, 9, topics=None))
                assert await client.frame() is None
            assert await names(known) == ["t"]
            assert server.stats().connections == 1

    served(test, settings)


def test_a_handshake_that_does_not_end(
    authority: Authority, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HANDSHAKE_S", 0.2)

    async def test(server: Server) -> None:
        async with WireClient(server.address) as silent, WireClient(server.address) as slow:
            slow.writer.write(b"\x16\x03\x01")
            assert await silent.reader.read() == b""
            assert await slow.reader.read() == b""
        assert server.stats().connections == 0

    served(test, settings)


def test_a_stop_amid_handshakes(settings: dict[str, str]) -> None:
    async def main() -> None:
        async with open_log("memory:", config=settings) as log, AsyncExitStack() as stack:
            assert isinstance(log, EmbeddedLog)
            async with log.serve("SSL://127.0.0.1:0") as server:
                clients = [
                    await stack.enter_async_context(WireClient(server.address)) for _ in range(5)
                ]
                while server.stats().connections < 5:
                    await asyncio.sleep(0)
            assert [await each.reader.read() for each in clients] == [b""] * 5

    asyncio.run(asyncio.wait_for(main(), 5))


def test_handshakes_count_among_connections(authority: Authority, settings: dict[str, str]) -> None:
    async def test(server: Server) -> None:
        async with WireClient(server.address) as one, WireClient(server.address):
            while server.stats().connections < 2:
                await asyncio.sleep(0)
            async with WireClient(server.address) as third:
                assert await third.reader.read() == b""
            assert not one.reader.at_eof()

    served(test, settings | {"max.connections": "2"})


@pytest.mark.parametrize(
    ("subject", "principal"),
    [
        ((), "User:"),
        (((("countryName", "DE"),), (("organizationName", "x, y"),), (("commonName", "anna"),)),
         "User:CN=anna,O=x\\, y,C=DE"),
        (((("commonName", "a+b"), ("userId", "u")),), "User:CN=a\\+b+UID=u"),
        (((("commonName", " #a "),),), "User:CN=\\ #a\\ "),
        (((("commonName", '"<\\>;'),),), 'User:CN=\\"\\<\\\\\\>\\;'),
    ],
)  # fmt: skip
def test_subjects_as_rfc_2253_writes_them(subject: Any, principal: str) -> None:
    assert principal_of({"subject": subject}) == principal


def test_no_certificate_is_nobody() -> None:
    assert principal_of(None) is None
    assert principal_of({}) is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"ssl.key.password": "wrong"}, "cannot be used"),
        ({"ssl.key.location": "none.pem"}, "cannot be used"),
        ({"ssl.client.auth": "required", "ssl.ca.location": ""}, "set ssl.ca.location"),
        ({"ssl.client.auth": "required", "ssl.ca.location": "none.pem"}, "cannot be used"),
        ({"ssl.cipher.suites": "NONSENSE"}, "openssl ciphers"),
        ({"ssl.enabled.protocols": ""}, "is empty"),
    ],
)
def test_settings_that_are_refused(
    settings: dict[str, str], change: dict[str, str], problem: str
) -> None:
    async def main() -> None:
        async with open_log("memory:", config=settings | change) as log:
            assert isinstance(log, EmbeddedLog)
            with pytest.raises(ConfigError, match=problem):
                await log.serve("SSL://127.0.0.1:0").__aenter__()

    asyncio.run(main())


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_versions(authority: Authority, settings: dict[str, str], version: str) -> None:
    other = ssl.TLSVersion.TLSv1_3 if version == "TLSv1.2" else ssl.TLSVersion.TLSv1_2

    async def test(server: Server) -> None:
        async with WireClient(server.address, context_of(authority)) as client:
            assert client.writer.get_extra_info("ssl_object").version() == version
        context = context_of(authority)
        context.minimum_version = context.maximum_version = other
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await WireClient(server.address, context).__aenter__()

    served(test, settings | {"ssl.enabled.protocols": version})
