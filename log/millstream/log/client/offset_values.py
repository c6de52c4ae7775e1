"""Offsets as callers write them: a bare number, or with a note."""

from __future__ import annotations

from collections.abc import Mapping

from millstream.log.record import OffsetAndMetadata, TopicPartition

__all__ = ["with_metadata"]


def with_metadata(
    offsets: Mapping[TopicPartition, int | OffsetAndMetadata],
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Each offset as an `OffsetAndMetadata`, without a note where none was given."""
    return {
        partition: offset if isinstance(offset, OffsetAndMetadata) else OffsetAndMetadata(offset)
        for partition, offset in offsets.items()
    }
