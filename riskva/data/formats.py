"""Rows in LLaMA-Factory's three formats (alpaca, sharegpt, openai) as conversations."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riskva.data.conversation import IMAGE_PLACEHOLDER, Conversation, Message, Photo, Role
from riskva.data.registry import Columns, DatasetEntry, Tags
from riskva.data.sources import ID_COLUMN, Row
from riskva.errors import DataError, ImageError
from riskva.paths import is_file

BASE64_COLUMN = "image_base64"
"""The column in which `image_encoding: base64` keeps photos as text."""

# No photo's path is this long without a dot in it, and base64 has no dot.
_SHORTEST_BASE64 = 64


@dataclass(frozen=True)
class RowPlace:
    """Where a row stands: what messages call it, its id, and the folders that its image paths may be relative to."""

    source: str
    id: str
    folders: tuple[Path, ...]

    def fault(self, message: str) -> DataError:
        """A `DataError` that names the row."""
        return DataError(f"{self.source} (id {self.id}): {message}")


def read_row(row: Row, entry: DatasetEntry, place: RowPlace) -> Conversation:
    """The conversation that `row` holds, read as `entry` says.

    Raises `DataError`, naming file, line and id, for an unknown role, a column that is absent, a missing image file,
    and for marks and images that differ in number.
    """
    _refuse_tools(row, entry.columns, place)
    turns = _alpaca(row, entry.columns, place) if entry.formatting == "alpaca" else _sharegpt(row, entry, place)
    messages = tuple(turns)
    photos = tuple(_photos(row, entry.columns.images, place))
    _check_marks(messages, photos, entry, place)
    extra = {key: str(value) for key, value in row.items() if _is_extra(key, value, entry)}
    return Conversation(place.id, messages, photos, place.source, extra)


def answer_column(entry: DatasetEntry) -> str | None:
    """The column that a row's answer stands in; None where a data set of questions alone names none."""
    return entry.columns.response if entry.formatting == "alpaca" else entry.columns.messages


def read_answer(row: Row, entry: DatasetEntry, place: RowPlace) -> str | None:
    """The answer of a row of which only `answer_column` need be there; None where it has none. Raises `DataError`."""
    column = answer_column(entry)
    if column is None or not row.get(column):
        return None
    if entry.formatting == "alpaca":
        return _text(row[column], column, place)
    turns = [_message(turn, entry.tags, column, place) for turn in _list(row[column], column, place)]
    return turns[-1].content if turns and turns[-1].role == "assistant" else None


def _refuse_tools(row: Row, columns: Columns, place: RowPlace) -> None:
    if columns.tools and row.get(columns.tools):
        raise place.fault(f"column {columns.tools!r}: RisKVA trains on photos and answers, not on tool calls")


def _alpaca(row: Row, columns: Columns, place: RowPlace) -> Iterator[Message]:
    yield from _system_column(row, columns, place)
    for pair in _list(row.get(columns.history) if columns.history else None, columns.history or "", place):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise place.fault(f"column {columns.history!r}: expected pairs of question and answer, found {pair!r}")
        yield Message("user", _text(pair[0], columns.history or "", place))
        yield Message("assistant", _text(pair[1], columns.history or "", place))
    asked = [column for column in (columns.prompt, columns.query) if column and row.get(column)]
    if not asked:
        _required(row, columns.prompt, place)
    yield Message("user", "\n".join(_text(row[column], column, place) for column in asked))
    if columns.response and row.get(columns.response):
        yield Message("assistant", _text(row[columns.response], columns.response, place))


def _sharegpt(row: Row, entry: DatasetEntry, place: RowPlace) -> Iterator[Message]:
    tags, column = entry.tags, entry.columns.messages
    messages = [_message(turn, tags, column, place) for turn in _list(_required(row, column, place), column, place)]
    # A system turn outweighs the system column, as in LLaMA-Factory.
    if not messages or messages[0].role != "system":
        yield from _system_column(row, entry.columns, place)
    yield from (message for message in messages if message.role != "system" or message.content)


def _message(turn: Any, tags: Tags, column: str, place: RowPlace) -> Message:
    if not isinstance(turn, dict) or tags.role not in turn or tags.content not in turn:
        raise place.fault(
            f"column {column!r}: expected turns with {tags.role!r} and {tags.content!r}, found {_short(turn)}; "
            "name the keys under tags in dataset_info.json"
        )
    return Message(_role(turn[tags.role], tags, place), _text(turn[tags.content], column, place))


def _role(tag: Any, tags: Tags, place: RowPlace) -> Role:
    roles: Mapping[Any, Role] = {tags.system: "system", tags.user: "user", tags.assistant: "assistant"}
    if isinstance(tag, str) and tag in roles:
        return roles[tag]
    if tag in (tags.observation, tags.function):
        raise place.fault(f"role {tag!r}: RisKVA trains on photos and answers, not on tool calls")
    raise place.fault(f"unknown role {tag!r}: expected {', '.join(roles)}; see tags in dataset_info.json")


def _system_column(row: Row, columns: Columns, place: RowPlace) -> Iterator[Message]:
    if columns.system and row.get(columns.system):
        yield Message("system", _text(row[columns.system], columns.system, place))


def _required(row: Row, column: str, place: RowPlace) -> Any:
    if row.get(column) in (None, ""):
        raise place.fault(f"column {column!r} is absent or empty; the row has: {', '.join(row)}")
    return row[column]


def _list(value: Any, column: str, place: RowPlace) -> list[Any]:
    """`value` as a list; a CSV cell holds it as JSON text."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise place.fault(f"column {column!r}: expected a JSON list, found {_short(value)}") from error
    if value in (None, ""):
        return []
    if not isinstance(value, list):
        raise place.fault(f"column {column!r}: expected a list, found {_short(value)}")
    return value


def _text(value: Any, column: str, place: RowPlace) -> str:
    if not isinstance(value, str):
        raise place.fault(f"column {column!r}: expected text, found {_short(value)}")
    return value


def _photos(row: Row, column: str | None, place: RowPlace) -> Iterator[Photo]:
    value = row.get(column) if column else None
    if value is None or value == "":
        return
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _list(value, column or "", place)
    for number, one in enumerate(value if isinstance(value, list) else [value]):
        yield _photo(one, f"{place.id}#{number}", column == BASE64_COLUMN, place)


def _photo(value: Any, fallback_name: str, is_base64: bool, place: RowPlace) -> Photo:
    if isinstance(value, dict) and value.get("bytes") is not None:
        return Photo(data=value["bytes"], name=value.get("path") or fallback_name)
    if isinstance(value, dict):
        value = value.get("path")
    if isinstance(value, bytes):
        return Photo(data=value, name=fallback_name)
    if not isinstance(value, str) or not value:
        raise place.fault(f"images: expected a path, base64 text or bytes, found {_short(value)}")
    text = value.partition("base64,")[2] if value.startswith("data:image/") else value
    if is_base64 or text is not value or (len(value) >= _SHORTEST_BASE64 and "." not in value):
        return Photo(data=_decoded(text, place), name=fallback_name)
    path, passed_over = _found(value, place)
    return Photo(path=path, name=value, passed_over=passed_over)


def _decoded(text: str, place: RowPlace) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ImageError(f"{place.source} (id {place.id}): images: not base64: {error}", "image_unreadable") from error


def _found(name: str, place: RowPlace) -> tuple[Path, tuple[Path, ...]]:
    """The photo's file, and the paths where it was looked for before."""
    candidates = tuple(folder / name for folder in place.folders)
    for number, path in enumerate(candidates):
        if is_file(path):
            return path, candidates[:number]
    # A row can still be named, counted and scored; opening the photo says that it is missing.
    return candidates[0], candidates[1:]


def _check_marks(
    messages: tuple[Message, ...], photos: tuple[Photo, ...], entry: DatasetEntry, place: RowPlace
) -> None:
    num_marks = sum(message.content.count(IMAGE_PLACEHOLDER) for message in messages)
    if num_marks and not photos and entry.columns.images is None:
        raise place.fault(
            f"{num_marks} {IMAGE_PLACEHOLDER} mark(s) in the text and no images column; "
            f"name it for {entry.name!r} under columns in dataset_info.json"
        )


def _is_extra(key: str, value: Any, entry: DatasetEntry) -> bool:
    used = {ID_COLUMN, *(getattr(entry.columns, name) for name in Columns.__dataclass_fields__)}
    return key not in used and isinstance(value, str | int | float | bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
