"""A group of KIP-848 as records of `__consumer_offsets`, in Kafka's layout.

    key    int16 kind, string group [, string memberId]
    value  int16 0, and in compact forms, each struct with its tagged fields at its end:
      3  group epoch        int32 epoch
      5  member             string? instance, string? rack, string client, string clientHost,
                            string[] topics, string? regex, int32 rebalanceTimeoutMs,
                            string? assignor
      6  assignment epoch   int32 epoch
      7  target assignment  places
      8  member's own       int32 epoch, int32 previousEpoch, int8 state, places assigned,
                            places revoking
    places: [uuid topicId, int32[] partitions]

What changed is written as one batch, so a group is read as it was at one moment. Which topics a
pattern is about is not written: the member's next heartbeat finds out.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from itertools import groupby
from typing import Any, NamedTuple

from millstream.log.errors import CorruptRecordError

from .modern_group import ModernGroup
from .modern_values import MemberState, ModernMember, Place
from .primitives import Reader, Writer

__all__ = ["group_of_key", "group_rows", "restored", "told"]

_EPOCH, _MEMBER, _TARGET_EPOCH, _TARGET, _CURRENT = 3, 5, 6, 7, 8
_KINDS = frozenset({_EPOCH, _MEMBER, _TARGET_EPOCH, _TARGET, _CURRENT})
_OF_MEMBERS = frozenset({_MEMBER, _TARGET, _CURRENT})
_NAMES = {
    _EPOCH: "group epoch",
    _MEMBER: "group member",
    _TARGET_EPOCH: "assignment epoch",
    _TARGET: "target assignment",
    _CURRENT: "member assignment",
}
_VALUE_VERSION = 0
_ID_BYTES = 16
_WHAT = "__consumer_offsets record of a consumer group"


class _Key(NamedTuple):
    kind: int
    group: str
    member_id: str


def group_of_key(raw: bytes) -> str | None:
    """The group that a record with this key is about; None for other kinds of records."""
    key = _decode_key(raw)
    return None if key is None else key.group


def group_rows(group: ModernGroup) -> dict[bytes, bytes]:
    """Everything about the group: key -> value."""
    rows = {
        _key(_EPOCH, group.name): bytes(_value().int32(group.epoch).uvarint(0).data),
        _key(_TARGET_EPOCH, group.name): bytes(
            _value().int32(group.assignment_epoch).uvarint(0).data
        ),
    }
    for member_id, member in group.members.items():
        rows[_key(_MEMBER, group.name, member_id)] = _member_value(member)
        rows[_key(_CURRENT, group.name, member_id)] = _current_value(member)
    for member_id, places in group.target.items():
        writer = _value()
        _write_places(writer, places)
        rows[_key(_TARGET, group.name, member_id)] = bytes(writer.uvarint(0).data)
    return rows


def restored(name: str, rows: Mapping[bytes, bytes]) -> ModernGroup:
    """The group these rows are about.

    Raises:
        CorruptRecordError: a record is not what its key says.
    """
    epochs: dict[int, int] = {}
    members: dict[str, ModernMember] = {}
    target: dict[str, frozenset[Place]] = {}
    current: dict[str, Reader] = {}
    for raw_key, raw_value in rows.items():
        key = _decode_key(raw_key)
        assert key is not None  # the caller looked
        reader = Reader(raw_value, _WHAT)
        if reader.int16() != _VALUE_VERSION:
            raise CorruptRecordError(f"{_WHAT}: its version is unknown.")
        if key.kind == _MEMBER:
            members[key.member_id] = _read_member(key.member_id, reader)
        elif key.kind == _TARGET:
            target[key.member_id] = _read_places(reader)
        elif key.kind == _CURRENT:
            current[key.member_id] = reader
        else:
            epochs[key.kind] = reader.int32()
    for member_id, reader in current.items():
        if member_id in members:
            members[member_id] = _with_current(members[member_id], reader)
    group = ModernGroup(name)
    group.restore(epochs.get(_EPOCH, 0), epochs.get(_TARGET_EPOCH, 0), members, target)
    return group


def told(raw_key: bytes, raw_value: bytes | None) -> dict[str, Any] | None:
    """What one record says, for people; None for other kinds of records.

    Raises:
        CorruptRecordError: the record is not what its key says.
    """
    key = _decode_key(raw_key)
    if key is None:
        return None
    found: dict[str, Any] = {"kind": _NAMES[key.kind], "group": key.group}
    if key.kind in _OF_MEMBERS:
        found["member"] = key.member_id
    if raw_value is None:
        return found | {"deleted": True}
    group = restored(key.group, {raw_key: raw_value})
    if key.kind == _EPOCH:
        return found | {"epoch": group.epoch}
    if key.kind == _TARGET_EPOCH:
        return found | {"epoch": group.assignment_epoch}
    if key.kind == _TARGET:
        return found | {"partitions": _texts(group.target[key.member_id])}
    member = ModernMember(key.member_id)
    if key.kind == _MEMBER:
        member = group.members[key.member_id]
        return found | {"topics": sorted(member.topics), "pattern": member.regex}
    reader = Reader(raw_value, _WHAT)
    reader.int16()
    member = _with_current(member, reader)
    return found | {
        "epoch": member.epoch,
        "state": member.state.name,
        "partitions": _texts(member.assigned),
        "revoking": _texts(member.revoking),
    }


def _texts(places: Collection[Place]) -> list[str]:
    return [f"{topic_id}-{number}" for topic_id, number in sorted(places)]


def _key(kind: int, group: str, member_id: str | None = None) -> bytes:
    writer = Writer().int16(kind).string(group)
    return bytes((writer if member_id is None else writer.string(member_id)).data)


def _decode_key(raw: bytes) -> _Key | None:
    reader = Reader(raw, "__consumer_offsets key")
    kind = reader.int16()
    if kind not in _KINDS:
        return None
    return _Key(kind, reader.string(), reader.string() if kind in _OF_MEMBERS else "")


def _value() -> Writer:
    return Writer().int16(_VALUE_VERSION)


def _member_value(member: ModernMember) -> bytes:
    writer = _value().compact_string(member.instance_id).compact_string(member.rack_id)
    writer.compact_string(member.client_id).compact_string(member.client_host)
    writer.uvarint(len(member.topics) + 1)
    for topic in sorted(member.topics):
        writer.compact_string(topic)
    writer.compact_string(member.regex or None).int32(member.rebalance_timeout_ms)
    return bytes(writer.compact_string(member.assignor).uvarint(0).data)


def _read_member(member_id: str, reader: Reader) -> ModernMember:
    return ModernMember(
        member_id,
        instance_id=reader.nullable_compact_string(),
        rack_id=reader.nullable_compact_string(),
        client_id=reader.compact_string(),
        client_host=reader.compact_string(),
        topics=frozenset(reader.compact_string() for _ in range(reader.compact_array_size())),
        regex=reader.nullable_compact_string() or "",
        rebalance_timeout_ms=reader.int32(),
        assignor=reader.nullable_compact_string(),
    )


def _current_value(member: ModernMember) -> bytes:
    writer = _value().int32(member.epoch).int32(member.previous_epoch).int8(member.state)
    _write_places(writer, member.assigned)
    _write_places(writer, member.revoking)
    return bytes(writer.uvarint(0).data)


def _with_current(member: ModernMember, reader: Reader) -> ModernMember:
    epoch, previous, state = reader.int32(), reader.int32(), reader.int8()
    try:
        known = MemberState(state)
    except ValueError:
        raise CorruptRecordError(f"{_WHAT}: a member's state {state} is unknown.") from None
    return member._replace(
        epoch=epoch,
        previous_epoch=previous,
        state=known,
        assigned=_read_places(reader),
        revoking=_read_places(reader),
    )


def _write_places(writer: Writer, places: Collection[Place]) -> None:
    by_topic = [(topic, list(each)) for topic, each in groupby(sorted(places), lambda p: p[0])]
    writer.uvarint(len(by_topic) + 1)
    for topic_id, each in by_topic:
        writer.raw(base64.urlsafe_b64decode(topic_id + "==")).uvarint(len(each) + 1)
        for _, number in each:
            writer.int32(number)
        writer.uvarint(0)


def _read_places(reader: Reader) -> frozenset[Place]:
    found: set[Place] = set()
    for _ in range(reader.compact_array_size()):
        topic_id = base64.urlsafe_b64encode(reader.raw(_ID_BYTES)).rstrip(b"=").decode()
        found.update((topic_id, reader.int32()) for _ in range(reader.compact_array_size()))
        reader.tagged_fields()
    return frozenset(found)
