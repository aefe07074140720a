"""Rows of a data file by number, read when they are asked for: JSONL by byte offset, Parquet by row group.

Sources can be pickled and forked: no open file crosses into another process. They hold a few bytes a row; ids are
read when they are first asked for.
"""

from __future__ import annotations

import json
import os
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from riskva.csvfile import open_csv
from riskva.errors import DataError

Row = dict[str, Any]

ID_COLUMN = "id"

# Rows of a text file are read one by one; together they are about what prepared Parquet has in a row group.
_LINES_PER_GROUP = 64


MOST_GROUPS = 48
"""Row groups that a process keeps where rows come in the order of the files, some 2 MB each in prepared data."""

MOST_GROUP_BYTES = 256 << 20
"""Most that they may take together; but two are kept however large they are."""


class RowSource(Protocol):
    """The rows of one file."""

    path: Path
    largest_group: int
    """Bytes that must be in memory to read a row: those of the largest row group; 0 where rows are read singly."""

    @property
    def ids(self) -> pa.Array:
        """Each row's `id` cell, an array of texts; null where a row has none. The first call reads the file."""
        ...

    @property
    def group_starts(self) -> Sequence[int]:
        """The first row of each stretch that is best read as a whole, in order, and at the end the number of rows."""
        ...

    def __len__(self) -> int: ...

    def line(self, index: int) -> int:
        """The number, from 1, by which messages name row `index`: its line in a text file, else its position."""
        ...

    def row(self, index: int) -> Row:
        """Row `index` by column. Raises `DataError` with file and line when it cannot be read."""
        ...

    def rows_of(self, column: str) -> Iterator[Row]:
        """Every row with that column alone; of a Parquet file nothing else is read.

        A row that cannot be read is empty here; `row` says what is wrong with it.
        """
        ...


def open_source(path: Path, groups: RowGroups | None = None) -> RowSource:
    """The rows of a .jsonl, .json, .csv or .parquet file; Parquet files may share the `groups` that are in memory.

    Raises `DataError` when the file as a whole cannot be read; a single bad row shows when it is asked for.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return ParquetSource(path, groups)
    if suffix == ".csv":
        return _csv_source(path)
    if suffix == ".json" and _begins_with_bracket(path):
        return _json_source(path)
    return JsonlSource(path)


class JsonlSource:
    """One JSON object a line; blank lines are passed over."""

    largest_group = 0

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets = array("q")
        self._lines = array("q")
        offset = 0
        with path.open("rb") as stream:
            for number, text in enumerate(stream, start=1):
                if text.strip():
                    self._offsets.append(offset)
                    self._lines.append(number)
                offset += len(text)

    @cached_property
    def ids(self) -> pa.Array:
        with self.path.open("rb") as stream:
            return _texts(_id_in(text) for text in stream if text.strip())

    @property
    def group_starts(self) -> Sequence[int]:
        return _even_groups(len(self))

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

    def rows_of(self, column: str) -> Iterator[Row]:
        return _narrowed(self, column)


class MemorySource:
    """Rows held in memory: a JSON array or a CSV table."""

    largest_group = 0

    def __init__(self, path: Path, rows: Sequence[Any], lines: Sequence[int]) -> None:
        self.path = path
        self._rows = rows
        self._lines = lines

    @cached_property
    def ids(self) -> pa.Array:
        return _texts(map(id_of, self._rows))

    @property
    def group_starts(self) -> Sequence[int]:
        return _even_groups(len(self))

    def __len__(self) -> int:
        return len(self._rows)

    def line(self, index: int) -> int:
        return self._lines[index]

    def row(self, index: int) -> Row:
        return _checked_row(self._rows[index], f"{self.path}:{self.line(index)}")

    def rows_of(self, column: str) -> Iterator[Row]:
        return _narrowed(self, column)


class ParquetSource:
    """A Parquet file; row groups stay in memory as `groups` has it, by default the one that was read last."""

    def __init__(self, path: Path, groups: RowGroups | None = None) -> None:
        self.path = path
        self._groups = groups or RowGroups()
        try:
            with pq.ParquetFile(path) as file:
                metadata = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
                self._has_ids = ID_COLUMN in file.schema_arrow.names
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a readable Parquet file: {error}") from error
        self.largest_group = max((group.total_byte_size for group in metadata), default=0)
        self._starts = array("q", [0])
        for group in metadata:
            self._starts.append(self._starts[-1] + group.num_rows)

    @cached_property
    def ids(self) -> pa.Array:
        if not self._has_ids:
            return pa.nulls(len(self), pa.string())
        try:
            with pq.ParquetFile(self.path) as file:
                column = file.read([ID_COLUMN]).column(0)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.path}: its ids cannot be read ({error}); {_MEND}") from error
        return _texts(id_of({ID_COLUMN: value}) for chunk in column.chunks for value in chunk.to_pylist())

    @property
    def group_starts(self) -> Sequence[int]:
        return self._starts

    def __len__(self) -> int:
        return self._starts[-1]

    def line(self, index: int) -> int:
        return index + 1

    def row(self, index: int) -> Row:
        number = bisect_right(self._starts, index) - 1
        first, end = self._starts[number], self._starts[number + 1]
        try:
            return self._groups.row(self.path, number, index - first)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.path}: rows {first + 1} to {end} cannot be read ({error}); {_MEND}") from error

    def rows_of(self, column: str) -> Iterator[Row]:
        try:
            with pq.ParquetFile(self.path) as file:
                if column not in file.schema_arrow.names:
                    yield from ({} for _ in range(len(self)))
                    return
                for batch in file.iter_batches(columns=[column]):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.path}: column {column!r} cannot be read ({error}); {_MEND}") from error


_MEND = "copy or prepare the file again"


class RowGroups:
    """The row groups of Parquet files that this process has in memory: the `most` that were used last, if they fit.

    One whose rows have all been given out is dropped at once. Files stay open likewise, at most `_MOST_FILES`. Neither
    crosses into another process, by pickle or by fork. One object can serve many sources.
    """

    _MOST_FILES = 64

    def __init__(self, most: int = 1) -> None:
        self._most = most
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._files: OrderedDict[Path, pq.ParquetFile] = OrderedDict()
        self._groups: OrderedDict[tuple[Path, int], _Group] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"_most": self._most}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._most = state["_most"]
        self._forget()

    def row(self, path: Path, number: int, index: int) -> Row:
        """Row `index` of row group `number` of the file; Arrow's exceptions are left to the caller to explain."""
        if self._process != os.getpid():
            self._forget()
        key = (path, number)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(self._open(path).read_row_group(number, use_threads=False))
            self._make_room()
        self._groups.move_to_end(key)
        row: Row = group.table.slice(index, 1).to_pylist()[0]
        group.num_given += 1
        if group.num_given >= group.table.num_rows and self._most > 1:
            del self._groups[key]
        return row

    def _make_room(self) -> None:
        size = sum(group.table.nbytes for group in self._groups.values())
        while len(self._groups) > min(self._most, 2) and (len(self._groups) > self._most or size > MOST_GROUP_BYTES):
            size -= self._groups.popitem(last=False)[1].table.nbytes

    def _open(self, path: Path) -> pq.ParquetFile:
        if path not in self._files:
            self._files[path] = pq.ParquetFile(path)
            if len(self._files) > self._MOST_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(path)
        return self._files[path]


@dataclass
class _Group:
    table: pa.Table
    num_given: int = 0


def _narrowed(source: JsonlSource | MemorySource, column: str) -> Iterator[Row]:
    for index in range(len(source)):
        try:
            row = source.row(index)
        except DataError:
            row = {}
        yield {column: row[column]} if column in row else {}


def _even_groups(num_rows: int) -> Sequence[int]:
    return [*range(0, num_rows, _LINES_PER_GROUP), num_rows]


def _texts(texts: Iterable[str | None]) -> pa.Array:
    """Texts as Arrow keeps them, some twenty bytes each and nothing for the interpreter to count references of."""
    return pa.array(texts, pa.large_string())


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


def id_of(row: Any) -> str | None:
    """The row's `id` cell as text, None where it has none."""
    value = row.get(ID_COLUMN) if isinstance(row, dict) else None
    # Without halves of characters, which cannot be written; `row` reports them.
    return None if value in (None, "") else str(value).encode(errors="ignore").decode() or None


def _id_in(text: bytes) -> str | None:
    try:
        return id_of(_parsed(text, ""))
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
