"""The user's part of each workload: the very functions that Millstream and the bare loops call."""

from __future__ import annotations

from typing import Any

Event = dict[str, Any]


def large(event: Event) -> Event | None:
    """W1: keep `amount > 50`, add a field."""
    if event["amount"] > 50:
        event["large"] = True
        return event
    return None


def count(total: int, event: Event) -> int:
    """W2: one more event of a key."""
    return total + (1 if event["amount"] >= 0 else 0)


def amount(total: float, event: Event) -> float:
    """W3: the sum of a key in a minute."""
    return total + event["amount"]


def words(event: Event) -> list[str]:
    """W4: the words of a text."""
    text: str = event["text"]
    return text.split()
