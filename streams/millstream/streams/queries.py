"""Reading an app's stores from the process it runs in.

A view sees what the app has processed, the part that is not yet committed included, as Kafka
Streams' interactive queries do. Call it from the app's event loop, between awaits: nothing is
locked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from millstream.log.format.partitioner import partition_for_key

from .errors import StreamsError
from .state import KeyValueStore, Store, WindowStore
from .topology import StoreSpec
from .windows import Window, Windowed

__all__ = ["StoreView", "UnknownStoreError"]


class UnknownStoreError(StreamsError):
    """No store of this name, or its part for a key is not in this process. The message says
    which."""


class PartsOfStore(Protocol):
    """Where a view finds the parts of its store: they move when the group rebalances."""

    def parts(self, store: str) -> dict[int, Store]:
        """By partition, those that are open here."""
        ...

    def part_count(self, store: str) -> int:
        """How many parts there are, here or elsewhere."""
        ...


class StoreView:
    """One store of a running app, all partitions of it that are in this process. Read only."""

    def __init__(self, spec: StoreSpec, source: PartsOfStore) -> None:
        self._spec = spec
        self._source = source

    @property
    def name(self) -> str:
        return self._spec.name

    def get(self, key: Any, window_start: int | None = None) -> Any:
        """The value of a key, None when there is none.

        Args:
            key: as the app's functions see it.
            window_start: of a windowed store: which window, in milliseconds.

        Raises:
            UnknownStoreError: the key's partition is not in this process.
        """
        data = self._spec.key_serde.serialize(key)
        part = self._part(data)
        if isinstance(part, WindowStore):
            if window_start is None:
                raise TypeError(f"store {self.name!r} is windowed: get(key, window_start)")
            return part.get(window_start, data)
        return part.get(data)

    def fetch(self, key: Any, first: int, last: int) -> list[tuple[Window, Any]]:
        """Values of a key in windows that start from `first` to `last`, in ms, both inclusive."""
        data = self._spec.key_serde.serialize(key)
        part = self._part(data)
        if not isinstance(part, WindowStore):
            raise TypeError(f"store {self.name!r} has no windows: use get(key)")
        return [(self._window(start), value) for start, value in part.fetch(data, first, last)]

    def items(self) -> Iterator[tuple[Any, Any]]:
        """All keys and values; keys of a windowed store are `Windowed`. Sorted within a
        partition."""
        deserialize = self._spec.key_serde.deserialize
        for _, part in sorted(self._source.parts(self.name).items()):
            if isinstance(part, KeyValueStore):
                for key, value in part.items():
                    yield deserialize(key), value
            else:
                for start in part.starts():
                    window = self._window(start)
                    for key, value in part.items(start):
                        yield Windowed(deserialize(key), window.start, window.end), value

    def __iter__(self) -> Iterator[Any]:
        return (key for key, _ in self.items())

    def __len__(self) -> int:
        """Counts by reading everything."""
        return sum(1 for _ in self.items())

    def _part(self, key: bytes) -> Store:
        partition = partition_for_key(key, self._source.part_count(self.name))
        part = self._source.parts(self.name).get(partition)
        if part is None:
            raise UnknownStoreError(
                f"partition {partition} of store {self.name!r} is not in this process: the app is "
                "starting or stopping, or another worker has it"
            )
        return part

    def _window(self, start: int) -> Window:
        assert self._spec.window is not None
        return Window(start, start + self._spec.window.size_ms)


def spec_named(name: str, specs: Iterable[StoreSpec]) -> StoreSpec:
    """Raises UnknownStoreError that lists the stores there are."""
    by_name = {spec.name: spec for spec in specs}
    if name not in by_name:
        raise UnknownStoreError(f"no store {name!r}; there are: {', '.join(sorted(by_name))}")
    return by_name[name]
