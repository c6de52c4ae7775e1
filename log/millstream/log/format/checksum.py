"""CRC-32C (Castagnoli, RFC 3720 appendix B.4), the checksum of record batches."""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any

__all__ = ["checksum"]


def _load() -> Callable[..., int]:
    """The function of the crc32c library, from its extension module and not from its package.

    The package looks up its own version when imported, which takes 40 ms: a fifth of what starting
    a program may take.
    """
    package = find_spec("crc32c")
    places = package.submodule_search_locations if package else None
    extension = PathFinder.find_spec("_crc32c", places)
    if extension is None or extension.loader is None:
        import crc32c

        return crc32c.crc32c
    module: Any = module_from_spec(extension)
    extension.loader.exec_module(module)
    function: Callable[..., int] = module.crc32c
    return function


_crc32c = _load()


def checksum(data: bytes | bytearray | memoryview, before: int = 0) -> int:
    """The checksum of the data, or of what had the checksum `before` followed by the data."""
    return _crc32c(data, before)
