"""Settings of who may connect to a served log, and of what he may do: Kafka's names.

Files are PEM. Their names are those that Kafka's C client has (`ssl.certificate.location`), because
two files is how certificates are handed out; Java's key stores are not read.
"""

from __future__ import annotations

from dataclasses import dataclass

from .settings import INT32_MAX, setting

__all__ = ["MECHANISMS", "SCRAM_MECHANISMS", "SecurityConfig"]

SCRAM_MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-512")
MECHANISMS = ("PLAIN", *SCRAM_MECHANISMS)


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """The part of `BrokerConfig` that is about security."""

    allow_everyone_if_no_acl_found: bool = setting(
        False, "Whether everybody may do everything with what no ACL names."
    )
    connection_failed_authentication_delay_ms: int = setting(
        100, "Milliseconds until a failed login is answered.", minimum=0, maximum=60_000
    )
    connections_max_reauth_ms: int = setting(
        0, "Milliseconds until a client has to log in anew (KIP-368); 0 is never.", minimum=0
    )
    sasl_enabled_mechanisms: tuple[str, ...] = setting(
        SCRAM_MECHANISMS,
        "How clients may log in. Kafka's default is GSSAPI, which is not there.",
        choices=MECHANISMS,
    )
    sasl_server_max_receive_size: int = setting(
        64 << 10,
        "Bytes of one request of a client that has not logged in. Kafka takes 512 KiB, for tickets "
        "of Kerberos.",
        minimum=1024,
        maximum=INT32_MAX,
    )
    ssl_ca_location: str = setting("", "File of the authorities that clients' certificates are of.")
    ssl_certificate_location: str = setting(
        "", "File of the server's certificate, and those between it and its authority."
    )
    ssl_cipher_suites: str = setting(
        "", "OpenSSL's names, with colons, for TLS 1.2; empty for Python's choice."
    )
    ssl_client_auth: str = setting(
        "none",
        "Whether clients on SSL listeners show a certificate.",
        choices=("none", "requested", "required"),
    )
    ssl_enabled_protocols: tuple[str, ...] = setting(
        ("TLSv1.2", "TLSv1.3"), "Versions of TLS.", choices=("TLSv1.2", "TLSv1.3")
    )
    ssl_key_location: str = setting(
        "", "File of the private key; empty where it is in the certificate's."
    )
    ssl_key_password: str = setting("", "Of the private key.", sensitive=True)
    super_users: str = setting("", "Principals that may do everything, such as User:a;User:b.")
