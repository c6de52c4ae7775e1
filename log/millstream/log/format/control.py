"""Control batches: the markers that end a transaction in a partition (KIP-98).

A control batch holds one record. Its key is int16 version, int16 type (0 abort, 1 commit); its
value int16 version, int32 epoch of the transaction coordinator that wrote it.
"""

from __future__ import annotations

import struct
from typing import Literal

from millstream.log.errors import CorruptRecordError

from .codec import Columns, encode_batch

__all__ = ["control_type", "encode_control_batch"]

KEY = struct.Struct(">hh")
VALUE = struct.Struct(">hi")
VERSION = 0
ABORT = 0
COMMIT = 1


def encode_control_batch(
    *, producer_id: int, producer_epoch: int, commit: bool, coordinator_epoch: int, timestamp: int
) -> bytes:
    """A marker that commits or aborts what `producer_id` wrote. Base offset 0, never compressed."""
    return encode_batch(
        [KEY.pack(VERSION, COMMIT if commit else ABORT)],
        [VALUE.pack(VERSION, coordinator_epoch)],
        [timestamp],
        None,
        0,
        1,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        transactional=True,
        control=True,
    )


def control_type(columns: Columns) -> Literal["commit", "abort"] | None:
    """What the one record of a control batch says; None for the types that end no transaction, and
    where compaction left no record: nothing of the transaction is there then.

    Readers skip types they do not know, as Kafka's consumers do: a later version may add some.

    Raises:
        CorruptRecordError: the batch holds more than one record, or one without a control key.
    """
    if not columns.keys:
        return None
    key = columns.keys[0] if len(columns.keys) == 1 else None
    if key is None or len(key) < KEY.size:
        raise CorruptRecordError(
            f"a control batch holds one record with a key of {KEY.size} bytes, this one "
            f"({len(columns.keys)} records, offsets {columns.offsets}) does not"
        )
    version, kind = KEY.unpack_from(key)
    if version < 0:
        raise CorruptRecordError(f"control record version {version} at offset {columns.offsets[0]}")
    if kind == COMMIT:
        return "commit"
    return "abort" if kind == ABORT else None
