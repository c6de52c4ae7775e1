"""Writes the input of the benchmarks: JSON records of about 120 bytes, the same for a given count.

1,000 keys; `ts` moves on by 6 ms a record with up to a second of disorder, so that a million
records span a hundred one-minute windows; `text` is six words out of a vocabulary of 2,000.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import orjson

FIRST_TIMESTAMP_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
KEYS = 1_000
VOCABULARY = 2_000
WORDS_PER_TEXT = 6


def records(count: int, seed: int = 1) -> Iterator[tuple[bytes, bytes, int]]:
    """(key, JSON value, timestamp in ms) of each record."""
    rng = random.Random(seed)
    words = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(4, 9)))
        for _ in range(VOCABULARY)
    ]
    for number in range(count):
        user = f"user-{rng.randrange(KEYS)}"
        timestamp = FIRST_TIMESTAMP_MS + number * 6 + rng.randrange(1_000)
        value = {
            "id": number,
            "user": user,
            "amount": round(rng.random() * 100, 2),
            "ts": timestamp,
            "text": " ".join(rng.choices(words, k=WORDS_PER_TEXT)),
        }
        yield user.encode(), orjson.dumps(value), timestamp
