"""What a user may be called, and how hard his password is made to guess."""

from __future__ import annotations

from millstream.log.errors import ConfigError

from .scram import ITERATIONS_MAX, ITERATIONS_MIN

__all__ = ["USER_LENGTH_MAX", "UnacceptableCredentialError", "check_user"]

USER_LENGTH_MAX = 255


class UnacceptableCredentialError(ConfigError):
    """A user's name or the number of iterations is none that is taken."""

    kafka_code = 93


def check_user(name: str, iterations: int) -> None:
    """Raises UnacceptableCredentialError."""
    if not 0 < len(name) <= USER_LENGTH_MAX or not name.isprintable():
        raise UnacceptableCredentialError(
            f"A user's name has 1 to {USER_LENGTH_MAX} printable characters; this one has "
            f"{len(name)}."
        )
    if not ITERATIONS_MIN <= iterations <= ITERATIONS_MAX:
        raise UnacceptableCredentialError(
            f"User {name}: {iterations} iterations; it can be {ITERATIONS_MIN} to {ITERATIONS_MAX}."
        )
