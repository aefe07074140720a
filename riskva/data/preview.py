"""Prepared rows as a person would read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from riskva.data.conversation import Conversation, Photo
from riskva.data.datasets import open_files
from riskva.data.formats import BASE64_COLUMN
from riskva.data.images import photo_size
from riskva.data.registry import Columns, DatasetEntry, Tags
from riskva.data.sources import open_source
from riskva.errors import DataError, MissingDataError
from riskva.paths import is_file


def preview(path: Path, rows: int) -> str:
    """The first `rows` rows of a prepared JSONL or Parquet file as text, with each photo's size in px and kB.

    Raises `MissingDataError` without the file, and `DataError` for a row that is not in that form.
    """
    if not is_file(path):
        raise MissingDataError(f"{path}: no such file; preview must name a prepared .jsonl or .parquet file")
    if path.suffix.lower() not in (".jsonl", ".parquet"):
        raise DataError(f"{path}: preview reads the .jsonl and .parquet files that `stage: prepare` writes")
    dataset = open_files(_entry(path), path.parent)
    shown = min(rows, len(dataset))
    blocks = ["\n".join(_block(dataset[index], index + 1)) for index in range(shown)]
    return "\n\n".join([f"{path}: {len(dataset)} rows, the first {shown}:", *blocks])


def _entry(path: Path) -> DatasetEntry:
    source = open_source(path)
    images = BASE64_COLUMN if len(source) and BASE64_COLUMN in source.row(0) else "images"
    columns = Columns(messages="messages", images=images)
    return DatasetEntry(path.stem, (path,), "sharegpt", columns, Tags("role", "content", "user", "assistant"))


def _block(conversation: Conversation, number: int) -> Iterator[str]:
    yield f"── row {number}, id {conversation.id} ──"
    for message in conversation.messages:
        yield _labelled(message.role, message.content)
    for photo in conversation.photos:
        yield _labelled("image", _facts(photo))
    for column, text in conversation.extra.items():
        yield _labelled(column, text)


def _facts(photo: Photo) -> str:
    width, height = photo_size(photo)
    return f"{photo.name}, {width} x {height} px, {len(photo.read()) / 1000:.1f} kB"


def _labelled(label: str, text: str) -> str:
    return f"[{label}] " + text.replace("\n", "\n    ")
