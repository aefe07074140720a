"""CSV files as people save them: their encoding found strictly, every row with the physical line it starts on."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from riskva.errors import DataError, MissingDataError

ENCODINGS = ("utf-8-sig", "gb18030")
"""What tables are tried in, in this order. GB18030 holds GBK and GB2312; utf-8-sig is UTF-8 with or without a BOM."""

_CHUNK = 1 << 20
_FOREIGN_STARTS = {
    b"PK\x03\x04": "an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


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
    """A CSV file whose encoding and header are known; `label` names the encoding for people."""

    path: Path
    encoding: str
    label: str
    header: tuple[str, ...]

    def rows(self) -> Iterator[CsvRow]:
        """The rows below the header, in order; lines without any text are passed over.

        Raises `DataError` when a quoted cell never ends, since every row behind it would be lost in it.
        """
        rows = (row for row in _rows(self.path, self.encoding) if not row.is_blank)
        next(rows)
        yield from rows


def open_csv(path: Path, accepts: Callable[[Sequence[str]], bool] = bool) -> CsvFile:
    """The file at `path`, in the first of `ENCODINGS` that decodes all of it and gives a header that `accepts` takes.

    When none gives such a header, the first one that decodes the file counts, for the caller to say what is missing.
    Raises `MissingDataError` without the file, and `DataError` when it is empty, is no CSV, or nothing decodes it.
    """
    _check_is_text(path)
    failures, opened = [], []
    for encoding in ENCODINGS:
        try:
            _decode_all(path, encoding)
        except UnicodeDecodeError as error:
            failures.append(f"not {error.encoding} ({error.reason})")
            continue
        file = CsvFile(path, encoding, _label(path, encoding), _header(path, encoding))
        if accepts(file.header):
            return file
        opened.append(file)
    if opened:
        return opened[0]
    raise DataError(f"{path}: {', '.join(failures)}; save the table as CSV in UTF-8")


def _check_is_text(path: Path) -> None:
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; csv_path must name a CSV table")
    with path.open("rb") as stream:
        start = stream.read(8)
    for sign, kind in _FOREIGN_STARTS.items():
        if start.startswith(sign):
            raise DataError(f"{path}: this is {kind}, not a CSV table; save it as CSV in UTF-8")


def _decode_all(path: Path, encoding: str) -> None:
    with path.open(encoding=encoding, newline="") as stream:
        while stream.read(_CHUNK):
            pass


def _label(path: Path, encoding: str) -> str:
    if encoding == "gb18030":
        return "GBK/GB18030"
    with path.open("rb") as stream:
        return "UTF-8 with BOM" if stream.read(3) == b"\xef\xbb\xbf" else "UTF-8"


def _header(path: Path, encoding: str) -> tuple[str, ...]:
    first = next((row for row in _rows(path, encoding) if not row.is_blank), None)
    if first is None:
        raise DataError(f"{path}: the file is empty; expected a header row with the columns' names")
    if first.fault:
        raise DataError(f"{path}:{first.line}: the header is no CSV row: {first.fault}")
    return tuple(cell.strip() for cell in first.cells)


def _rows(path: Path, encoding: str) -> Iterator[CsvRow]:
    with path.open(encoding=encoding, newline="") as stream:
        reader = csv.reader(stream, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if _lost_the_rest(error):
                    raise DataError(
                        f"{path}:{line}: a quoted cell that begins in this row does not end ({error}); close the quote"
                    ) from error
                yield CsvRow((), line, reader.line_num, str(error))
            else:
                yield CsvRow(tuple(cells), line, reader.line_num)


def _lost_the_rest(error: csv.Error) -> bool:
    """Whether the parser ran away to the file's end, or into a cell of over 128 KB, in search of a closing quote."""
    return "end of data" in str(error) or "field limit" in str(error)
