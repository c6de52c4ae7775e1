"""Which partition records without a partition of their own go to: by key, or sticky without one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from operator import itemgetter
from typing import TypeVar

from millstream.log.format.codec import partitions_for_keys

__all__ = ["StickyPartitioner", "pick", "rows_by_partition"]

T = TypeVar("T")


class StickyPartitioner:
    """Null keys stay on one partition until `batch.size` bytes went there, then move (KIP-794).

    Spreading single records over partitions makes small batches; staying makes large ones, and over
    time every partition gets its share. All partitions are in this process, none has a longer queue
    than another, so the next one is chosen evenly.
    """

    def __init__(self, batch_size_bytes: int, chance: random.Random) -> None:
        self._batch_size_bytes = batch_size_bytes
        self._chance = chance
        self._current: dict[str, tuple[int, int]] = {}  # topic: partition, bytes sent there

    def partition(self, topic: str, partitions: int) -> int:
        """Where the next record without a key goes."""
        current = self._current.get(topic)
        if current is None or current[0] >= partitions:
            current = self._current[topic] = (self._chance.randrange(partitions), 0)
        return current[0]

    def sent(self, topic: str, partitions: int, size_bytes: int) -> None:
        """So many bytes went to the current partition of `topic`."""
        partition, so_far = self._current.get(topic, (0, 0))
        so_far += size_bytes
        if so_far >= self._batch_size_bytes and partitions > 1:
            partition = (partition + self._chance.randrange(1, partitions)) % partitions
            so_far = 0
        self._current[topic] = (partition, so_far)


def rows_by_partition(
    keys: Sequence[bytes | None], partitions: int, for_null_keys: int
) -> dict[int, list[int]]:
    """Indices of the records that go to each partition, in order; only partitions that get any."""
    rows: list[list[int]] = [[] for _ in range(partitions)]
    rows.append(rows[for_null_keys])  # a null key has partition -1, the last of this list
    for row, partition in enumerate(partitions_for_keys(keys, partitions)):
        rows[partition].append(row)
    return {number: found for number, found in enumerate(rows[:-1]) if found}


def pick(column: Sequence[T], rows: Sequence[int]) -> list[T]:
    """The items of a column at `rows`."""
    if len(rows) == 1:
        return [column[rows[0]]]
    return list(itemgetter(*rows)(column))
