"""The client's side of SCRAM, written after RFC 5802 and not after the product."""

from __future__ import annotations

import base64
import hashlib
import hmac

__all__ = ["ScramClient", "log_in"]

from typing import Any

from shared.wire_client import WireClient


class ScramClient:
    """`first`, then `final` with what the server answered, then `check` with its last answer."""

    def __init__(self, mechanism: str, user: str, password: str, nonce: str = "nonce") -> None:
        self._digest = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}[mechanism]
        self._password = password
        name = user.replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={name},r={nonce}"
        self._nonce = nonce

    def first(self) -> bytes:
        return f"n,,{self._bare}".encode()

    def final(
        self, server_first: bytes, *, binding: str = "biws", nonce: str | None = None
    ) -> bytes:
        """The arguments make it a message that is proven, and wrong."""
        fields = dict(each.split("=", 1) for each in server_first.decode().split(","))
        assert fields["r"].startswith(self._nonce)
        assert len(fields["r"]) > len(self._nonce)
        salted = hashlib.pbkdf2_hmac(
            self._digest,
            self._password.encode(),
            base64.b64decode(fields["s"]),
            int(fields["i"]),
        )
        client_key = hmac.digest(salted, b"Client Key", self._digest)
        stored_key = hashlib.new(self._digest, client_key).digest()
        without_proof = f"c={binding},r={nonce or fields['r']}"
        message = f"{self._bare},{server_first.decode()},{without_proof}".encode()
        signature = hmac.digest(stored_key, message, self._digest)
        proof = (int.from_bytes(client_key, "big") ^ int.from_bytes(signature, "big")).to_bytes(
            len(signature), "big"
        )
        server_key = hmac.digest(salted, b"Server Key", self._digest)
        self._expected = hmac.digest(server_key, message, self._digest)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def check(self, server_final: bytes) -> None:
        assert base64.b64decode(server_final.removeprefix(b"v=")) == self._expected


async def log_in(
    client: WireClient, user: str, password: str, mechanism: str = "SCRAM-SHA-256"
) -> Any:
    """Over a connection; the last answer, which may be an error."""
    answer = await client.ask(17, 1, mechanism=mechanism)
    assert answer.error_code == 0
    if mechanism == "PLAIN":
        return await client.ask(36, 2, auth_bytes=f"\0{user}\0{password}".encode())
    scram = ScramClient(mechanism, user, password)
    answer = await client.ask(36, 2, auth_bytes=scram.first())
    if answer.error_code:
        return answer
    answer = await client.ask(36, 2, auth_bytes=scram.final(answer.auth_bytes))
    if not answer.error_code:
        scram.check(answer.auth_bytes)
    return answer
