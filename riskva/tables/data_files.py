"""JSONL, JSON and Parquet made elsewhere as tables: flat rows, or LLaMA-Factory's conversations with a photo each.

Of a conversation the photo and the last answer count: prepare writes prompts of its own. Columns that hold lists,
objects or bytes and are neither are left out, and `label` tells which. Prepared conversations that come back leave out
their `riskva_group`, too: its numbers count groups of another data set. Whoever wants to go on by them renames it, as
in `column_names: {riskva_group: 组}` with `group_by: 组`. Tasks of Label Studio are read by `label_studio`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from riskva.columns import GROUP_COLUMN
from riskva.data.conversation import IMAGE_PLACEHOLDER, Conversation, Photo
from riskva.data.formats import BASE64_COLUMN, RowPlace, read_row
from riskva.data.registry import Columns, DatasetEntry, Tags
from riskva.data.sources import ID_COLUMN as ROW_ID_COLUMN
from riskva.data.sources import ParquetSource, Row, RowSource, open_source
from riskva.errors import DataError, ImageError
from riskva.tables.label_studio import TaskFile, holds_tasks, open_tasks
from riskva.tables.table_files import RowFault, TableRow, cell_text, renamed

SUFFIXES = (".jsonl", ".json", ".parquet")

_PHOTO_COLUMNS = ("images", "image", BASE64_COLUMN)
_KINDS = {".jsonl": "JSONL", ".json": "JSON", ".parquet": "Parquet"}
_OPENAI_TAGS = Tags("role", "content", "user", "assistant")
_FLAT = "flat rows"


@dataclass(frozen=True)
class DataFile:
    """A data file whose columns and form are known.

    `names` maps the file's columns to ours, `entry` says how `riskva.data.formats` reads its rows; of flat rows only
    the photo is read that way.
    """

    path: Path
    label: str
    columns: tuple[str, ...]
    source: RowSource
    names: Mapping[str, str]
    entry: DatasetEntry
    holds_answers: bool

    @property
    def holds_photos(self) -> bool:
        return self.entry.columns.images is not None

    def rows(self) -> Iterator[TableRow]:
        """Each row in order; one that cannot be read has a `fault`.

        Raises `DataError` where a Parquet file is broken, which costs more than one row.
        """
        for index in range(len(self.source)):
            yield self._row(index)

    def _row(self, index: int) -> TableRow:
        line = self.source.line(index)
        try:
            row = self._our_row(index)
        except RowFault as fault:
            return TableRow(line, fault=(fault.reason, fault.message))
        texts = {name: row.get(name) for name in self.columns}
        cells = {name: "" if _is_nested(value) else cell_text(value) for name, value in texts.items()}
        try:
            if nested := next((name for name, value in texts.items() if _is_nested(value)), None):
                raise RowFault("malformed_row", f"{nested} holds {_kind(texts[nested])}; expected text or a number")
            photo, answer = self._contents(row, line)
        except RowFault as fault:
            return TableRow(line, cells, (fault.reason, fault.message))
        return TableRow(line, cells, None, photo, answer)

    def _our_row(self, index: int) -> Row:
        try:
            return {self.names.get(name, name): value for name, value in self.source.row(index).items()}
        except OverflowError as error:
            raise RowFault("malformed_row", f"a number or date beyond all bounds ({error})") from error
        except UnicodeDecodeError as error:  # Parquet: Arrow takes any bytes for text until they are looked at
            raise RowFault("malformed_row", f"text that is not UTF-8 ({error.reason}); write it anew") from error
        except DataError as error:
            if isinstance(self.source, ParquetSource):
                raise
            where = f"{self.path}:{self.source.line(index)}: "
            raise RowFault("malformed_row", str(error).removeprefix(where)) from error

    def _contents(self, row: Row, line: int) -> tuple[Photo | None, str | None]:
        """The row's photo, unless a cell names it, and its answer, if it is a conversation."""
        images = self.entry.columns.images
        if images is not None and (num_photos := _num_photos(row.get(images))) != 1:
            raise RowFault("not_one_photo", f"{images}: {num_photos} photos; a row tells of exactly one")
        conversation = self._conversation(row, line) if self.holds_answers or images is not None else None
        answer = _answer(conversation) if self.holds_answers and conversation else None
        if conversation is None or images is None:
            return None, answer
        return self._photo(conversation), answer

    def _conversation(self, row: Row, line: int) -> Conversation:
        place = RowPlace(f"{self.path}:{line}", "row", (self.path.parent,))
        asked = row if self.holds_answers else {**row, self.entry.columns.prompt: IMAGE_PLACEHOLDER}
        try:
            return read_row(asked, self.entry, place)
        except DataError as error:
            reason = error.reason if isinstance(error, ImageError) else "malformed_row"
            raise RowFault(reason, str(error).removeprefix(f"{place.source} (id {place.id}): ")) from error

    def _photo(self, conversation: Conversation) -> Photo:
        (photo,) = conversation.photos
        if photo.path is None and not isinstance(photo.data, bytes):
            raise RowFault(
                "image_unreadable", f"images: bytes are {_kind(photo.data)}; put base64 text in {BASE64_COLUMN}"
            )
        if not isinstance(photo.name, str):
            raise RowFault("malformed_row", f"images: the path is {_kind(photo.name)}; expected text")
        # read_row calls a picture without a name after its row, which it knows as "row" only.
        return replace(photo, name="") if photo.data is not None and photo.name == f"{conversation.id}#0" else photo


def open_data_file(
    path: Path, column_names: Mapping[str, str], id_column: str, image_column: str
) -> DataFile | TaskFile:
    """The rows of the file at `path`; its columns are those of all its rows, since any may lack some.

    Where no column is called `id_column`, `id` stands for it. Raises `DataError` when the file cannot be read as a
    whole, holds no row, or no row of it can be read.
    """
    source = _opened_source(path)
    if not len(source):
        raise DataError(f"{path}: the file holds no rows")
    if not isinstance(source, ParquetSource) and holds_tasks(source):
        return open_tasks(path, source, column_names)
    texts, nested = _parquet_columns(path) if isinstance(source, ParquetSource) else _json_columns(source)
    every = [*texts, *(name for name in nested if name not in texts)]
    names = _our_names(every, column_names, id_column)
    ours = list(renamed(every, names))
    entry, form = _entry(path, ours, source, names, image_column)
    used = _used_columns(entry, form)
    left_out = [name for name in renamed(nested, names) if name not in used and name not in renamed(texts, names)]
    # An `id` beside our own says nothing more, and prepared rows, which may come back as a table, have both.
    unused = {*used, ROW_ID_COLUMN, *([] if form == _FLAT else [GROUP_COLUMN])}
    columns = tuple(name for name in renamed(texts, names) if name not in unused)
    return DataFile(path, _label(path, form, left_out), columns, source, names, entry, form != _FLAT)


def _opened_source(path: Path) -> RowSource:
    try:
        return open_source(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: columns' names are not UTF-8 ({error.reason}); write the file anew") from error


def _label(path: Path, form: str, left_out: list[str]) -> str:
    note = f", left out as no text: {', '.join(left_out)}" if left_out else ""
    return f"{_KINDS[path.suffix.lower()]}, {form}{note}"


def _parquet_columns(path: Path) -> tuple[list[str], list[str]]:
    """The columns that hold text, numbers or dates, and the others."""
    schema = pq.read_schema(path)
    nested = [one.name for one in schema if _is_nested_type(one.type)]
    return [name for name in schema.names if name not in nested], nested


def _is_nested_type(one: pa.DataType) -> bool:
    tests = (pa.types.is_nested, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(test(one) for test in tests)


def _json_columns(source: RowSource) -> tuple[list[str], list[str]]:
    """The columns that hold text, a number or nothing, and those that hold lists or objects; some may be both."""
    kinds: dict[str, set[bool]] = {}
    faults: list[DataError] = []
    for row in _readable_rows(source, faults):
        for name, value in row.items():
            kinds.setdefault(name, set()).update([] if value is None else [_is_nested(value)])
    if not kinds and faults:
        raise faults[0]
    texts = [name for name, kind in kinds.items() if kind != {True}]
    return texts, [name for name, kind in kinds.items() if True in kind]


def _readable_rows(source: RowSource, faults: list[DataError]) -> Iterator[Row]:
    """The rows that can be read; the first fault of the others is put into `faults`."""
    for index in range(len(source)):
        try:
            yield source.row(index)
        except DataError as error:
            if not faults:
                faults.append(error)


def _our_names(columns: Iterable[str], column_names: Mapping[str, str], id_column: str) -> dict[str, str]:
    names = {name: column_names.get(name, name) for name in columns}
    if id_column not in names.values() and ROW_ID_COLUMN in names.values():
        return {name: id_column if ours == ROW_ID_COLUMN else ours for name, ours in names.items()}
    return names


def _entry(
    path: Path, columns: list[str], source: RowSource, names: Mapping[str, str], image_column: str
) -> tuple[DatasetEntry, str]:
    """How the rows are to be read, and in words which of the forms they have."""
    own = next((name for name in _PHOTO_COLUMNS if name in columns), None)
    has_path = image_column in columns
    also = {name: name for name in ("system", "tools", "history") if name in columns}
    messages = next((name for name in ("messages", "conversations") if name in columns), None)
    if messages:
        also.pop("history", None)
        tags = _tags(source, names, messages)
        entry_columns = Columns(messages=messages, images=own or (image_column if has_path else None), **also)
        return DatasetEntry(path.name, (path,), "sharegpt", entry_columns, tags), "conversations"
    if {"instruction", "output"} <= set(columns):
        query = "input" if "input" in columns else None
        entry_columns = Columns(query=query, images=own or (image_column if has_path else None), **also)
        return DatasetEntry(path.name, (path,), "alpaca", entry_columns), "instructions with answers"
    # In flat rows the column that has our name is the one meant, whatever else is called an image.
    entry_columns = Columns(prompt="<question>", query=None, response=None, images=None if has_path else own)
    return DatasetEntry(path.name, (path,), "alpaca", entry_columns), _FLAT


def _used_columns(entry: DatasetEntry, form: str) -> set[str | None]:
    """Columns that are no cells: the photo's, and in conversations those that it is made of."""
    columns = entry.columns
    if form == _FLAT:
        return {columns.images}
    made_of = [columns.messages] if form == "conversations" else [columns.prompt, columns.query, columns.response]
    return {columns.images, columns.system, columns.tools, columns.history, *made_of}


def _tags(source: RowSource, names: Mapping[str, str], messages: str) -> Tags:
    """The keys by which the first turn that can be read says who speaks, and what the speakers are called with them."""
    column = next(name for name, ours in names.items() if ours == messages)
    for row in _readable_rows(source, []):
        turns = row.get(column)
        if isinstance(turns, list) and turns and isinstance(turns[0], dict):
            return _OPENAI_TAGS if _OPENAI_TAGS.role in turns[0] else Tags()
    return _OPENAI_TAGS if messages == "messages" else Tags()


def _num_photos(value: Any) -> int:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return 1  # read_row says what is wrong with it
    if isinstance(value, list):
        return len(value)
    return 0 if value is None or value == "" else 1


def _answer(conversation: Conversation) -> str:
    answers = [message.content for message in conversation.messages if message.role == "assistant"]
    if not answers:
        raise RowFault("answer_unparsed", "the conversation has no assistant's turn")
    return answers[-1]


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | dict | bytes)


def _kind(value: Any) -> str:
    name = type(value).__name__
    return {"list": "a list", "dict": "an object", "str": "text"}.get(name, name)
