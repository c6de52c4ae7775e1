"""Producer ids: handed out once and never again, however often the log is opened.

A producer id that came back would make a new producer's first batch look like a duplicate of an old
one. So ids are taken in blocks: before the first of a block is given, the end of the block is on
disk. What is left of a block when the process ends is never used.

On disk, `producer-id-block`: text, the first id of the next block.
"""

from __future__ import annotations

from millstream.log.errors import StorageError
from millstream.log.settings import LONG_MAX
from millstream.log.storage.files import Files, replace_file
from millstream.log.storage.layout import PRODUCER_ID_FILE

__all__ = ["ProducerIds", "block_start"]

BLOCK_SIZE_COUNT = 1000  # Kafka's size: one write to disk for a thousand producers


class ProducerIds:
    """Allocates producer ids for one log."""

    def __init__(self, files: Files, folder: str) -> None:
        self._files = files
        self._path = f"{folder}/{PRODUCER_ID_FILE}"
        self._next = 0
        self._block_end = 0

    def take(self) -> int:
        """A producer id nobody ever had.

        Raises:
            StorageError: the block could not be written, or the file is damaged.
        """
        if self.is_empty:
            self.fill()
        self._next += 1
        return self._next - 1

    @property
    def is_empty(self) -> bool:
        """Whether `take` would have to write to the disk first."""
        return self._next == self._block_end

    def fill(self) -> None:
        """Take the next block, unless another who wanted one has. Raises StorageError as `take`
        does."""
        if not self.is_empty:
            return
        try:
            start = 0
            if self._files.exists(self._path):
                start = block_start(self._files.read_whole(self._path))
            replace_file(self._files, self._path, b"%d\n" % (start + BLOCK_SIZE_COUNT))
        except ValueError:
            raise StorageError(
                f"{self._path} is damaged: it must hold one number, greater than every producer id "
                "in use. Write one there, for instance 1000000000."
            ) from None
        except OSError as error:
            raise StorageError(
                f"{self._path} cannot be written ({error}), so no producer can start. Mend the "
                "disk, or make room on it, and try again."
            ) from error
        self._next, self._block_end = start, start + BLOCK_SIZE_COUNT


def block_start(data: bytes) -> int:
    """The first id of the next block, from the file's bytes.

    Raises:
        ValueError: they are no number, or one that leaves no room for producer ids.
    """
    text = data.decode("ascii").strip()
    if not text.isdigit() or (start := int(text)) > LONG_MAX - BLOCK_SIZE_COUNT:
        raise ValueError(text[:40])
    return start
