"""An app as a user writes it, for the type checker: `test_types.py` runs mypy --strict over it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, assert_type

from millstream.streams import App, Context, Stream, Table, Topic, Windowed, tumbling


@dataclass
class Flight:
    carrier: str
    delay: int


app = App("typed", log="memory:")
flights = app.topic("flights", key=str, value=Flight)
assert_type(flights, Topic[str, Flight])
anything = app.topic("any", key=str, value=dict[str, Any])
assert_type(anything, Topic[str, dict[str, Any]])


@app.stream(flights, to="late")
def late(flight: Flight) -> Flight | None:
    return flight if flight.delay > 15 else None


assert_type(late(Flight("AA", 3)), Flight | None)
s: Stream[str, Flight] = late


@app.stream(late)
def words(flight: Flight, key: str) -> Iterator[int]:
    yield flight.delay


w: Stream[str, int] = words
assert_type(words(Flight("AA", 3), "x"), Iterator[int])


@app.stream(late)
async def enriched(flight: Flight, ctx: Context) -> str:
    return flight.carrier


e: Stream[str, str] = enriched


@app.stream(late)
async def split(flight: Flight) -> AsyncIterator[bytes]:
    yield b""


b: Stream[str, bytes] = split


@app.table(late, key=lambda f: f.carrier, window=tumbling("1h", grace="5m"))
def delay(total: int, flight: Flight) -> int:
    return total + flight.delay


assert_type(delay(1, Flight("AA", 2)), int)
delay.final().to("delay-per-hour")

counts = app.stream(flights).filter(lambda f: f.delay > 3).group_by_key().count()
assert_type(counts, Table[str, int])
windowed = app.stream(flights).group_by_key().window(tumbling("1h")).count(name="w")
assert_type(windowed, Table[Windowed[str], int])


def carrier(f: Flight) -> str:
    return f.carrier


assert_type(app.stream(flights).key_by(carrier), Stream[str, Flight])


def pair(f: Flight) -> tuple[int, str]:
    return f.delay, f.carrier


assert_type(app.stream(flights).map(pair), Stream[int, str])


@app.pipeline
def busiest() -> None:
    app.stream(flights).group_by(carrier).count().to("x")


busiest()
names = app.global_table(app.topic("names", key=str, value=str))


def named(f: Flight, name: str | None) -> str:
    return name or ""


assert_type(app.stream(flights).left_join(names, named, key=carrier), Stream[str, str])
t: Table[str, Flight] = app.table_of(flights)
