"""Tables of defects: every row becomes a record or a bad row with its reason; none is guessed at, none is lost.

Tables of any kind that `table_files`, `workbook` and `data_files` read are one stream of rows, in the recipe's order.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from riskva.columns import ID_COLUMN, IMAGE_COLUMN
from riskva.data.conversation import CONTROL_MARKS, Photo
from riskva.data.registry import closest
from riskva.errors import DataError, MissingDataError, UnknownLevelError
from riskva.level_names import DEFAULT_LEVEL_NAMES, LevelNames
from riskva.paths import is_folder
from riskva.report import ReportField, ReportFormat, RiskLevel, RiskReport, Unparsed, normalise_text
from riskva.tables import data_files, workbook
from riskva.tables.label_studio import without_bookkeeping
from riskva.tables.photo_lookup import PhotoLookup, named_photo
from riskva.tables.records import BadRow, DefectRecord
from riskva.tables.table_files import RowFault, TableFile, TableRow, expand_paths, open_text_table

# What may part a private prefix from the text behind it.
_SEPARATORS = re.compile(r"[\s:：,，、-]*")
_SPLIT_WORDS = {
    "train": ("训练", "训练集"),
    "val": ("验证", "验证集", "validation", "valid", "dev"),
    "test": ("测试", "测试集"),
}


@dataclass(frozen=True)
class TableLayout:
    """Which columns tables must have, and what they mean.

    `column_names` maps the tables' names to ours and is applied first: all other names are ours. `strip_patterns` maps
    a column to the regular expression of a private prefix. `splits` are the names that `split_column` may hold.
    Raises `RecipeError` for an expression that is none, and for a column renamed to nothing.
    """

    report_format: ReportFormat
    column_names: Mapping[str, str] = field(default_factory=dict)
    level_names: LevelNames = DEFAULT_LEVEL_NAMES
    strip_patterns: Mapping[str, str] = field(default_factory=dict)
    group_by: str | None = None
    group_pattern: str | None = None
    split_column: str | None = None
    splits: tuple[str, ...] = ()
    excel_sheet: str | None = None

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that must be there in a table that holds neither photos nor whole answers itself."""
        return (IMAGE_COLUMN, *self.needed_answers, *self.needed_marks)

    @property
    def needed_answers(self) -> tuple[str, ...]:
        """The columns of answer fields that have no default."""
        return tuple(dict.fromkeys(one.column for one in self.report_format.fields if one.default is None))

    @property
    def needed_marks(self) -> tuple[str, ...]:
        """The columns without which every row of a table would be bad, besides those of photo and answer."""
        group = self.group_by if self.group_pattern is None else None
        return tuple(name for name in (group, self.split_column) if name)


@dataclass(frozen=True)
class Tables:
    """Opened tables: their kinds, encodings and columns are known to be right; their rows are yet to be read."""

    files: tuple[TableFile, ...]
    layout: TableLayout
    given_folder: Path | None = None
    num_cut: Counter[str] = field(default_factory=Counter, compare=False)
    """Cells of each column that `strip_patterns` has cut, in the last pass over the rows."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of all tables, as RisKVA calls them, in order of first appearance."""
        return tuple(dict.fromkeys(name for file in self.files for name in file.columns))

    @property
    def names(self) -> tuple[str, ...]:
        """What rows call their table, file by file: its name, or its path where two have one name."""
        return tuple(_shown_names(self.files))

    @property
    def photo_folder(self) -> Path:
        """The folder that holds the photos: the one given, or what the tables' own folders have in common."""
        if self.given_folder is not None:
            return self.given_folder
        folders = {file.path.parent for file in self.files}
        return folders.pop() if len(folders) == 1 else Path(os.path.commonpath([one.absolute() for one in folders]))

    def photo_folders(self, file: TableFile) -> list[Path]:
        """Where the photos of one table are looked for, in order: in `photo_folder`, and beside a data file.

        Where no folder was given, each table's own.
        """
        own = file.path.parent
        if self.given_folder is None:
            return [own]
        if own != self.given_folder and file.path.suffix.lower() in data_files.SUFFIXES:
            return [self.given_folder, own]
        return [self.given_folder]

    def rows(self) -> Iterator[DefectRecord | BadRow]:
        """Each row of each table, in order, as a record or as a bad row; rows with no text in any cell are passed over.

        That photos exist is checked, that they decode is not. Raises `DataError` when the rest of a table cannot be
        read, as when a quote never closes.
        """
        ids = _Ids(self.names)
        self.num_cut.clear()
        number = 0
        for index, file in enumerate(self.files):
            reader = _Reader(self.layout, file, index, ids, PhotoLookup(self.photo_folders(file), IMAGE_COLUMN))
            for row in file.rows():
                yield reader.read(row, number)
                number += 1
            self.num_cut.update(reader.num_cut)


def open_tables(paths: Sequence[Path], layout: TableLayout, photo_folder: Path | None = None) -> Tables:
    """The tables that `paths` name, ready to be read; patterns such as tables/*.csv stand for what fits them.

    Photos are looked for in `photo_folder` (default: each table's own). Raises `MissingDataError` without a file or
    folder, and `DataError` for a file named twice, one that cannot be read, or columns that are missing or stand twice;
    the columns of all tables are told at once.
    """
    if photo_folder is not None and not is_folder(photo_folder):
        raise MissingDataError(
            f"{photo_folder}: no such folder; image_base_path must name the one that holds the photos"
        )
    tables = Tables(tuple(_opened(path, layout) for path in expand_paths(paths)), layout, photo_folder)
    _check_named_columns(tables)
    if faults := [fault for file in tables.files for fault in _column_faults(file, layout)]:
        raise DataError("\n".join(faults))
    return tables


def _opened(path: Path, layout: TableLayout) -> TableFile:
    return without_bookkeeping(_opened_whole(path, layout))


def _opened_whole(path: Path, layout: TableLayout) -> TableFile:
    suffix = path.suffix.lower()
    if suffix in (*workbook.SUFFIXES, *workbook.FOREIGN_SUFFIXES):
        return workbook.open_workbook(path, layout.column_names, layout.excel_sheet)
    if suffix in data_files.SUFFIXES:
        return data_files.open_data_file(path, layout.column_names, ID_COLUMN, IMAGE_COLUMN)
    return open_text_table(path, layout.column_names, layout.needed)


def _check_named_columns(tables: Tables) -> None:
    """Raise `DataError` when the recipe names a column that no table has."""
    layout = tables.layout
    known = list(tables.columns)
    # Whole answers have no columns, but their fields are known by them.
    spoken = [one.column for one in layout.report_format.fields if any(file.holds_answers for file in tables.files)]
    named = [("group_by", layout.group_by, known), ("split_column", layout.split_column, known)]
    named += [("strip_patterns", name, [*known, *spoken]) for name in layout.strip_patterns]
    for key, name, allowed in named:
        if name is not None and name not in allowed:
            raise DataError(f"{key}: no table has a column {_hinted(name, allowed)}; they have: {', '.join(allowed)}")


def _column_faults(file: TableFile, layout: TableLayout) -> Iterator[str]:
    needed = [*layout.needed_marks]
    needed += [] if file.holds_photos else [IMAGE_COLUMN]
    needed += [] if file.holds_answers else layout.needed_answers
    missing = [_hinted(name, file.columns) for name in layout.needed if name in needed and name not in file.columns]
    if missing:
        yield (
            f"{file.path}: columns missing: {', '.join(missing)}; found ({file.label}): {', '.join(file.columns)}. "
            "The header must be the first row with text. Say what columns are called here with column_names, as in "
            "{照片: image_path}; answer_fields, group_by and split_column say which ones are needed"
        )
    if doubled := [name for name, number in Counter(file.columns).items() if number > 1]:
        renaming = " (after column_names)" if set(doubled) & set(layout.column_names.values()) else ""
        yield f"{file.path}: columns stand twice{renaming}: {', '.join(doubled)}; rename or remove one of each"


def _hinted(name: str, columns: Sequence[str]) -> str:
    return f"{name} (nearest: {near})" if (near := closest(name, columns)) else name


def _shown_names(files: Sequence[TableFile]) -> list[str]:
    """What messages call the tables: their file names, or paths where two have the same one."""
    counts = Counter(file.path.name for file in files)
    return [file.path.name if counts[file.path.name] == 1 else str(file.path) for file in files]


class _Ids:
    """Which ids have stood where, over all tables; holds no more than each id and one number."""

    def __init__(self, tables: Sequence[str]) -> None:
        self.tables = tables
        self._first: dict[str, int] = {}

    def check(self, row_id: str, table: int, line: int) -> None:
        """Raise `RowFault` when `row_id` has stood somewhere else before."""
        here = line * len(self.tables) + table
        first = self._first.setdefault(row_id, here)
        if first != here:
            first_line, first_table = divmod(first, len(self.tables))
            where = "" if first_table == table else f"in {self.tables[first_table]} "
            raise RowFault("duplicate_id", f"{ID_COLUMN} {row_id!r} stands {where}on line {first_line} already")


class _Reader:
    """Reads the rows of one table, number `index` of all."""

    def __init__(self, layout: TableLayout, file: TableFile, index: int, ids: _Ids, photos: PhotoLookup) -> None:
        self._layout = layout
        self._file = file
        self._index = index
        self._ids = ids
        self._photos = photos
        self.num_cut = Counter[str]()
        self._strips = {name: re.compile(pattern) for name, pattern in layout.strip_patterns.items()}
        self._group_pattern = re.compile(layout.group_pattern) if layout.group_pattern is not None else None

    @property
    def _table(self) -> str:
        return self._ids.tables[self._index]

    @cached_property
    def _stem(self) -> str | None:
        """What ids begin with in a table that has none; a number tells tables of the same name apart."""
        if ID_COLUMN in self._file.columns:
            return None
        stem = Path(self._table).stem
        number = sum(Path(one).stem == stem for one in self._ids.tables[: self._index]) + 1
        return stem if number == 1 else f"{stem}.{number}"

    def read(self, row: TableRow, number: int) -> DefectRecord | BadRow:
        """The row as a record, or as a bad row with the first fault that it has."""
        cells = {name: self._stripped(name, text) for name, text in row.cells.items()}
        try:
            return self._record(row, cells, number)
        except RowFault as fault:
            row_id = cells.get(ID_COLUMN, "").strip() if self._stem is None else f"{self._stem}-{row.line}"
            photo = row.photo.name if row.photo else cells.get(IMAGE_COLUMN, "")
            return BadRow(number, self._table, row.line, row_id, photo, fault.reason, fault.message)

    def _record(self, row: TableRow, cells: Mapping[str, str], number: int) -> DefectRecord:
        if row.fault:
            raise RowFault(*row.fault)
        row_id = _filled(cells, ID_COLUMN) if self._stem is None else f"{self._stem}-{row.line}"
        self._ids.check(row_id, self._index, row.line)
        report, written = self._report(cells) if row.answer is None else self._parsed(row.answer)
        return DefectRecord(
            number=number,
            table=self._table,
            line=row.line,
            id=row_id,
            report=report,
            cells=cells,
            group=self._group(row.cells),
            split=self._split(cells),
            level_as_written=written,
            photo=self._photo(row, cells, row_id),
        )

    def _stripped(self, column: str, text: str) -> str:
        """`text` without its private prefix, if it has one, and without what parts that from the rest."""
        pattern = self._strips.get(column)
        match = pattern.match(text.strip()) if pattern else None
        if match is None or not match.group():
            return text
        self.num_cut[column] += 1
        rest = text.strip()[match.end() :]
        return _SEPARATORS.sub("", rest, count=1)

    def _report(self, cells: Mapping[str, str]) -> tuple[RiskReport, str | None]:
        fields = self._layout.report_format.fields
        level, written = self._level(cells, next(one for one in fields if one.is_level))
        texts = {one.label: _answer_text(cells.get(one.column, ""), one) for one in fields if not one.is_level}
        return RiskReport(level, texts), written

    def _level(self, cells: Mapping[str, str], one: ReportField) -> tuple[RiskLevel, str | None]:
        text = cells.get(one.column, "")
        if not text.strip() and not one.default:
            raise RowFault("empty_field", f"{one.column} is empty")
        try:
            if text.strip():
                return self._layout.level_names.level(text)
            return self._layout.level_names.level(one.default or "")[0], None
        except UnknownLevelError as error:
            raise RowFault("unknown_level", f"{one.column}: {error}") from error

    def _parsed(self, answer: str) -> tuple[RiskReport, None]:
        report = self._layout.report_format.parse(answer)
        if isinstance(report, Unparsed):
            raise RowFault("answer_unparsed", f"the last answer is no report: {report.reason}")
        fields = [one for one in self._layout.report_format.fields if not one.is_level]
        texts = {one.label: self._stripped(one.column, report.texts[one.label]) for one in fields}
        return RiskReport(report.level, {one.label: _answer_text(texts[one.label], one) for one in fields}), None

    def _group(self, cells: Mapping[str, str]) -> str | None:
        """What must stay together, read before any prefix is cut off: the prefix is often just that."""
        column = self._layout.group_by
        if column is None:
            return None
        if self._group_pattern is None:
            return _filled(cells, column)
        match = self._group_pattern.search(cells.get(column, ""))
        return (match[1] if match.re.groups else match[0]) or None if match else None

    def _split(self, cells: Mapping[str, str]) -> str | None:
        column, splits = self._layout.split_column, self._layout.splits
        if column is None:
            return None
        word = cells.get(column, "").strip()
        name = next((name for name in splits if word == name or word in _SPLIT_WORDS.get(name, ())), None)
        if name is None:
            raise RowFault("unknown_split", f"{column}: {word!r} is none of the splits {', '.join(splits)}")
        return name

    def _photo(self, row: TableRow, cells: Mapping[str, str], row_id: str) -> Photo:
        if row.photo is None:
            return self._photos.find(_filled(cells, IMAGE_COLUMN))
        return named_photo(row.photo, row_id) if row.photo.data is not None else self._photos.find(row.photo.name)


def _filled(cells: Mapping[str, str], column: str) -> str:
    text = cells.get(column, "").strip()
    if not text:
        raise RowFault("empty_field", f"{column} is empty")
    return text


def _answer_text(cell: str, one: ReportField) -> str:
    text = normalise_text(cell) or one.default
    if not text:
        raise RowFault("empty_field", f"{one.column} is empty")
    if mark := CONTROL_MARKS.search(text):
        message = f"{one.column} holds {mark.group()!r}, which a model reads as structure; remove it"
        raise RowFault("control_token", message)
    return text
