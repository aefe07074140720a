"""Tables of defects: every row becomes a record or a bad row with its reason; none is guessed at, none is lost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from riskva.data.conversation import IMAGE_PLACEHOLDER
from riskva.data.csvfile import CsvFile, CsvRow, open_csv
from riskva.data.paths import is_file, is_folder
from riskva.data.registry import closest
from riskva.errors import DataError, MissingDataError, UnknownLevelError
from riskva.preparation.records import BadRow, DefectRecord
from riskva.report import ReportField, ReportFormat, RiskLevel, RiskReport, normalise_text

# What would be read as structure, not as text: the tokenizer's own marks, and the places of media.
_CONTROL = re.compile(r"<\|[A-Za-z_]+\|>|" + re.escape(IMAGE_PLACEHOLDER) + "|<video>|<audio>")


@dataclass(frozen=True)
class TableLayout:
    """Which columns a table must have, and what they mean."""

    report_format: ReportFormat
    id_column: str = "image_id"
    image_column: str = "image_path"
    group_by: str | None = None

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that must be there: all but those of answer fields with a default."""
        fields = [one.column for one in self.report_format.fields if one.default is None]
        group = [self.group_by] if self.group_by else []
        return tuple(dict.fromkeys([self.id_column, self.image_column, *fields, *group]))


@dataclass(frozen=True)
class Table:
    """An opened table: its file, encoding and columns are known to be right; its rows are yet to be read."""

    file: CsvFile
    layout: TableLayout
    photo_folder: Path

    @property
    def path(self) -> Path:
        return self.file.path

    def rows(self) -> Iterator[DefectRecord | BadRow]:
        """Each row, in order, as a record or as a bad row; rows with no text in any cell are passed over.

        That photos exist is checked, that they decode is not. Raises `DataError` when a quote never closes.
        """
        first_lines: dict[str, int] = {}
        for row in self.file.rows():
            try:
                yield self._record(row, first_lines)
            except _Bad as bad:
                cells = self.file.cells(row)
                sample_id = cells.get(self.layout.id_column, "").strip()
                photo_name = cells.get(self.layout.image_column, "")
                yield BadRow(row.line, sample_id, photo_name, bad.reason, bad.message)

    def _record(self, row: CsvRow, first_lines: dict[str, int]) -> DefectRecord:
        cells = self._cells(row)
        sample_id = _filled(cells, self.layout.id_column)
        first = first_lines.setdefault(sample_id, row.line)
        if first != row.line:
            raise _Bad("duplicate_id", f"{self.layout.id_column} {sample_id!r} stands on line {first} already")
        report = RiskReport(
            _level(cells, self.layout.report_format),
            {one.label: _answer_text(cells, one) for one in self.layout.report_format.fields if not one.is_level},
        )
        group = _filled(cells, self.layout.group_by) if self.layout.group_by else None
        name = _photo_name(_filled(cells, self.layout.image_column), self.photo_folder)
        photo = self.photo_folder / name
        if not is_file(photo):
            raise _Bad("image_missing", f"{self.layout.image_column}: no such file: {photo}")
        return DefectRecord(sample_id, row.line, photo, name, report, cells, group)

    def _cells(self, row: CsvRow) -> dict[str, str]:
        if fault := self.file.fault(row):
            raise _Bad(*fault)
        return self.file.cells(row)


def open_table(path: Path, layout: TableLayout, photo_folder: Path | None = None) -> Table:
    """The table at `path`, ready to be read; photos are looked for in `photo_folder` (default: the table's own).

    Raises `MissingDataError` without the file or folder, and `DataError` for an empty file, an encoding that is
    neither UTF-8 nor GBK/GB18030, or a column that is missing or stands twice.
    """
    folder = photo_folder or path.parent
    if not is_folder(folder):
        raise MissingDataError(f"{folder}: no such folder; image_base_path must name the one that holds the photos")
    file = open_csv(path, lambda header: set(layout.needed) <= set(header))
    missing = [name for name in layout.needed if name not in file.header]
    if missing:
        raise DataError(_missing_columns(file, missing))
    doubled = sorted({name for name in file.columns if file.columns.count(name) > 1})
    if doubled:
        raise DataError(f"{path}: columns stand twice: {', '.join(doubled)}; rename or remove one of each")
    return Table(file, layout, folder)


def read_table(path: Path, layout: TableLayout, photo_folder: Path | None = None) -> Iterator[DefectRecord | BadRow]:
    """Each row of the table at `path` as a record or a bad row; see `open_table` and `Table.rows` for errors."""
    yield from open_table(path, layout, photo_folder).rows()


class _Bad(Exception):
    """The way out of the checks of one row; it never leaves this module."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def _filled(cells: dict[str, str], column: str) -> str:
    text = cells[column].strip()
    if not text:
        raise _Bad("empty_field", f"{column} is empty")
    return text


def _level(cells: dict[str, str], report_format: ReportFormat) -> RiskLevel:
    one = next(one for one in report_format.fields if one.is_level)
    text = cells.get(one.column, "").strip() or one.default
    if not text:
        raise _Bad("empty_field", f"{one.column} is empty")
    try:
        return RiskLevel.from_label(text)
    except UnknownLevelError as error:
        raise _Bad("unknown_level", f"{one.column}: {error}") from error


def _answer_text(cells: dict[str, str], one: ReportField) -> str:
    text = normalise_text(cells.get(one.column, "")) or one.default
    if not text:
        raise _Bad("empty_field", f"{one.column} is empty")
    if mark := _CONTROL.search(text):
        raise _Bad("control_token", f"{one.column} holds {mark.group()!r}, which a model reads as structure; remove it")
    return text


def _photo_name(cell: str, folder: Path) -> str:
    """The photo's path relative to `folder`, with forward slashes (tables from Windows have the other ones)."""
    text = cell.replace("\\", "/")
    path = Path(text)
    if path.is_absolute():
        if not path.is_relative_to(folder.absolute()):
            raise _Bad("image_outside", f"{cell!r} lies outside the photo folder {folder}")
        path = path.relative_to(folder.absolute())
    parts: list[str] = []
    for part in PurePosixPath(path.as_posix()).parts:
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            raise _Bad("image_outside", f"{cell!r} leads out of the photo folder {folder}")
    return "/".join(parts)


def _missing_columns(file: CsvFile, missing: Sequence[str]) -> str:
    hints = [f"{name} (nearest: {near})" if (near := closest(name, file.columns)) else name for name in missing]
    message = f"{file.path}: columns missing: {', '.join(hints)}; found ({file.label}): {', '.join(file.columns)}."
    if len(file.header) == 1 and re.search(r"[;\t]", file.header[0]):
        return f"{message} The cells seem to be parted by semicolons or tabs; save the table with commas"
    return f"{message} Rename them, or name yours with id_column, image_column, answer_fields and group_by"
