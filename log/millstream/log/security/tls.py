"""TLS on listeners, from settings; and who a client is by its certificate."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from millstream.log.errors import ConfigError
from millstream.log.security_config import SecurityConfig

__all__ = ["principal_of", "server_context"]

_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
_SHORT = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
"""RFC 2253's names of attributes."""


def server_context(config: SecurityConfig, *, asks_clients: bool) -> ssl.SSLContext:
    """How a listener speaks TLS. Reads the files.

    Args:
        asks_clients: whether `ssl.client.auth` holds for it.

    Raises:
        ConfigError: a setting is missing, or a file is not what it must be.
    """
    if not config.ssl_certificate_location:
        raise ConfigError(
            "A listener with TLS needs a certificate: set ssl.certificate.location, and "
            "ssl.key.location where the private key is in a file of its own (both PEM)."
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    versions = [_VERSIONS[name] for name in config.ssl_enabled_protocols]
    if not versions:
        raise ConfigError("ssl.enabled.protocols is empty; it can be TLSv1.2, TLSv1.3 or both.")
    context.minimum_version, context.maximum_version = min(versions), max(versions)
    context.options |= ssl.OP_NO_RENEGOTIATION  # it costs the client nothing, and the server much
    _load_certificate(context, config)
    if config.ssl_cipher_suites:
        try:
            context.set_ciphers(config.ssl_cipher_suites)
        except ssl.SSLError as error:
            raise ConfigError(
                f"ssl.cipher.suites is {config.ssl_cipher_suites!r}: {error}. `openssl ciphers` "
                "names those there are."
            ) from error
    if asks_clients and config.ssl_client_auth != "none":
        _ask_clients(context, config)
    return context


def _load_certificate(context: ssl.SSLContext, config: SecurityConfig) -> None:
    key = config.ssl_key_location or config.ssl_certificate_location
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(
            config.ssl_certificate_location, key, password=lambda: config.ssl_key_password
        )
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise ConfigError(
            f"The certificate {config.ssl_certificate_location} with the key {key} cannot be used: "
            f"{error}. Check ssl.certificate.location, ssl.key.location and ssl.key.password; both "
            "files are PEM, and the key must be the certificate's."
        ) from error


def _ask_clients(context: ssl.SSLContext, config: SecurityConfig) -> None:
    if not config.ssl_ca_location:
        raise ConfigError(
            "ssl.client.auth asks clients for certificates: set ssl.ca.location to the file of the "
            "authorities they have to be of (PEM)."
        )
    try:
        context.load_verify_locations(config.ssl_ca_location)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"ssl.ca.location {config.ssl_ca_location} cannot be used: {error}. It must be a file "
            "of certificates in PEM."
        ) from error
    required = config.ssl_client_auth == "required"
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL


def principal_of(certificate: Mapping[str, Any] | None) -> str | None:
    """Who a client is by the certificate that `SSLObject.getpeercert` answers; None without one.

    Kafka's spelling: the subject as RFC 2253 writes it, the last part first.
    """
    if not certificate:
        return None
    names = [
        "+".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in part)
        for part in certificate.get("subject", ())
    ]
    return f"User:{','.join(reversed(names))}"


def _escaped(value: str) -> str:
    text = "".join(f"\\{each}" if each in ',+"\\<>;' else each for each in value)
    if text[:1] in (" ", "#"):
        text = "\\" + text
    return text[:-1] + "\\ " if text.endswith(" ") and len(text) > 1 else text
