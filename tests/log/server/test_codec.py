"""Every version of every message: what kio's codec writes ours reads, and the other way round."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from kio.index import load_request_schema, load_response_schema
from kio.serial import entity_reader

from millstream.log.server.decoding import ITEMS_MAX, STRING_BYTES_MAX, MalformedRequestError
from millstream.log.server.dispatch import apis
from millstream.log.server.frames import FrameReader, parse_header, response_frame
from millstream.log.server.messages import (
    decode_request,
    encode_response,
    response_header_version,
)
from millstream.log.server.schema import StructSchema, struct_schema
from shared.asking import request_frame
from shared.hostile import random_request

EVERY = [(key, version) for key, handler in apis().items() for version in handler.versions]
FRAMES_MAX = 1000
_VALUES: dict[str, tuple[Any, ...]] = {
    "bool": (True, False),
    "datetime_i64": (-1, 0, 1_700_000_000_123),
    "error_code": (0, -1, 3, 133),
    "float64": (0.0, 1.5),
    "int16": (0, -1, 300),
    "int32": (0, -1, 70_000),
    "int64": (0, -1, 1 << 40),
    "int8": (0, -1, 100),
    "string": ("", "é" * 100),
    "bytes": (b"", b"x" * 200),
    "records": (b"", b"x" * 200),
    "timedelta_i32": (0, 12_345),
    "timedelta_i64": (0, 12_345),
    "uint16": (0, 65_000),
    "uuid": (None, "AAAAAAAAQACAAAAAAAAAAQ"),
}


def plain(value: Any) -> Any:
    """kio's value as handlers see it."""
    if isinstance(value, dt.timedelta):
        return round(value / dt.timedelta(milliseconds=1))
    if isinstance(value, dt.datetime):
        return round((value - dt.datetime.fromtimestamp(0, dt.UTC)) / dt.timedelta(milliseconds=1))
    if isinstance(value, uuid.UUID):
        return urlsafe_b64encode(value.bytes).rstrip(b"=").decode() if value.int else None
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    if is_dataclass(value):
        return {
            name: plain(getattr(value, name))
            for name in sorted(each.name for each in fields(value))
        }
    return value


def shown(value: Any) -> Any:
    """Decoded fields in the same form."""
    if hasattr(value, "_fields"):
        return {name: shown(getattr(value, name)) for name in sorted(value._fields)}
    return [shown(each) for each in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize(("key", "version"), EVERY)
def test_requests(key: int, version: int) -> None:
    source = random.Random(key * 100 + version)
    for _ in range(10):
        frame = random_request(source, key, version)
        body = parse_header(frame).body
        expected, _ = entity_reader(load_request_schema(key, version))(
            frame, body + (load_request_schema(key, version).__header_schema__.__version__ == 2)
        )
        assert repr(shown(decode_request(key, version, frame, body))) == repr(plain(expected))


def filled(schema: StructSchema, source: random.Random) -> dict[str, Any]:
    """A value for each field, null where it may be."""
    found: dict[str, Any] = {}
    for each in schema.fields:
        kind: Any = each.type

        def one(kind: Any = kind, nullable: bool = each.nullable) -> Any:
            if isinstance(kind, StructSchema):
                return filled(kind, source)
            choices = _VALUES[kind]
            if kind == "datetime_i64" and not nullable:
                choices = choices[1:]  # kio reads no negative time there
            return source.choice(choices)

        if each.nullable and source.random() < 0.3 and each.type != "datetime_i64":
            found[each.name] = None if each.tag is None else each.default
        else:
            found[each.name] = [one() for _ in range(3)] if each.is_array else one()
    return found


@pytest.mark.parametrize(("key", "version"), EVERY)
def test_responses(key: int, version: int) -> None:
    source = random.Random(key * 100 + version)
    schema = struct_schema(key, version, "response")
    for _ in range(10):
        values = filled(schema, source)
        data = b"".join(encode_response(key, version, values))
        decoded, size_bytes = entity_reader(load_response_schema(key, version))(data, 0)
        assert size_bytes == len(data)
        assert normal(plain(decoded)) == normal(values)


def normal(value: Any) -> Any:
    """No time is -1 to us and None to kio."""
    if isinstance(value, Mapping):
        return {
            name: -1 if name == "log_append_time" and each is None else normal(each)
            for name, each in value.items()
        }
    return [normal(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("key", "version"), EVERY)
def test_a_request_that_ends_early_is_refused(key: int, version: int) -> None:
    frame = random_request(random.Random(1), key, version)
    body = parse_header(frame).body
    for end in range(body, len(frame)):
        with pytest.raises(MalformedRequestError):
            decode_request(key, version, frame[:end], body)


def test_what_a_version_lacks_reads_as_its_absence_means() -> None:
    old = random_request(random.Random(3), 1, 4)  # Fetch
    request = decode_request(1, 4, old, parse_header(old).body)
    assert (request.session_id, request.session_epoch, request.rack_id) == (0, -1, "")


def test_fields_of_other_versions_are_left_out_and_mistakes_are_found() -> None:
    topic = {"name": "t", "topic_id": "AAAAAAAAQACAAAAAAAAAAQ"}
    assert encode_response(3, 1, {"topics": [topic], "cluster_authorized_operations": 1})
    with pytest.raises(KeyError, match=r"topics\.topicid"):
        encode_response(3, 1, {"topics": [{"name": "t", "topicid": None}]})


def test_ids_are_bounded_by_the_items_of_a_request() -> None:
    frame = b"\0\3\0\0" + bytes(4) + b"\xff\xff" + (ITEMS_MAX + 1).to_bytes(4, "big")
    with pytest.raises(MalformedRequestError, match="array"):
        decode_request(3, 0, frame + bytes(2 * (ITEMS_MAX + 1)), 10)


@pytest.mark.parametrize("version", [3, 4])
def test_strings_are_no_longer_than_kafka_takes_them(version: int) -> None:
    def read(size: int) -> Any:
        name = {"client_software_name": "x" * size, "client_software_version": "1"}
        frame = request_frame(18, version, **name)
        return decode_request(18, version, frame, parse_header(frame).body)

    assert len(read(STRING_BYTES_MAX).client_software_name) == 32_767
    with pytest.raises(MalformedRequestError, match="string of 32768 bytes"):
        read(STRING_BYTES_MAX + 1)


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 13, 1000])
def test_frames_in_pieces_of_every_size(step: int) -> None:
    bodies = [bytes([number % 256]) * (10 + number) for number in range(60)]
    data = b"".join(len(each).to_bytes(4, "big") + each for each in bodies)
    reader = FrameReader(FRAMES_MAX)
    found = []
    for start in range(0, len(data), step):
        found += reader.feed(data[start : start + step])
    assert found == bodies
    assert not reader.in_frame


@pytest.mark.parametrize("size", [-1, 0, 9, FRAMES_MAX + 1, 2**31 - 1])
def test_lengths_that_are_refused(size: int) -> None:
    reader = FrameReader(FRAMES_MAX)
    with pytest.raises(MalformedRequestError, match=r"socket\.request\.max\.bytes"):
        reader.feed(size.to_bytes(4, "big", signed=True))


@pytest.mark.parametrize("size", [-2, 3, 32_767])
def test_client_ids_that_are_refused(size: int) -> None:
    with pytest.raises(MalformedRequestError):
        parse_header(b"\0\3\0\0\0\0\0\7" + size.to_bytes(2, "big", signed=True) + b"ab")


def test_response_headers() -> None:
    assert response_header_version(18, 4) == 0  # ApiVersions, always
    assert response_header_version(3, 8) == 0
    assert response_header_version(3, 9) == 1
    assert b"".join(response_frame(-7, 1, [b"ab"])) == b"\0\0\0\7\xff\xff\xff\xf9\0ab"
