"""What answering a request used of its client's quotas (KIP-13, KIP-124)."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from time import perf_counter
from types import coroutine
from typing import Any, TypeVar

from millstream.log.security.quotas import (
    CONSUMER_BYTE_RATE,
    PRODUCER_BYTE_RATE,
    REQUEST_PERCENTAGE,
    Quotas,
)

from .encoding import Buffers
from .handler import Context

__all__ = ["Usage"]

T = TypeVar("T")
_PRODUCE, _FETCH = 0, 1


class Usage:
    """One request, while it is answered.

    Attributes:
        busy_s: how long the handler ran, without its waiting.
    """

    def __init__(self, quotas: Quotas, context: Context) -> None:
        self._quotas = quotas
        self._context = context
        self.busy_s = 0.0

    async def timed(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for the handler, and take its time where that is limited."""
        if not self._quotas.limits(REQUEST_PERCENTAGE):
            return await work
        return await self._driven(work)

    @coroutine
    def _driven(self, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Each step of it, as the event loop would."""
        error: BaseException | None = None
        while True:
            begun = perf_counter()
            try:
                waits_for = work.send(None) if error is None else work.throw(error)
            except StopIteration as ended:
                result: T = ended.value
                return result
            finally:
                self.busy_s += perf_counter() - begun
            error = None
            try:
                yield waits_for
            except BaseException as raised:  # noqa: BLE001 - it is the handler's, also a cancellation
                error = raised

    def throttle_s(self, request_size_bytes: int, frame: Buffers | None) -> float:
        """How long the client is to be kept waiting."""
        context, now_s = self._context, self._context.broker.clock.monotonic_ms() / 1000
        used: list[tuple[str, float]] = [(REQUEST_PERCENTAGE, self.busy_s)]
        if context.api_key == _PRODUCE:
            used.append((PRODUCER_BYTE_RATE, request_size_bytes))
        elif context.api_key == _FETCH and frame is not None:
            used.append((CONSUMER_BYTE_RATE, sum(map(len, frame))))
        return max(
            self._quotas.use(name, context.principal, context.client_id, amount, now_s)
            for name, amount in used
        )
