"""Who commits offsets in a transaction, as librdkafka wants it from Python: as bytes.

A consumer answers `CGMDv2:`, the generation in 32 bits of the machine's order, the group, the
member id, whether there is a group.instance.id (0) or not (1), and that one; texts end with 0.
"""

from __future__ import annotations

import struct

from millstream.log.errors import UnsupportedError
from millstream.log.record import ConsumerGroupMetadata

__all__ = ["group_metadata_from", "group_metadata_to"]

_MAGIC = b"CGMDv2:"
_GENERATION = struct.Struct("=i")


def group_metadata_from(data: bytes) -> ConsumerGroupMetadata:
    """What a consumer of confluent-kafka answers.

    Raises:
        UnsupportedError: the library writes it in another way by now.
    """
    start = len(_MAGIC)
    rest = data[start + _GENERATION.size :]
    parts = rest.split(b"\0", 2)
    if not data.startswith(_MAGIC) or len(parts) != 3 or not parts[2]:
        raise UnsupportedError(
            f"confluent-kafka describes a group's member as {data[:16]!r}, which this version of "
            "Millstream cannot read. Install confluent-kafka 2.8 to 2.16, or a newer Millstream."
        )
    group, member_id, last = parts
    instance_id = None if last[0] else last[1:].rstrip(b"\0").decode()
    (generation,) = _GENERATION.unpack_from(data, start)
    return ConsumerGroupMetadata(group.decode(), generation, member_id.decode(), instance_id)


def group_metadata_to(group: str | ConsumerGroupMetadata) -> bytes:
    """What a producer of confluent-kafka takes."""
    if isinstance(group, str):
        group = ConsumerGroupMetadata(group)
    instance = b"\1" if group.group_instance_id is None else b"\0"
    if group.group_instance_id is not None:
        instance += group.group_instance_id.encode() + b"\0"
    texts = f"{group.group}\0{group.member_id}\0".encode()
    return _MAGIC + _GENERATION.pack(group.generation) + texts + instance
