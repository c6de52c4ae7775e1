"""Flights out of New York, folded per airline and UTC day: how many, how many late or cancelled.

    flights, joined with the global table airlines
      -> daily: one window per carrier and day
      -> topic carrier-daily: one record per carrier and day, when its window closes

`millstream demo` runs it with its file source and its database sink in one process. By itself it is
`millstream run examples/flights/app.py`, over topics that connectors.toml fills.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from millstream.streams import App, Windowed, tumbling

LATE_AFTER_MINUTES = 15

app = App("flights-daily")


@dataclass
class Flight:
    """The columns of a flight that are used here; `NA` in the file is None."""

    carrier: str
    dep_time: int | None = None
    dep_delay: int | None = None


@dataclass
class Airline:
    carrier: str
    name: str


@dataclass
class NamedFlight:
    """A flight and the name of its airline, None where the airline is not known."""

    flight: Flight
    name: str | None


@dataclass
class Day:
    """One carrier's day so far. The defaults are the empty day that a window starts with."""

    name: str | None = None
    flights: int = 0
    cancelled: int = 0
    late: int = 0
    delay_minutes: int = 0


flights = app.topic("flights", key=str, value=Flight, partitions=4)
airlines = app.global_table(app.topic("airlines", key=str, value=Airline))
carrier_daily = app.topic("carrier-daily", value=dict, partitions=4)


def with_name(flight: Flight, airline: Airline | None) -> NamedFlight:
    return NamedFlight(flight, airline.name if airline else None)


named = app.stream(flights).left_join(airlines, with_name, key=lambda flight: flight.carrier)


@app.table(named, window=tumbling("1d", grace="1d"))
def daily(day: Day, named: NamedFlight) -> Day:
    delay = named.flight.dep_delay or 0
    return Day(
        name=named.name,
        flights=day.flights + 1,
        cancelled=day.cancelled + (named.flight.dep_time is None),
        late=day.late + (delay > LATE_AFTER_MINUTES),
        delay_minutes=day.delay_minutes + max(delay, 0),
    )


@app.stream(daily.final(), to=carrier_daily)
def row(day: Day, key: Windowed[str]) -> dict[str, Any]:
    return {
        "carrier": key.key,
        "name": day.name,
        "day": key.window.start_time.date().isoformat(),
        "flights": day.flights,
        "cancelled": day.cancelled,
        "late": day.late,
        "delay_minutes": day.delay_minutes,
    }
