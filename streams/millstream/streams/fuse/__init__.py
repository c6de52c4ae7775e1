"""Fuses the steps of a sub-topology into generated Python functions.

What a stream framework costs per record is mostly calls between steps and objects passed between
them. Here a chain of steps becomes the body of one loop over the columns of a batch: `if` for a
filter, `for` for many results, a dict lookup for a state; only user functions are called. Values
are decoded where the first function needs them, and bytes nobody changed pass through.
"""

from __future__ import annotations

from .fused import FusedSubTopology, fuse

__all__ = ["FusedSubTopology", "fuse"]
