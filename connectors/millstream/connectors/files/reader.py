"""One file being read: from a committed place on, a batch of records at a time."""

from __future__ import annotations

from millstream.connect import SourceBatch, SourceOffset

from .chunks import open_chunks
from .config import FileSourceConfig
from .csv_rows import CsvFormat, read_header
from .json_lines import JsonLinesFormat
from .lines import LineReader
from .rows import FilePlace, FilePlaces, Format, rejections_of

__all__ = ["FileReader"]


class FileReader:
    """Reads one file from `committed` on (None: from its beginning). Blocks; used in a thread.

    With `tail`, a last line without a line feed is left until it is complete.

    Raises:
        OSError: the file cannot be opened.
        FatalConnectError: it is shorter than what was read of it before.
    """

    def __init__(
        self,
        path: str,
        config: FileSourceConfig,
        committed: SourceOffset | None,
        *,
        size_bytes_max: int,
        tail: bool,
    ) -> None:
        self.path = path
        self._config = config
        self._size_bytes_max = size_bytes_max
        self._tail = tail
        self._partition = {"file": path}
        self._place = FilePlace(**(committed or {}))
        self._format: Format | None = None
        self._lines = self._open(0 if self._has_header() else self._place.position)

    def _has_header(self) -> bool:
        return self._config.format_of(self.path) == "csv" and self._config.header

    def _open(self, position: int) -> LineReader:
        chunks = open_chunks(self.path, position, packed=self._config.packed(self.path))
        return LineReader(
            chunks,
            position=position,
            line=self._place.line if position else 0,
            size_bytes_max=self._size_bytes_max,
            tail=self._tail,
        )

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def read(self) -> SourceBatch | None:
        """The next records; None when there are no more complete ones.

        Raises:
            FatalConnectError: the file is damaged here, or its header does not fit the settings.
        """
        if self._format is None:
            self._format = self._make_format()
        if self._format is None or not (self._lines.lines or self._lines.fill()):
            return None
        lines = self._lines
        base = FilePlace(self._place.record, lines.line, lines.position)
        parsed = self._format.parse(lines, self._config.batch_size)
        if not parsed.lines_count:
            return None
        taken = lines.take(parsed.lines_count)
        places = FilePlaces(base, taken, parsed, lines.position)
        self._place = FilePlace(base.record + parsed.rows_count, lines.line, lines.position)
        return SourceBatch(
            self._config.topic,
            parsed.values,
            self._partition,
            offsets=places,
            end=self._place.as_offset(),
            keys=parsed.keys,
            timestamps=parsed.timestamps,
            rejections=rejections_of(parsed, places, self._partition),
            evidence=places,
        )

    def _make_format(self) -> Format | None:
        """The file's format; None while its header is not there yet."""
        if self._config.format_of(self.path) != "csv":
            return JsonLinesFormat(self._config, self._size_bytes_max)
        names: list[str] | None = list(self._config.columns)
        if self._has_header():
            names = read_header(self._lines, self.path, self._config, self._size_bytes_max)
            if names is None:
                return None
            self._go_on_behind_header()
        assert names is not None
        return CsvFormat(self._config, names, self._size_bytes_max)

    def _go_on_behind_header(self) -> None:
        if self._place.position > self._lines.position:
            self._lines.close()
            self._lines = self._open(self._place.position)
