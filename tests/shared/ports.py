"""Ports for servers that come back to theirs after they were killed."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from random import SystemRandom

__all__ = ["free_ports"]

BELOW = range(15_000, 32_000)
"""Below the ports that the system gives away: nobody gets one of these while its server is away."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, none of them twice."""
    ports: list[int] = []
    candidates = iter(SystemRandom().sample(BELOW, len(BELOW)))
    with ExitStack() as held:
        while len(ports) < count:
            port = next(candidates)
            try:
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:  # somebody's
                continue
            ports.append(port)
    return ports
