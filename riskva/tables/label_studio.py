"""Label Studio's exports as tables: each annotated task is a row, whose texts are what a person said of the photo.

The full export (JSON) is a list of tasks. The newest annotation that was not cancelled counts; the controls of the
labelling config are columns, and so is all text in `data`:

    [{"id": 7, "data": {"image_id": "r1", "image_path": "photos/r1.jpg", "房屋": "3栋"}, "annotations": [
      {"was_cancelled": false, "updated_at": "2026-05-06T07:08:09.1Z", "result": [
        {"from_name": "data_风险", "to_name": "…", "type": "textarea", "value": {"text": ["渗水"]}},
        {"from_name": "data_风险等级", "to_name": "…", "type": "choices", "value": {"choices": ["中等"]}}]}]}]

JSON-MIN and CSV have a flat row for an annotation, and columns of Label Studio's own, which are left out here as a
person's name may stand in them: `{"image_id": "r1", …, "data_风险": "渗水", "annotator": 1, "annotation_id": 9, …}`.
There a task that two people annotated is two rows, of which the second is a duplicate.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from riskva.columns import GROUP_COLUMN, ID_COLUMN, SHOWN_COLUMNS
from riskva.data.sources import ID_COLUMN as ROW_ID_COLUMN
from riskva.data.sources import Row, RowSource
from riskva.errors import DataError
from riskva.tables.table_files import RowFault, TableFile, TableRow, cell_text

# Which part of a result's value holds what was said, by the type of its control. All others draw, rank or rate.
_TEXTS_OF = {"textarea": "text", "choices": "choices"}

_BOOKKEEPING = (
    ROW_ID_COLUMN,
    "annotator",
    "annotation_id",
    "created_at",
    "updated_at",
    "lead_time",
    "was_cancelled",
    "agreement",
)
_TELLING = {"annotator", "annotation_id", "lead_time"}
_OURS = {GROUP_COLUMN, *SHOWN_COLUMNS}

_NOT_ANNOTATED = "nobody has annotated this task; submit it in Label Studio and export again"
_CANCELLED = "whoever was to annotate this task skipped it; submit it in Label Studio, or leave it out of the export"


@dataclass(frozen=True)
class TaskFile:
    """A full export whose columns are known.

    `data_names` and `control_names` map names in `data` and names of controls to ours. What a control has no result for
    is empty, whatever `data` says of it: a person may have deleted it.
    """

    path: Path
    label: str
    source: RowSource
    data_names: Mapping[str, str]
    control_names: Mapping[str, str]
    holds_photos: bool = False
    holds_answers: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.data_names.values(), *self.control_names.values())

    def rows(self) -> Iterator[TableRow]:
        """Each task in order; one that nobody annotated, or that has another shape, has a `fault`."""
        for index in range(len(self.source)):
            yield self._row(index)

    def _row(self, index: int) -> TableRow:
        line, cells = self.source.line(index), dict[str, str]()
        try:
            task = _task(self.source, index)
            data = _data(task)
            cells = {ours: _shown(data.get(name)) for name, ours in self.data_names.items()}
            if nested := next((name for name in self.data_names if _is_nested(data.get(name))), None):
                raise RowFault(
                    "malformed_row", f"data: {nested} holds {_kind(data[nested])}; expected text or a number"
                )
            said = _said(task)
        except RowFault as fault:
            return TableRow(line, cells, (fault.reason, fault.message))
        return TableRow(line, cells | {ours: said.get(name, "") for name, ours in self.control_names.items()})


@dataclass(frozen=True)
class FlatExport:
    """A flat export, JSON-MIN or CSV, without the columns that Label Studio has added."""

    file: TableFile

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def label(self) -> str:
        return f"{self.file.label}, of Label Studio"

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for name in self.file.columns if name not in _OURS and name not in _BOOKKEEPING)

    @property
    def holds_photos(self) -> bool:
        return self.file.holds_photos

    @property
    def holds_answers(self) -> bool:
        return self.file.holds_answers

    def rows(self) -> Iterator[TableRow]:
        """Each annotation in order; see the file's own `rows`."""
        for row in self.file.rows():
            cells = {name: _plain(row.cells[name]) for name in self.columns if name in row.cells}
            is_cancelled = row.cells.get("was_cancelled", "").lower() == "true"
            fault = ("annotation_cancelled", _CANCELLED) if is_cancelled else row.fault
            yield replace(row, cells=cells, fault=fault)


def without_bookkeeping(file: TableFile) -> TableFile:
    """`file` as it is, or as a `FlatExport` where its columns show that it is one."""
    return FlatExport(file) if set(file.columns) >= _TELLING else file


def holds_tasks(source: RowSource) -> bool:
    """Whether the first row that can be read is a task of Label Studio, exported or yet to be imported."""
    for index in range(len(source)):
        try:
            row = source.row(index)
        except DataError:
            continue
        return isinstance(row.get("data"), dict) and ("annotations" in row or "predictions" in row)
    return False


def open_tasks(path: Path, source: RowSource, column_names: Mapping[str, str]) -> TaskFile:
    """The full export at `path`; its columns are those of all its tasks.

    Raises `DataError` when no task is annotated: it may be the file that was imported, not an export.
    """
    kinds, controls, faults = dict[str, set[bool]](), dict[str, None](), list[str]()
    for index in range(len(source)):
        try:
            task = _task(source, index)
            for name, value in _data(task).items():
                kinds.setdefault(name, set()).update([] if value is None else [_is_nested(value)])
            controls.update(dict.fromkeys(_said(task)))
        except RowFault as fault:
            faults.append(f"{path}:{source.line(index)}: {fault.message}")
    if len(faults) == len(source):
        raise DataError(f"{path}: none of its {len(source)} tasks can be used; the first:\n  {faults[0]}")
    texts = [name for name, kind in kinds.items() if kind != {True} and name not in controls]
    left_out = [name for name, kind in kinds.items() if kind == {True}]
    note = f", left out as no text: {', '.join(left_out)}" if left_out else ""
    control_names = {name: column_names.get(name, name) for name in controls}
    data_names = _data_names(texts, column_names, list(control_names.values()))
    return TaskFile(path, f"JSON, tasks of Label Studio{note}", source, data_names, control_names)


def _data_names(texts: Sequence[str], column_names: Mapping[str, str], others: Sequence[str]) -> dict[str, str]:
    """What the texts in `data` are called; `id` stands for ours where that is absent, as in other data files."""
    names = {name: column_names.get(name, name) for name in texts}
    has_id = ID_COLUMN in (*names.values(), *others)
    named = {name: ID_COLUMN if ours == ROW_ID_COLUMN and not has_id else ours for name, ours in names.items()}
    return {name: ours for name, ours in named.items() if ours not in _OURS and ours != ROW_ID_COLUMN}


def _task(source: RowSource, index: int) -> Row:
    try:
        return source.row(index)
    except DataError as error:
        where = f"{source.path}:{source.line(index)}: "
        raise RowFault("malformed_row", str(error).removeprefix(where)) from error


def _data(task: Row) -> Mapping[str, Any]:
    data: Mapping[str, Any] = _checked(task.get("data"), dict, "data")
    return data


def _said(task: Row) -> dict[str, str]:
    """What the annotation that counts says, by control. Raises `RowFault` where there is none."""
    annotations = [] if task.get("annotations") is None else _checked(task["annotations"], list, "annotations")
    if not annotations:
        raise RowFault("not_annotated", _NOT_ANNOTATED)
    counting = [one for one in annotations if not _checked(one, dict, "an annotation").get("was_cancelled")]
    if not counting:
        raise RowFault("annotation_cancelled", _CANCELLED)
    newest = max(enumerate(counting), key=lambda item: (_time(item[1]), item[0]))[1]
    parts: dict[str, list[str]] = {}
    for result in _checked(newest.get("result"), list, "an annotation's result"):
        if (key := _TEXTS_OF.get(str(_checked(result, dict, "a result").get("type")))) is not None:
            name = _checked(result.get("from_name"), str, "a result's from_name")
            parts.setdefault(name, []).extend(_texts(result.get("value"), key, name))
    return {name: "\n".join(texts) for name, texts in parts.items()}


def _time(annotation: Mapping[str, Any]) -> datetime.datetime:
    """When it was last changed; the beginning of time where that is not said."""
    try:
        time = datetime.datetime.fromisoformat(annotation.get("updated_at") or annotation.get("created_at") or "")
    except (TypeError, ValueError):
        return datetime.datetime.min.replace(tzinfo=datetime.UTC)
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)


def _texts(value: Any, key: str, name: str) -> list[str]:
    """The texts in a result's value: a list of them, or only one."""
    texts = _checked(value, dict, f"{name}: the value").get(key)
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        raise RowFault("malformed_row", f"{name}: {key} holds {_kind(texts)}; expected a list of texts")
    return texts


def _plain(cell: str) -> str:
    """The text of a cell; where a control had several texts, flat exports hold them as JSON."""
    if not cell.startswith(("{", "[{")):
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    results = value if isinstance(value, list) else [value]
    found = [one.get("text", one.get("choices")) if isinstance(one, dict) else None for one in results]
    lists = [one for one in found if isinstance(one, list) and all(isinstance(text, str) for text in one)]
    return "\n".join(text for one in lists for text in one) if len(lists) == len(results) else cell


def _checked(value: Any, kind: type[Any], what: str) -> Any:
    if isinstance(value, kind):
        return value
    expected = {"dict": "an object", "list": "a list", "str": "text"}[kind.__name__]
    raise RowFault("malformed_row", f"{what} holds {_kind(value)}; expected {expected}, as in a JSON export")


def _shown(value: Any) -> str:
    return "" if _is_nested(value) else cell_text(value)


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | dict)


def _kind(value: Any) -> str:
    name = type(value).__name__
    return {"list": "a list", "dict": "an object", "str": "text", "NoneType": "nothing"}.get(name, name)
