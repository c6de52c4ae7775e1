"""Damage to valid bytes, as hypothesis draws it."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, (1 << 15) - 1, 1 << 15, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
           (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
"""Lengths and counts at which decoders have gone wrong before."""
EDITS_MAX = 5

_edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "cut", "insert", "repeat", "drop", "number", "end"]),
        st.integers(0, 1 << 16),
        st.integers(0, 255),
        st.sampled_from(NUMBERS),
    ),
    max_size=EDITS_MAX,
)


def damaged(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of the seeds after a few edits; now and then any bytes at all."""
    edited = st.builds(_edited, st.sampled_from(list(seeds)), _edits)
    return st.one_of(edited, edited, edited, st.binary(max_size=200))


def _edited(data: bytes, edits: list[tuple[str, int, int, int]]) -> bytes:
    for kind, place, byte, number in edits:
        at = place % (len(data) + 1)
        before, after = data[:at], data[at:]
        if kind == "flip":
            data = before + bytes([after[0] ^ (1 << byte % 8)]) + after[1:] if after else data
        elif kind == "set":
            data = before + bytes([byte]) + after[1:]
        elif kind == "cut":
            data = before
        elif kind == "insert":
            data = before + bytes([byte]) * (byte % 9) + after
        elif kind == "repeat":
            data = before + after[:byte] * 3 + after[byte:]
        elif kind == "drop":
            data = before + after[byte:]
        elif kind == "number":
            width = (1, 2, 4, 8)[byte % 4]
            data = before + (number % (1 << 8 * width)).to_bytes(width, "big") + after[width:]
        else:
            data = data + bytes([byte]) * (place % 50)
    return data
