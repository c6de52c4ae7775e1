"""Listeners as users write them, and whether they are safe.

127.0.0.1:9092                      as PLAINTEXT://127.0.0.1:9092
SASL_SSL://0.0.0.0:9093             Kafka's `listeners`; several with commas
"""

from __future__ import annotations

from typing import NamedTuple

from millstream.log.errors import ConfigError
from millstream.log.security_config import SecurityConfig

from .addresses import Address, parse_address, resolve

__all__ = ["PROTOCOLS", "ListenerAt", "Protocol", "resolved_listeners"]

_EXAMPLE = "127.0.0.1:9092"


class Protocol(NamedTuple):
    """One of Kafka's four security protocols."""

    name: str
    tls: bool
    sasl: bool


PROTOCOLS = {
    each.name: each
    for each in (
        Protocol("PLAINTEXT", False, False),
        Protocol("SSL", True, False),
        Protocol("SASL_PLAINTEXT", False, True),
        Protocol("SASL_SSL", True, True),
    )
}


class ListenerAt(NamedTuple):
    """Where to listen, how, and what clients are told; a port of 0 there is the one listened on."""

    protocol: Protocol
    address: Address
    told: Address

    def authenticates(self, config: SecurityConfig) -> bool:
        """Whether everybody who gets in has shown who he is."""
        by_certificate = self.protocol.tls and config.ssl_client_auth == "required"
        return self.protocol.sasl or by_certificate

    def asks(self, config: SecurityConfig) -> bool:
        """Whether somebody may have shown who he is."""
        return self.protocol.sasl or (self.protocol.tls and config.ssl_client_auth != "none")


async def resolved_listeners(
    listen: str, advertised: str | None, config: SecurityConfig, *, insecure: bool
) -> list[ListenerAt]:
    """From what users write.

    Raises:
        ConfigError: no such address or protocol, or one that is not safe.
    """
    wanted = [_split(each, PROTOCOLS["PLAINTEXT"]) for each in listen.split(",")]
    texts = advertised.split(",") if advertised is not None else []
    told = [_split(each, at) for each, (at, _) in zip(texts, wanted, strict=False)]
    agree = len(texts) == len(wanted) and all(
        one == other for (one, _), (other, _) in zip(told, wanted, strict=True)
    )
    if texts and not agree:
        raise ConfigError(
            f"Advertised {advertised!r} for {listen!r}: name one address for each listener, with "
            "the same protocols in the same order."
        )
    found = []
    for number, (protocol, text) in enumerate(wanted):
        at = await resolve(parse_address(text, _EXAMPLE))
        other = _told(told[number][1]) if told else None
        listener = ListenerAt(protocol, at, other or Address(at.host, 0))
        _check(listener, config, insecure=insecure, is_told=other is not None)
        found.append(listener)
    return found


def _told(text: str) -> Address:
    """What clients are to connect to; names are for them to resolve."""
    address = parse_address(text, _EXAMPLE)
    try:
        is_wildcard = address.is_wildcard
    except ValueError:  # a name
        return address
    if is_wildcard:
        raise ConfigError(
            f"Advertised {text!r} is every address of a machine, and none that clients can connect "
            "to: name the one by which they reach this machine."
        )
    return address


def _split(text: str, default: Protocol) -> tuple[Protocol, str]:
    name, there, address = text.strip().rpartition("://")
    protocol = PROTOCOLS.get(name.upper()) if there else default
    if protocol is None:
        raise ConfigError(
            f"{text.strip()!r}: {name!r} is no security protocol; these are: "
            f"{', '.join(PROTOCOLS)}."
        )
    return protocol, address


def _check(listener: ListenerAt, config: SecurityConfig, *, insecure: bool, is_told: bool) -> None:
    at, protocol = listener.address, listener.protocol
    if protocol.sasl and not config.sasl_enabled_mechanisms:
        raise ConfigError(
            f"{protocol.name}://{at} asks clients to log in, and sasl.enabled.mechanisms is empty: "
            "set it to SCRAM-SHA-256, SCRAM-SHA-512 or PLAIN."
        )
    if not at.is_loopback and not insecure:
        if not listener.authenticates(config):
            raise ConfigError(
                f"{protocol.name}://{at} can be reached from other machines, and the server asks "
                "nobody there who they are: whoever connects reads, writes and deletes everything. "
                "Listen on 127.0.0.1, let clients log in (SASL_SSL://HOST:PORT), or allow it "
                "(--insecure-no-auth, insecure=True) where the network keeps others out."
            )
        if not protocol.tls and "PLAIN" in config.sasl_enabled_mechanisms:
            raise ConfigError(
                f"{protocol.name}://{at} can be reached from other machines, and the mechanism "
                "PLAIN sends passwords as they are: whoever listens in has them. Use SASL_SSL, "
                "take PLAIN from sasl.enabled.mechanisms, or allow it (--insecure-no-auth, "
                "insecure=True) where the network keeps others out."
            )
    if at.is_wildcard and not is_told:
        raise ConfigError(
            f"{at} is every address of this machine, and clients must be told one: say which "
            "(--advertised-listener HOST:PORT, advertised=...)."
        )
