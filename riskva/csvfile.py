"""CSV files as people save them: encoding and delimiter found strictly, every row with the line it starts on."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from riskva.errors import DataError, MissingDataError
from riskva.paths import is_file

ENCODINGS = ("utf-8-sig", "gb18030")
"""What tables are tried in, in this order. GB18030 holds GBK and GB2312; utf-8-sig is UTF-8 with or without a BOM.

A file that begins with a BOM has said itself what it is, and is tried in nothing else.
"""

DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons"}
"""What may part cells, and what messages call it."""

_CHUNK = 1 << 20
# Byte order marks and blanks without width: programs leave them in headers, where nobody sees them.
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"
_FOREIGN_STARTS = {
    b"PK\x03\x04": "an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\xff\xfe\x00\x00": "UTF-32 text",
}
_MARKED_ENCODINGS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_LABELS = {"utf-8-sig": "UTF-8", "gb18030": "GBK/GB18030", "utf-16": "UTF-16"}

# Codes that GBK leaves to its users, and where Big5 keeps its commonest characters: text that has them is not GBK.
# U+E5E5 is left out: old Chinese software writes it for a blank.
_FOREIGN_TO_GBK = re.compile("[\ue4c6-\ue5e4\ue5e6-\ue765]")


@dataclass(frozen=True)
class CsvRow:
    """The cells of one row and the physical lines, from 1, that it stands on; `fault` when its quotes do not fit."""

    cells: tuple[str, ...]
    line: int
    last_line: int
    fault: str | None = None

    @property
    def is_blank(self) -> bool:
        return self.fault is None and not any(cell.strip() for cell in self.cells)


@dataclass(frozen=True)
class CsvFile:
    """A CSV file whose encoding, delimiter and header are known; `label` names the first two for people."""

    path: Path
    encoding: str
    label: str
    header: tuple[str, ...]
    delimiter: str = ","

    @property
    def columns(self) -> tuple[str, ...]:
        """The header's names without the nameless columns, such as Excel leaves at the end."""
        return tuple(name for name in self.header if name)

    def rows(self) -> Iterator[CsvRow]:
        """The rows below the header, in order; lines without any text are passed over.

        Raises `DataError` when a quote is left open, since the rows behind it would be lost in its cell.
        """
        every = _rows(self.path, self.encoding, self.delimiter, len(self.header))
        rows = (row for row in every if not row.is_blank)
        next(rows)
        yield from rows

    def fault(self, row: CsvRow) -> tuple[str, str] | None:
        """A short code and a message when `row` does not fit the header, None when it does."""
        lines = f" (lines {row.line} to {row.last_line}: is a quote left open?)" if row.last_line > row.line else ""
        if row.fault:
            return "malformed_row", f"quotes do not fit ({row.fault}){lines}; double a quote inside a quoted cell"
        if len(row.cells) != len(self.header):
            counts = f"{len(row.cells)} cells, the header has {len(self.header)}{lines}"
            return "wrong_cell_count", f"{counts}; quote cells with {DELIMITERS[self.delimiter]}"
        for number, (name, cell) in enumerate(zip(self.header, row.cells, strict=True), start=1):
            if not name and cell.strip():
                return "nameless_column", f"column {number} holds {cell!r} and has no name; name it in the header"
        return None

    def cells(self, row: CsvRow) -> dict[str, str]:
        """The cells of `row` by column, as far as it has them and they are named."""
        return {name: cell for name, cell in zip(self.header, row.cells, strict=False) if name}


def open_csv(
    path: Path, accepts: Callable[[Sequence[str]], bool] = bool, delimiters: Sequence[str] = (",",)
) -> CsvFile:
    """The file at `path`, in the first encoding that decodes all of it and gives a header that `accepts` takes.

    Of several `delimiters`, the one under which `accepts` takes the header counts. When there is no such header, the
    first encoding and the delimiter that gives the most columns count, for the caller to say what is missing.
    Raises `MissingDataError` without the file, and `DataError` when it is empty, is no CSV, nothing decodes it, or
    two delimiters fit.
    """
    failures: list[str] = []
    opened: list[CsvFile] = []
    for encoding in _encodings(path):
        if failure := _decoding_fault(path, encoding):
            failures.append(failure)
            continue
        files = _readings(path, encoding, delimiters)
        if fitting := [file for file in files if accepts(file.header)]:
            return _only(fitting)
        opened = opened or files
    if opened:
        return max(opened, key=lambda file: len(file.header))
    raise DataError(f"{path}: {', '.join(failures)}; save the table as CSV in UTF-8")


def text_encoding(path: Path) -> str:
    """The first encoding that decodes all of the text file at `path`, as for tables.

    Raises `MissingDataError` without the file, and `DataError` when nothing decodes it.
    """
    failures = []
    for encoding in _encodings(path):
        if failure := _decoding_fault(path, encoding):
            failures.append(failure)
        else:
            return encoding
    raise DataError(f"{path}: {', '.join(failures)}; save it as text in UTF-8")


def _encodings(path: Path) -> tuple[str, ...]:
    """What the file may be written in, as its first bytes tell. Raises `DataError` when it is no text at all."""
    if not is_file(path):
        raise MissingDataError(f"{path}: no such file; name a CSV table")
    with path.open("rb") as stream:
        start = stream.read(8)
    for sign, kind in _FOREIGN_STARTS.items():
        if start.startswith(sign):
            raise DataError(f"{path}: this is {kind}, not a CSV table; save it as CSV in UTF-8")
    return next(((name,) for sign, name in _MARKED_ENCODINGS.items() if start.startswith(sign)), ENCODINGS)


def _decoding_fault(path: Path, encoding: str) -> str | None:
    """Why the file is not written in `encoding`, or None when all of it decodes."""
    try:
        with path.open(encoding=encoding, newline="") as stream:
            while text := stream.read(_CHUNK):
                if encoding == "gb18030" and _FOREIGN_TO_GBK.search(text):
                    return "not gb18030 (characters that GBK does not define; is it Big5?)"
    except UnicodeDecodeError as error:
        return f"not {error.encoding} ({error.reason})"
    return None


def _readings(path: Path, encoding: str, delimiters: Sequence[str]) -> list[CsvFile]:
    """The file as each delimiter has it. Raises the first one's `DataError` when none leads to a header."""
    files, faults = [], []
    for delimiter in delimiters:
        try:
            header = _header(path, encoding, delimiter)
        except DataError as error:
            faults.append(error)
        else:
            files.append(CsvFile(path, encoding, _label(path, encoding, delimiter), header, delimiter))
    if not files:
        raise faults[0]
    return files


def _only(files: Sequence[CsvFile]) -> CsvFile:
    if len(files) > 1:
        names = " and with ".join(DELIMITERS[file.delimiter] for file in files)
        raise DataError(
            f"{files[0].path}: the header can be read with {names} between cells; quote names that hold one of them"
        )
    return files[0]


def _label(path: Path, encoding: str, delimiter: str) -> str:
    with path.open("rb") as stream:
        mark = " with BOM" if stream.read(3) == b"\xef\xbb\xbf" else ""
    parted = "" if delimiter == "," else f", parted by {DELIMITERS[delimiter]}"
    return f"{_LABELS[encoding]}{mark}{parted}"


def _header(path: Path, encoding: str, delimiter: str) -> tuple[str, ...]:
    first = next((row for row in _rows(path, encoding, delimiter) if not row.is_blank), None)
    if first is None:
        raise DataError(f"{path}: the file is empty; expected a header row with the columns' names")
    if first.fault:
        raise DataError(f"{path}:{first.line}: the header is no CSV row: {first.fault}")
    return tuple(cell.strip().strip(_INVISIBLE).strip() for cell in first.cells)


def _rows(path: Path, encoding: str, delimiter: str, width: int = 0) -> Iterator[CsvRow]:
    """All rows, the header too; with its `width` in cells, rows that swallowed others are found."""
    with path.open(encoding=encoding, newline="") as stream:
        lines: list[str] = []
        reader = csv.reader(_kept(stream, lines), strict=True, delimiter=delimiter)
        while True:
            lines.clear()
            line = reader.line_num + 1
            try:
                row = CsvRow(tuple(next(reader)), line, reader.line_num)
            except StopIteration:
                return
            except csv.Error as error:
                if _lost_the_rest(error):
                    raise DataError(
                        f"{path}:{line}: a quoted cell that begins in this row does not end, or a cell is over "
                        f"128 KB long ({error}); close the quote"
                    ) from error
                row = CsvRow((), line, reader.line_num, str(error))
            if width > 2 and _swallowed_rows(lines, width, delimiter):
                raise DataError(
                    f"{path}:{line}: the row that begins here runs on to line {row.last_line}, over lines that are "
                    'rows themselves: a quote is left open; close it, or double it ("") where it is part of the text'
                )
            yield row


def _kept(stream: Iterable[str], lines: list[str]) -> Iterator[str]:
    for line in stream:
        lines.append(line)
        yield line


def _swallowed_rows(lines: Sequence[str], width: int, delimiter: str) -> bool:
    """Whether most of what follows the first of a row's physical `lines` is rows of `width` cells, and not text.

    Text with line breaks may hold a line with just as many commas by accident. So few such lines count only if the
    first line is a whole row as well, which it is not where a cell is broken off.
    """
    others = [line for line in lines[1:] if line.strip()]
    whole = [line for line in others if _num_cells(line, csv.QUOTE_MINIMAL, delimiter) == width]
    if 2 * len(whole) <= len(others):
        return False
    return len(whole) > 2 or _num_cells(lines[0], csv.QUOTE_NONE, delimiter) >= width


def _num_cells(line: str, quoting: Literal[0, 3], delimiter: str) -> int:
    try:
        return len(next(csv.reader([line], quoting=quoting, delimiter=delimiter), []))
    except csv.Error:
        return 0  # a cell of over 128 KB


def _lost_the_rest(error: csv.Error) -> bool:
    """Whether the parser ran away to the file's end, or into a cell of over 128 KB, in search of a closing quote."""
    return "end of data" in str(error) or "field limit" in str(error)
