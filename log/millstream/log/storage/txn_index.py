"""Aborted transactions whose marker lies in a segment: what read_committed readers must leave out.

    .txnindex, entry of 34 bytes, big-endian:
        int16 version (0)   int64 producer id   int64 first offset   int64 last offset (the marker)
        int64 last stable offset when it ended

The file exists only where a transaction was aborted. The last stable offset lets a search stop:
what was aborted later cannot begin before it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from .files import Files
from .stored_entries import StoredEntries

__all__ = ["AbortedTransaction", "TxnIndex"]

ENTRY = struct.Struct(">hqqqq")
VERSION = 0


class AbortedTransaction(NamedTuple):
    """One aborted transaction. `last_offset` is that of its marker."""

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int


class TxnIndex:
    """Entries in the order their transactions ended. Read whole on first use: aborts are rare."""

    __slots__ = ("_aborted", "_stored_count", "stored")

    def __init__(self, files: Files, path: str) -> None:
        self.stored = StoredEntries(files, path, ENTRY)
        self._aborted: list[AbortedTransaction] | None = None
        self._stored_count = 0

    @property
    def count(self) -> int:
        """Entries in all."""
        return self.stored.count if self._aborted is None else len(self._aborted)

    def entries(self) -> list[AbortedTransaction]:
        """Every entry; not to be changed."""
        if self._aborted is None:
            self._aborted = [AbortedTransaction(*entry[1:]) for entry in self.stored.all()]
            self._stored_count = len(self._aborted)
        return self._aborted

    def append(self, aborted: AbortedTransaction) -> None:
        """Add a transaction that has just ended."""
        self.entries().append(aborted)

    def overlapping(self, start: int, stop: int) -> Iterator[AbortedTransaction]:
        """Those that have records or their marker in `start` to `stop` (exclusive)."""
        for aborted in self.entries():
            if aborted.last_offset >= start and aborted.first_offset < stop:
                yield aborted

    def ends_search(self, stop: int) -> bool:
        """Whether no later segment can hold a transaction that begins before `stop`."""
        entries = self.entries()
        return bool(entries) and entries[-1].last_stable_offset >= stop

    def seal(self) -> None:
        """Write what is in memory to the file, if anything is; and take from it what recovery has
        cleared: a transaction that was cut off must not hide records that came in its place."""
        entries = self.entries()
        added = entries[self._stored_count :]
        if added or self.stored.has_stale_bytes:
            self.stored.extend(b"".join(ENTRY.pack(VERSION, *aborted) for aborted in added))
        self._stored_count = len(entries)

    def clear(self) -> None:
        """Forget every entry."""
        self.stored.clear()
        self._aborted, self._stored_count = [], 0
