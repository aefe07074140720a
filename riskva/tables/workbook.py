"""Excel workbooks as tables: one sheet, read row by row, with the values that Excel saved for its formulas.

Needs openpyxl (the extra `xlsx`).
"""

from __future__ import annotations

import importlib.util
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from riskva.errors import DataError
from riskva.tables.table_files import TableRow, cell_text, renamed

SUFFIXES = (".xlsx", ".xlsm")
FOREIGN_SUFFIXES = (".xls", ".xlsb", ".ods", ".et", ".numbers")
"""Workbooks that openpyxl does not read."""

# What openpyxl and the libraries below it raise on a broken file.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    ParseError,
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    NotImplementedError,
    RuntimeError,
)
_ERROR = "e"  # openpyxl's data_type of a cell that shows #N/A, #REF! and so on


# It warns of what it leaves out, such as styles and drop-down lists: nothing that a table is made of. For the whole
# process, because `catch_warnings` would not be safe among threads.
warnings.filterwarnings("ignore", category=UserWarning, module="openpyxl")


@dataclass(frozen=True)
class Workbook:
    """One sheet of a workbook, whose header is known and already in our names; `label` names the sheet for people."""

    path: Path
    label: str
    sheet: str
    header: tuple[str, ...]
    header_line: int
    holds_photos: bool = False
    holds_answers: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for name in self.header if name)

    def rows(self) -> Iterator[TableRow]:
        """Each row below the header that has any text, with its number in the sheet.

        Raises `DataError` where the file is broken.
        """
        with _opened(self.path) as book:
            for line, cells in _filled_rows(book[self.sheet]):
                if line > self.header_line:
                    yield self._row(line, cells)

    def _row(self, line: int, cells: tuple[Any, ...]) -> TableRow:
        texts = [_text(cell) for cell in cells]
        named = {name: text for name, text in zip(self.header, _padded(texts, len(self.header)), strict=True) if name}
        return TableRow(line, named, self._fault(cells, texts))

    def _fault(self, cells: tuple[Any, ...], texts: list[str]) -> tuple[str, str] | None:
        for number, (cell, text) in enumerate(zip(cells, texts, strict=True)):
            name = self.header[number] if number < len(self.header) else ""
            if not name and text.strip():
                return "nameless_column", f"column {number + 1} holds {text!r} and has no name; name it in the header"
            if cell.data_type == _ERROR:
                return "formula_error", f"{name} shows {text}; mend the formula, or put a value in its place"
        return None


def open_workbook(path: Path, column_names: Mapping[str, str], sheet: str | None) -> Workbook:
    """The sheet named `sheet` of the workbook at `path`, or the first that is not hidden.

    Other sheets with rows are told in `label`.

    Raises `DataError` without openpyxl, for a file that is broken or locked with a password, for a sheet that is not
    there, and for one without any rows.
    """
    _check_readable(path)
    with _opened(path) as book:
        sheets = {one.title: one for one in book.worksheets}
        if sheet is not None and sheet not in sheets:
            raise DataError(f"{path}: no sheet {sheet!r}; excel_sheet can be: {', '.join(sheets)}")
        if not sheets:
            raise DataError(f"{path}: the workbook has no sheet with cells")
        name = sheet or next((one.title for one in book.worksheets if one.sheet_state == "visible"), next(iter(sheets)))
        unread = [other for other, one in sheets.items() if other != name and next(_filled_rows(one), None)]
        first = next(_filled_rows(sheets[name]), None)
        if first is None:
            others = f"; sheets with rows: {', '.join(unread)} (choose one with excel_sheet)" if unread else ""
            raise DataError(f"{path}: sheet {name!r} is empty; expected a header row with the columns' names{others}")
        header = renamed([_text(cell).strip() for cell in first[1]], column_names)
    return Workbook(path, _label(name, unread), name, _trimmed(header), first[0])


def _label(sheet: str, unread: list[str]) -> str:
    others = f", not read: {', '.join(repr(one) for one in unread)}" if unread else ""
    return f"Excel, sheet {sheet!r}{others}"


def _check_readable(path: Path) -> None:
    if path.suffix.lower() in FOREIGN_SUFFIXES:
        raise DataError(f"{path}: {path.suffix} workbooks cannot be read; save it as .xlsx, or as CSV in UTF-8")
    if importlib.util.find_spec("openpyxl") is None:
        raise DataError(f"{path}: reading Excel workbooks takes openpyxl; pip install openpyxl, or save as CSV")
    with path.open("rb") as stream:
        start = stream.read(8)
    if not start.startswith((b"PK", b"\xd0\xcf")):
        raise DataError(f"{path}: this is no Excel workbook; if it is text, call it .csv")
    if start.startswith(b"\xd0\xcf\x11\xe0"):
        raise DataError(
            f"{path}: this is an old Excel workbook, or one locked with a password; save it as .xlsx without a password"
        )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The workbook, which is closed again. All faults of the file are raised as `DataError`."""
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            yield book
        finally:
            book.close()
    except DataError:
        raise
    except _BROKEN as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"{path}: not a readable Excel workbook ({reason}); open it in Excel and save it anew"
        ) from error


def _filled_rows(sheet: Any) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The rows of `sheet` that hold any text, with their numbers from 1."""
    # The size that a sheet claims to have is wrong in files of some programs, and rows would be cut to it.
    sheet.reset_dimensions()
    for line, cells in enumerate(sheet.iter_rows(), start=1):
        if any(_text(cell).strip() for cell in cells):
            yield line, cells


def _text(cell: Any) -> str:
    # Excel writes the carriage return of a line break inside a cell as this.
    return cell_text(cell.value).replace("_x000D_", "")


def _padded(texts: list[str], width: int) -> list[str]:
    return (texts + [""] * width)[:width]


def _trimmed(header: tuple[str, ...]) -> tuple[str, ...]:
    """`header` without the nameless columns at its end, such as formatted but empty cells."""
    width = max((number for number, name in enumerate(header, start=1) if name), default=0)
    return header[:width]
