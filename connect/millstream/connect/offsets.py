"""Where sources are: the compacted topic `connect-offsets`, in Kafka Connect's format.

A record's key is the JSON `[connector, source partition]`, its value the JSON source offset; a null
value forgets the partition. A source's offsets are written in the transaction of the records they
stand for, so the newest committed one is always exactly behind the newest committed record.
"""

from __future__ import annotations

import orjson

from millstream.log import Log

from .api import partition_key
from .errors import FatalConnectError
from .reading import read_to_end
from .records import SourceOffset, SourcePartition

__all__ = ["OFFSETS_TOPIC", "ensure_offsets_topic", "offset_record", "read_offsets"]

OFFSETS_TOPIC = "connect-offsets"

_OFFSETS_CONFIG = {"cleanup.policy": "compact"}


async def ensure_offsets_topic(log: Log) -> None:
    """Create the offsets topic when it is not there."""
    await log.create_topic(OFFSETS_TOPIC, partitions=1, config=_OFFSETS_CONFIG, exist_ok=True)


def offset_record(
    connector: str, partition: SourcePartition, offset: SourceOffset | None
) -> tuple[bytes, bytes | None]:
    """Key and value of the record that says where `partition` is; None for `offset` forgets it.

    Raises:
        FatalConnectError: partition or offset is not made of JSON values.
    """
    try:
        key = orjson.dumps([connector, dict(partition)], option=orjson.OPT_SORT_KEYS)
        return key, None if offset is None else orjson.dumps(dict(offset))
    except TypeError as error:
        raise FatalConnectError(
            f"connector {connector!r}: source partition {partition!r} and offset {offset!r} must "
            f"be JSON values: {error}"
        ) from error


async def read_offsets(log: Log, connector: str) -> dict[bytes, SourceOffset]:
    """The committed source offset of each source partition of a connector, by `api.partition_key`.

    Call it after the task's producer has fenced its predecessors: until then one of them may still
    commit.
    """
    offsets: dict[bytes, SourceOffset] = {}
    async for batch in read_to_end(log, OFFSETS_TOPIC):
        for key, value in zip(batch.keys, batch.values, strict=True):
            name, partition = orjson.loads(key or b"[null,{}]")
            if name != connector:
                continue
            known_as = partition_key(partition)
            if value is None:
                offsets.pop(known_as, None)
            else:
                offsets[known_as] = orjson.loads(value)
    return offsets
