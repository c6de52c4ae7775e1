"""State stores: an in-memory overlay of what was written since the last commit, over a backing.

Owns the stores, their backings (RocksDB, memory) and the shape of changelog keys. Does not own the
order of a commit (`commit.py`) or the replay of a changelog (`restore.py`).
"""

from __future__ import annotations

from .changelog import split_window_key, window_key
from .memory import MemoryBacking
from .store import Backing, Changes, Checkpoint, KeyValueStore, StateStoreError
from .window_store import WindowStore

Store = KeyValueStore | WindowStore

__all__ = [
    "Backing",
    "Changes",
    "Checkpoint",
    "KeyValueStore",
    "MemoryBacking",
    "StateStoreError",
    "Store",
    "WindowStore",
    "split_window_key",
    "window_key",
]
