"""Files that hold tables, of any kind: which ones a recipe names, and how each gives its rows as text by column.

CSV and its kin are here; workbooks are in `workbook.py`, JSONL and Parquet made elsewhere in `data_files.py`.
"""

from __future__ import annotations

import datetime
import glob
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from riskva.csvfile import DELIMITERS, CsvFile, open_csv
from riskva.data.conversation import Photo
from riskva.errors import DataError, MissingDataError, RecipeError
from riskva.paths import is_file, is_folder

_TAB_SUFFIXES = (".tsv", ".tab", ".txt")


class RowFault(Exception):
    """The way out of the checks of one row: why it is bad. It never leaves `riskva.preparation`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class TableRow:
    """One row: the physical line it starts on and its texts by column, under the names that RisKVA has for them.

    `fault` is a short code and a message where the row cannot be used. Files made elsewhere may bring the `photo`
    itself (a `path` in it is yet to be looked up, by its `name`, and a picture may have no name) and the `answer` as
    one text.
    """

    line: int
    cells: Mapping[str, str] = field(default_factory=dict)
    fault: tuple[str, str] | None = None
    photo: Photo | None = None
    answer: str | None = None


class TableFile(Protocol):
    """A table whose kind and columns are known; its rows are yet to be read."""

    @property
    def path(self) -> Path: ...

    @property
    def label(self) -> str:
        """Kind and encoding in words for people."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the cells that rows have, as RisKVA calls them."""
        ...

    @property
    def holds_photos(self) -> bool:
        """Whether rows bring their `photo`, and no column names it."""
        ...

    @property
    def holds_answers(self) -> bool:
        """Whether rows bring their `answer`, and no columns spell it out."""
        ...

    def rows(self) -> Iterator[TableRow]:
        """Each row in order. Raises `DataError` when the rest of the file cannot be read."""
        ...


@dataclass(frozen=True)
class TextTable:
    """A CSV or TSV table; the header is already in our names."""

    file: CsvFile
    holds_photos: bool = False
    holds_answers: bool = False

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def label(self) -> str:
        return self.file.label

    @property
    def columns(self) -> tuple[str, ...]:
        return self.file.columns

    def rows(self) -> Iterator[TableRow]:
        """Each row in order; see `CsvFile.rows`."""
        for row in self.file.rows():
            yield TableRow(row.line, self.file.cells(row), self.file.fault(row))


def open_text_table(path: Path, column_names: Mapping[str, str], needed: Sequence[str]) -> TextTable:
    """The table of text at `path`, in the encoding and with the delimiter under which it has the columns `needed`.

    When there are none, the caller finds columns missing. Raises what `open_csv` raises.
    """
    marks = sorted(DELIMITERS, key=lambda mark: mark != "\t") if path.suffix.lower() in _TAB_SUFFIXES else [*DELIMITERS]
    file = open_csv(path, lambda header: set(needed) <= set(renamed(header, column_names)), marks)
    return TextTable(replace(file, header=renamed(file.header, column_names)))


def renamed(header: Sequence[str], column_names: Mapping[str, str]) -> tuple[str, ...]:
    """The names in `header` as RisKVA calls them."""
    return tuple(column_names.get(name, name) for name in header)


def cell_text(value: Any) -> str:
    """What a cell of a workbook or a data file says, as people would read it.

    Whole numbers have no `.0`, other numbers the 15 digits that Excel shows, dates are ISO, truth values are TRUE and
    FALSE as in Excel, and what is not there is empty.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float | Decimal):
        return str(int(value)) if _is_whole(value) else f"{value:.15g}"
    if isinstance(value, datetime.datetime):
        return _date_and_time(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def _is_whole(value: float | Decimal) -> bool:
    """Whether `value` is a whole number of which every digit is known."""
    return math.isfinite(value) and -1e15 < value < 1e15 and value == int(value)


def _date_and_time(value: datetime.datetime) -> str:
    is_date = value.tzinfo is None and value.time() == datetime.time()
    return value.date().isoformat() if is_date else value.isoformat(sep=" ")


def expand_paths(paths: Sequence[Path]) -> list[Path]:
    """The files that `paths` name, in their order; a pattern such as tables/*.csv stands for its matches, sorted.

    Raises `RecipeError` when `paths` is empty, `MissingDataError` when one leads to nothing, and `DataError` for a file
    that is named twice.
    """
    if not paths:
        raise RecipeError("csv_path names no table")
    first: dict[str, Path] = {}
    found = []
    for path in paths:
        for one in _matches(path):
            if not _is_writable(str(one)):
                raise DataError(f"csv_path: {str(one)!r}: the file's name is not UTF-8; rename the file")
            known = first.setdefault(os.path.realpath(one), one)
            if known is not one:
                raise DataError(f"csv_path: {one} is the same file as {known}, named before; name each table once")
            found.append(one)
    return found


def _is_writable(text: str) -> bool:
    """Whether `text` can be printed and written: names from a GBK archive hold bytes that are no text here."""
    return text.encode(errors="ignore").decode() == text


def _matches(path: Path) -> list[Path]:
    if is_file(path):
        return [path]
    if is_folder(path):
        raise MissingDataError(f"{path}: csv_path names a folder; name its tables, as in {path / '*.csv'}")
    # While Excel has a table open, a file ~$… lies beside it, which is none.
    found = [Path(one) for one in sorted(_globbed(path)) if not Path(one).name.startswith("~$")]
    files = [one for one in found if is_file(one)]
    if not files:
        what = "no file fits this pattern" if glob.has_magic(str(path)) else "no such file"
        raise MissingDataError(f"{path}: {what}; csv_path must name tables, or a pattern that fits some")
    return files


def _globbed(path: Path) -> list[str]:
    return glob.glob(str(path), recursive=True) if glob.has_magic(str(path)) else []  # noqa: PTH207 # absolute patterns
