"""Serdes: every type comes back as it went in; what does not fit is named by field and type."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from enum import Enum
from typing import Any, Literal, NamedTuple
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.streams.errors import SerdeError, TopologyError
from millstream.streams.serde import Serde, serde_for, windowed_serde
from millstream.streams.windows import Windowed


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Leg:
    carrier: str
    minutes: int = 0


@dataclass
class Trip:
    id: int
    price: float
    legs: list[Leg]
    note: str | None = None
    tags: dict[str, int] = field(default_factory=dict)
    when: datetime | None = None
    color: Color = Color.RED
    size: Literal["s", "l"] = "s"
    pair: tuple[int, str] = (0, "")
    code: UUID | None = None
    day: date | None = None
    either: int | str = 0
    parent: Trip | None = None


class Route(NamedTuple):
    origin: str
    destination: str = "?"


class Point(msgspec.Struct):
    x: int
    y: float = 0.5


class Model(pydantic.BaseModel):
    name: str
    count: int = 1


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_int_is_kafkas_long(value: int) -> None:
    serde = serde_for(int)
    assert serde.serialize(value) == value.to_bytes(8, "big", signed=True)
    assert serde.deserialize(serde.serialize(value)) == value


@given(st.floats(allow_nan=False))
def test_float_is_kafkas_double(value: float) -> None:
    serde = serde_for(float)
    assert len(serde.serialize(value)) == 8
    assert serde.deserialize(serde.serialize(value)) == value


def test_double_bytes() -> None:
    assert serde_for(float).serialize(1.5) == bytes.fromhex("3ff8000000000000")
    assert math.isnan(serde_for(float).deserialize(serde_for(float).serialize(math.nan)))


@given(st.text(st.characters(exclude_categories=["Cs"])), st.binary(), st.booleans())
def test_text_bytes_and_bool_come_back(text: str, data: bytes, flag: bool) -> None:
    for value, hint in ((text, str), (data, bytes), (flag, bool)):
        serde = serde_for(hint)
        assert serde.deserialize(serde.serialize(value)) == value


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 53), 1 << 53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
)


@given(json_values)
def test_json_comes_back(value: Any) -> None:
    serde = serde_for(Any)
    assert serde.deserialize(serde.serialize(value)) == value


trips = st.builds(
    Trip,
    id=st.integers(-(1 << 62), 1 << 62),
    price=st.floats(allow_nan=False, allow_infinity=False),
    legs=st.lists(st.builds(Leg, carrier=st.text("abc"), minutes=st.integers(0, 999))),
    note=st.none() | st.text("xyz"),
    tags=st.dictionaries(st.text("ab"), st.integers(0, 9)),
    when=st.none() | st.datetimes(timezones=st.just(UTC)),
    color=st.sampled_from(Color),
    size=st.sampled_from(["s", "l"]),
    pair=st.tuples(st.integers(0, 9), st.text("q")),
    code=st.none() | st.uuids(),
    day=st.none() | st.dates(),
    either=st.integers(0, 5) | st.text("e", min_size=1),
    parent=st.none() | st.builds(Trip, id=st.integers(0, 3), price=st.just(0.0), legs=st.just([])),
)


@given(trips)
def test_dataclass_comes_back(trip: Trip) -> None:
    serde = serde_for(Trip)
    assert serde.deserialize(serde.serialize(trip)) == trip


@pytest.mark.parametrize("value", [Route("A", "B"), Point(3, 1.5), Model(name="a", count=4)])
def test_other_models_come_back(value: Any) -> None:
    serde = serde_for(type(value))
    assert serde.serialize(value).startswith(b"{")
    assert serde.deserialize(serde.serialize(value)) == value


def test_unknown_keys_are_ignored_and_defaults_filled_in() -> None:
    trip = serde_for(Trip).deserialize(b'{"id":1,"price":2,"legs":[],"new":"x"}')
    assert trip == Trip(1, 2.0, [])
    assert isinstance(trip.price, float)
    assert trip.tags is not serde_for(Trip).deserialize(b'{"id":1,"price":2,"legs":[]}').tags


@pytest.mark.parametrize(
    ("data", "field_name", "told"),
    [
        (b'{"price":1.0,"legs":[]}', "id", "Trip.id: missing"),
        (b'{"id":"7","price":1.0,"legs":[]}', "id", "Trip.id: expected int, found '7'"),
        (b'{"id":true,"price":1.0,"legs":[]}', "id", "Trip.id: expected int, found True"),
        (b'{"id":1,"price":null,"legs":[]}', "price", "Trip.price: expected float, found None"),
        (b'{"id":1,"price":1.0,"legs":{}}', "legs", "Trip.legs: expected a list, found {}"),
        (
            b'{"id":1,"price":1.0,"legs":[{"carrier":"a"},{"carrier":5}]}',
            "legs[1].carrier",
            "Trip.legs[1].carrier: expected str, found 5",
        ),
        (
            b'{"id":1,"price":1.0,"legs":[],"tags":{"a":"b"}}',
            "tags['a']",
            "Trip.tags['a']: expected int",
        ),
        (
            b'{"id":1,"price":1.0,"legs":[],"color":"green"}',
            "color",
            "Trip.color: expected one of 'red', 'blue', found 'green'",
        ),
        (b'{"id":1,"price":1.0,"legs":[],"size":"m"}', "size", "expected one of 's', 'l'"),
        (b'{"id":1,"price":1.0,"legs":[],"pair":[1]}', "pair", "expected a list of 2"),
        (b'{"id":1,"price":1.0,"legs":[],"when":"noon"}', "when", "expected datetime as text"),
        (b'{"id":1,"price":1.0,"legs":[],"either":1.5}', "either", "expected int or str"),
        (b"[]", "", "Trip: expected an object, found []"),
    ],
)
def test_what_does_not_fit_is_named(data: bytes, field_name: str, told: str) -> None:
    with pytest.raises(SerdeError) as caught:
        serde_for(Trip).deserialize(data)
    assert caught.value.field == field_name
    assert told in str(caught.value)


def test_the_same_type_gives_the_same_serde() -> None:
    assert serde_for(Trip) is serde_for(Trip)
    assert serde_for(Trip) is serde_for(Trip | None)
    assert serde_for(dict[str, Any]) is serde_for(dict)


def test_a_serde_of_ones_own_is_taken_as_it_is() -> None:
    own: Serde[complex] = Serde(lambda value: repr(value).encode(), complex)
    assert serde_for(own) is own


@pytest.mark.parametrize(
    "hint", [complex, time, dict[int, str], list[complex], type("Thing", (), {})]
)
def test_types_json_cannot_carry_are_refused(hint: Any) -> None:
    with pytest.raises(TopologyError, match="Serde of your own"):
        serde_for(hint)


def test_a_field_that_json_would_lose_is_refused() -> None:
    @dataclass
    class Hidden:
        _secret: int

    with pytest.raises(TopologyError, match="_secret"):
        serde_for(Hidden)


def test_local_classes_are_found() -> None:
    @dataclass
    class Inner:
        n: int

    @dataclass
    class Outer:
        inner: Inner

    assert serde_for(Outer).deserialize(b'{"inner":{"n":3}}') == Outer(Inner(3))


def test_post_init_may_refuse() -> None:
    @dataclass
    class Positive:
        n: int

        def __post_init__(self) -> None:
            if self.n < 0:
                raise ValueError("n must not be negative")

    with pytest.raises(ValueError, match="negative"):
        serde_for(Positive).deserialize(b'{"n":-1}')


@given(st.text("ab"), st.integers(0, 1 << 40))
def test_windowed_keys_have_kafkas_layout(key: str, start: int) -> None:
    serde = windowed_serde(serde_for(str), 1000)
    data = serde.serialize(Windowed(key, start, start + 1000))
    assert data == key.encode() + start.to_bytes(8, "big")
    assert serde.deserialize(data) == Windowed(key, start, start + 1000)


def test_a_short_windowed_key_is_refused() -> None:
    with pytest.raises(SerdeError, match="8 bytes"):
        windowed_serde(serde_for(str), 1000).deserialize(b"short")


@pytest.mark.parametrize(
    ("hint", "data"), [(int, b"123"), (float, b""), (bool, b"\x02"), (str, b"\xff")]
)
def test_wrong_bytes_raise(hint: Any, data: bytes) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        serde_for(hint).deserialize(data)
    assert not isinstance(caught.value, AssertionError)


def test_bytes_are_bytes() -> None:
    with pytest.raises(SerdeError, match="expected bytes"):
        serde_for(bytes).serialize("text")
