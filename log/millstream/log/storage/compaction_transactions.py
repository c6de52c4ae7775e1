"""What a compaction knows of transactions while it goes through a log.

Everything it reads lies below the last stable offset, so each transaction has ended, and which were
aborted is known from the transaction indexes before it begins. A marker may go when no batch of its
transaction was met, not even one that goes in this same round: whoever reads a batch of it now
still needs the marker.
"""

from __future__ import annotations

from collections.abc import Iterable

from millstream.log.format.codec import BatchHeader

from .txn_index import AbortedTransaction

__all__ = ["TransactionsMet"]


class TransactionsMet:
    """Fed with every batch in the order of the log."""

    def __init__(self, aborted: Iterable[AbortedTransaction]) -> None:
        self._to_come = sorted(aborted, key=lambda each: each.first_offset, reverse=True)
        self._aborted: dict[int, AbortedTransaction] = {}
        self._met: set[int] = set()
        """Producers with a batch of the transaction that is open here."""

    def is_aborted(self, header: BatchHeader) -> bool:
        """Whether this data batch belongs to an aborted transaction."""
        self._begin(header.last_offset)
        if not header.is_transactional:
            return False
        self._met.add(header.producer_id)
        return header.producer_id in self._aborted

    def end(self, header: BatchHeader) -> tuple[bool, AbortedTransaction | None]:
        """A marker ends its producer's transaction.

        Returns:
            Whether a batch of that transaction was met; and its entry of the transaction index, if
            it was aborted.
        """
        self._begin(header.last_offset)
        aborted = self._aborted.pop(header.producer_id, None)
        met = header.producer_id in self._met
        self._met.discard(header.producer_id)
        return met, aborted

    def _begin(self, offset: int) -> None:
        while self._to_come and self._to_come[-1].first_offset <= offset:
            aborted = self._to_come.pop()
            self._aborted[aborted.producer_id] = aborted
