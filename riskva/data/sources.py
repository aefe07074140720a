"""Rows of a data file by number, read when they are asked for: JSONL by byte offset, Parquet by row group.

Sources can be pickled and forked: no open file crosses into another process.
"""

from __future__ import annotations

import json
import os
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from riskva.data.csvfile import open_csv
from riskva.errors import DataError

Row = dict[str, Any]

ID_COLUMN = "id"


class RowSource(Protocol):
    """The rows of one file."""

    path: Path

    @property
    def ids(self) -> Sequence[str | None]:
        """Each row's `id` cell as text; None where a row has none."""
        ...

    def __len__(self) -> int: ...

    def line(self, index: int) -> int:
        """The number, from 1, by which messages name row `index`: its line in a text file, else its position."""
        ...

    def row(self, index: int) -> Row:
        """Row `index` by column. Raises `DataError` with file and line when it cannot be read."""
        ...


def open_source(path: Path) -> RowSource:
    """The rows of a .jsonl, .json, .csv or .parquet file.

    Raises `DataError` when the file as a whole cannot be read; a single bad row shows when it is asked for.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return ParquetSource(path)
    if suffix == ".csv":
        return _csv_source(path)
    if suffix == ".json" and _begins_with_bracket(path):
        return _json_source(path)
    return JsonlSource(path)


class JsonlSource:
    """One JSON object a line; blank lines are passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets = array("q")
        self._lines = array("q")
        self.ids: list[str | None] = []
        offset = 0
        with path.open("rb") as stream:
            for number, text in enumerate(stream, start=1):
                if text.strip():
                    self._offsets.append(offset)
                    self._lines.append(number)
                    self.ids.append(_id_in(text))
                offset += len(text)

    def __len__(self) -> int:
        return len(self._offsets)

    def line(self, index: int) -> int:
        return self._lines[index]

    def row(self, index: int) -> Row:
        # Opened for each row: a handle shared by forked workers would share its position, too.
        with self.path.open("rb") as stream:
            stream.seek(self._offsets[index])
            text = stream.readline()
        where = f"{self.path}:{self.line(index)}"
        return _checked_row(_parsed(text, where), where)


class MemorySource:
    """Rows held in memory: a JSON array or a CSV table."""

    def __init__(self, path: Path, rows: Sequence[Any], lines: Sequence[int]) -> None:
        self.path = path
        self._rows = rows
        self._lines = lines
        self.ids = [_id_of(row) for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def line(self, index: int) -> int:
        return self._lines[index]

    def row(self, index: int) -> Row:
        return _checked_row(self._rows[index], f"{self.path}:{self.line(index)}")


class ParquetSource:
    """A Parquet file; the row group that was read last stays in memory, as Arrow data."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with pq.ParquetFile(path) as file:
                groups = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
                names = file.schema_arrow.names
                ids = file.read([ID_COLUMN]).column(0).to_pylist() if ID_COLUMN in names else [None] * sum(groups)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a readable Parquet file: {error}") from error
        self.ids = [None if value is None else str(value) for value in ids]
        self._starts = [0]
        for size in groups:
            self._starts.append(self._starts[-1] + size)
        self._forget()

    def _forget(self) -> None:
        self._process: int | None = None
        self._file: pq.ParquetFile | None = None
        self._group: tuple[int, pa.Table] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": None, "_file": None, "_group": None}

    def __len__(self) -> int:
        return self._starts[-1]

    def line(self, index: int) -> int:
        return index + 1

    def row(self, index: int) -> Row:
        number = bisect_right(self._starts, index) - 1
        row: Row = self._read_group(number).slice(index - self._starts[number], 1).to_pylist()[0]
        return row

    def _read_group(self, number: int) -> pa.Table:
        if self._process != os.getpid():
            self._forget()
            self._process, self._file = os.getpid(), pq.ParquetFile(self.path)
        if self._group is None or self._group[0] != number:
            assert self._file is not None
            try:
                self._group = (number, self._file.read_row_group(number, use_threads=False))
            except (pa.ArrowException, OSError) as error:
                raise DataError(
                    f"{self.path}: rows {self._starts[number] + 1} to {self._starts[number + 1]} cannot be "
                    f"read ({error}); copy or prepare the file again"
                ) from error
        return self._group[1]


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON: {error}") from error


def _checked_row(row: Any, where: str) -> Row:
    """`row`, if it is an object of columns all of whose text can be written: JSON can spell halves of characters."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with columns, found {type(row).__name__}")
    for column, value in row.items():
        try:
            json.dumps([column, value], ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise DataError(
                f"{where}: column {column!r} holds {half!r}, half a character; write the text anew"
            ) from error
        except RecursionError as error:
            raise DataError(f"{where}: column {column!r} is nested too deeply") from error
    return row


def _id_of(row: Any) -> str | None:
    value = row.get(ID_COLUMN) if isinstance(row, dict) else None
    # Without halves of characters, which cannot be written; `row` reports them.
    return None if value in (None, "") else str(value).encode(errors="ignore").decode() or None


def _id_in(text: bytes) -> str | None:
    try:
        return _id_of(_parsed(text, ""))
    except DataError:
        return None  # `row` reports the bad line, with its number, to whoever asks for it


def _begins_with_bracket(path: Path) -> bool:
    with path.open("rb") as stream:
        start = stream.read(4096).decode("utf-8-sig", errors="replace")
    return start.lstrip().startswith("[")


def _json_source(path: Path) -> MemorySource:
    rows = _parsed(path.read_bytes(), str(path))
    return MemorySource(path, rows, range(1, len(rows) + 1))


def _csv_source(path: Path) -> MemorySource:
    file = open_csv(path)
    rows, lines = [], []
    for row in file.rows():
        if fault := file.fault(row):
            raise DataError(f"{path}:{row.line}: {fault[1]}")
        rows.append(file.cells(row))
        lines.append(row.line)
    return MemorySource(path, rows, lines)
