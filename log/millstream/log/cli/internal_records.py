"""What the records of `__consumer_offsets` and `__transaction_state` say, for people."""

from __future__ import annotations

from typing import Any

from millstream.log.broker import modern_records, offset_records, txn_records
from millstream.log.config import CONSUMER_OFFSETS
from millstream.log.errors import CorruptRecordError

__all__ = ["decoded"]


def decoded(topic: str, key: bytes | None, value: bytes | None) -> dict[str, Any]:
    """What a record of an internal topic says; `problem` where it says nothing that is known."""
    if key is None:
        return {"problem": "the record has no key"}
    try:
        return _offset_record(key, value) if topic == CONSUMER_OFFSETS else _txn_record(key, value)
    except CorruptRecordError as error:
        return {"problem": str(error)}


def _offset_record(key: bytes, value: bytes | None) -> dict[str, Any]:
    found = offset_records.decode_key(key)
    if found is None:
        return modern_records.told(key, value) or {"kind": "unknown"}
    if isinstance(found, str):
        if value is None:
            return {"kind": "group", "group": found, "deleted": True}
        group = offset_records.decode_group_value(value)
        return {
            "kind": "group",
            "group": found,
            "generation": group.generation,
            "protocol": group.protocol,
            "leader": group.leader,
            "members": [member.member_id for member in group.members],
        }
    entry: dict[str, Any] = {
        "kind": "offset",
        "group": found.group,
        "partition": str(found.topic_partition),
    }
    if value is None:
        return entry | {"deleted": True}
    offset, committed_ms = offset_records.decode_offset_value(value)
    return entry | {
        "offset": offset.offset,
        "metadata": offset.metadata,
        "committed": committed_ms,
    }


def _txn_record(key: bytes, value: bytes | None) -> dict[str, Any]:
    transactional_id = txn_records.decode_key(key)
    if transactional_id is None:
        return {"kind": "unknown"}
    if value is None:
        return {"kind": "transaction", "transactional_id": transactional_id, "deleted": True}
    found = txn_records.decode_value(transactional_id, value)
    return {
        "kind": "transaction",
        "transactional_id": transactional_id,
        "state": found.state.name,
        "producer_id": found.producer_id,
        "epoch": found.epoch,
        "timeout_ms": found.timeout_ms,
        "partitions": sorted(map(str, found.partitions)),
    }
