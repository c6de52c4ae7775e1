"""HOST:PORT as users write it."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from contextlib import suppress
from typing import NamedTuple

from millstream.log.errors import ConfigError

__all__ = ["Address", "parse_address", "resolve"]


class Address(NamedTuple):
    """A host, by name or number, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only processes of this machine reach it. The host is a number."""
        return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback

    @property
    def is_wildcard(self) -> bool:
        """Whether it means every address of this machine. The host is a number."""
        return ipaddress.ip_address(self.host.partition("%")[0]).is_unspecified


def parse_address(text: str, example: str) -> Address:
    """From HOST:PORT. Raises ConfigError with the example."""
    host, colon, port = text.rpartition(":")
    with suppress(ValueError):
        if colon and host and 0 <= int(port) < 1 << 16:
            return Address(host.removeprefix("[").removesuffix("]"), int(port))
    raise ConfigError(f"{text!r} is no address; write HOST:PORT, such as {example}.")


async def resolve(address: Address) -> Address:
    """With the host as a number: the first that its name has.

    Raises:
        ConfigError: there is no such host.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(
            f"{address} cannot be listened on: {error}. Choose another HOST:PORT."
        ) from error
    return Address(str(found[0][4][0]), address.port)
