"""Requests that no client would send: random ones, real ones with changes, lengths that lie."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import struct
import uuid
from base64 import b64decode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from kio.index import load_request_schema

from millstream.log.server.dispatch import apis
from shared.asking import request_frame
from shared.wire_client import WireClient

__all__ = [
    "changed",
    "lying_frames",
    "memory_bytes",
    "noise",
    "random_request",
    "recorded_requests",
    "throw",
]

AT_ONCE = 20

_NUMBERS = (-1, 0, 1, 2, 3, 7, 100, 2**31 - 1, -(2**31))
_NAMES = ("", "fuzzed", "fuzzed-2", "__consumer_offsets", "no/name", "0", "x" * 300)


def random_request(source: random.Random, key: int, version: int) -> bytes:
    """A request that is whole and means anything."""
    schema = load_request_schema(key, version)
    values = {each.name: _value(source, each.type, each) for each in fields(schema)}
    return request_frame(key, version, **values)


def _value(source: random.Random, kind: Any, field: Any) -> Any:
    if get_origin(kind) is UnionType:
        if source.random() < 0.3:
            return None
        kind = next(each for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is tuple:
        count = source.choice((0, 1, 1, 2, 3))
        return tuple(_value(source, get_args(kind)[0], field) for _ in range(count))
    if is_dataclass(kind):
        return {each.name: _value(source, each.type, each) for each in fields(kind)}
    return _primitive(source, field.metadata["kafka_type"])


def _primitive(source: random.Random, kind: str) -> Any:
    if kind == "bool":
        return source.random() < 0.5
    if kind == "string":
        return source.choice(_NAMES)
    if kind in ("bytes", "records"):
        return source.randbytes(source.choice((0, 1, 20, 61, 100)))
    if kind == "uuid":
        return uuid.UUID(int=source.getrandbits(128)) if source.random() < 0.7 else None
    if kind.startswith("timedelta"):
        return dt.timedelta(milliseconds=source.choice((0, 1, 100)))
    if kind == "float64":
        return source.choice((0.0, 1.5, float("nan"), float("-inf")))
    bits = int("".join(each for each in kind if each.isdigit()))
    low, high = (
        (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )
    return max(low, min(high, source.choice(_NUMBERS)))


def changed(source: random.Random, frame: bytes) -> bytes:
    """A frame with a few changes; its header may be among them."""
    data = bytearray(frame)
    for _ in range(source.choice((1, 1, 2, 4))):
        position = source.randrange(len(data)) if data else 0
        kind = source.randrange(6)
        if kind == 0 and data:
            data[position] = source.randrange(256)
        elif kind == 1 and data:
            data[position] ^= 1 << source.randrange(8)
        elif kind == 2:
            number = source.choice((-1, -2, 2**31 - 1, 2**30, 1 << 20, -(2**31), 1 << 16))
            data[position : position + 4] = struct.pack(">i", number)
        elif kind == 3:
            data[position : position + 1] = b"\xff\xff\xff\xff" + source.choice((b"\x07", b"\x0f"))
        elif kind == 4:
            del data[position : position + source.randrange(1, 9)]
        else:
            data[position:position] = source.randbytes(source.randrange(1, 9))
    return bytes(data)


def noise(source: random.Random) -> bytes:
    """Bytes of no meaning, behind a header that is right half of the time."""
    data = source.randbytes(source.choice((0, 3, 10, 50, 500)))
    if source.random() < 0.5:
        key, handler = source.choice(list(apis().items()))
        data = struct.pack(">hhih", key, source.choice(handler.versions), 7, -1) + data
    return data


def lying_frames() -> Iterator[bytes]:
    """For every version of every API: a few bytes that claim arrays and strings of every size."""
    for key, handler in apis().items():
        for version in handler.versions:
            head = struct.pack(">hhih", key, version, 7, -1)
            for claim in (
                struct.pack(">i", 2**31 - 1),
                struct.pack(">i", 1 << 24),
                b"\xff\xff\xff\xff\x0f",
                b"\xff\xff\xff\x7f",
                b"\x7f\xff" * 3,
            ):
                for before in (0, 1, 2, 3, 4, 7, 12):
                    yield head + bytes(before) + claim
                    yield head + bytes(before) + claim * 3


def recorded_requests() -> list[bytes]:
    """What confluent-kafka and kafka-python have sent; record_requests.py says how."""
    lines = (Path(__file__).parents[1] / "clients/recorded_requests.txt").read_text().split()
    return [b64decode(each) for each in lines]


async def throw(address: str, frames: Iterable[bytes]) -> int:
    """Each frame on a connection of its own; returns how many were answered."""
    gate = asyncio.Semaphore(AT_ONCE)
    answered = 0

    async def one(frame: bytes) -> None:
        nonlocal answered
        async with gate:
            with suppress(ConnectionError):
                async with WireClient(address) as client:
                    client.send(frame)
                    with suppress(TimeoutError):  # some may wait for what never comes
                        async with asyncio.timeout(0.5):
                            answer = await client.frame()
                            answered += answer is not None

    pending: set[asyncio.Task[None]] = set()
    for frame in frames:
        pending.add(asyncio.get_running_loop().create_task(one(frame)))
        if len(pending) >= AT_ONCE:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
    await asyncio.gather(*pending)
    return answered


def memory_bytes(what: str, process: int | str = "self") -> int:
    """VmRSS: what is resident. VmHWM: the most there ever was. VmPeak: the most ever asked for."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) << 10
    raise LookupError(what)
