"""Settings of the file source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from millstream.connect import SourceConfig, setting, settings

from .type_mapping import ColumnType, parse_columns

__all__ = ["FileSourceConfig"]

_FORMAT_BY_SUFFIX = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}


def _parse_nulls(given: Any) -> frozenset[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, (list, tuple, set, frozenset)):
        raise ValueError("must be a text or a list of texts")  # noqa: TRY004
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("must be a text or a list of texts")
    return frozenset(texts)


@settings
class FileSourceConfig(SourceConfig):
    """Settings of `FileSource`, beside those every source has."""

    path: str = setting(
        "The file, or a pattern like `logs/*.jsonl.gz`; several are read in order of their names."
    )
    format: str = setting(
        "`jsonl` or `csv`; by default what the file name says.",
        default="",
        choices=("", "jsonl", "csv"),
    )
    compression: str = setting(
        "`auto` (gzip when the name ends in .gz), `gzip` or `none`.",
        default="auto",
        choices=("auto", "gzip", "none"),
    )
    columns: dict[str, ColumnType] = setting(
        "CSV: columns and their types: str, int, float, bool, timestamp. Others are str.",
        default={},
        parse=parse_columns,
        type_name="table",
    )
    header: bool = setting(
        "CSV: the first row names the columns. Without it, `columns` names all, in order.",
        default=True,
    )
    delimiter: str = setting("CSV: the character between two fields.", default=",")
    null: frozenset[str] = setting(
        "CSV: the text, or texts, that stand for a missing value.",
        default="",
        parse=_parse_nulls,
        type_name="str or list",
    )
    key: str | None = setting("The field whose value is the record key.", default=None)
    timestamp: str | None = setting(
        "The field that is the record timestamp: ISO 8601 (UTC unless it says), or a number.",
        default=None,
    )
    timestamp_unit: str = setting(
        "What a number in the timestamp field counts since the epoch: s, ms or us.",
        default="ms",
        choices=("s", "ms", "us"),
    )
    batch_size: int = setting("The most records in one transaction.", default=5000, minimum=1)
    follow: bool = setting(
        "Go on reading what is appended, and new files. A run to the end never does.",
        default=True,
    )

    def faults(self) -> Iterator[tuple[str, str]]:
        """See `ConnectorConfig.faults`."""
        yield from super().faults()
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            yield "delimiter", "must be one character, and no quote or line end"
        if not self.header and not self.columns:
            yield "columns", "must name every column when `header` is false"
        if not self.header:
            for name in ("key", "timestamp"):
                column = getattr(self, name)
                if column is not None and column not in self.columns:
                    yield name, f"is not one of the columns: {', '.join(self.columns)}"
        file_format = self.format_of(self.path)
        if not file_format:
            yield "format", "must be given: the file's name does not end in .csv or .jsonl"
        if file_format == "jsonl" and self.columns:
            yield "columns", "is for CSV; JSON values have their types already"

    def packed(self, path: str) -> bool:
        """Whether the file is gzip."""
        if self.compression == "auto":
            return path.endswith(".gz")
        return self.compression == "gzip"

    def format_of(self, path: str) -> str:
        """`csv` or `jsonl`: as set, or as the file's name says, or else the pattern's.

        Empty when nothing says, which `faults` does not let pass.
        """
        return self.format or _format_named(path) or _format_named(self.path.rstrip("*"))


def _format_named(path: str) -> str:
    name = path.removesuffix(".gz")
    return next((kind for end, kind in _FORMAT_BY_SUFFIX.items() if name.endswith(end)), "")
