"""Conversations into files: JSONL with a folder of photos, or Parquet with the photos inside. Both stream.

A file takes its name when it is whole. Of photos memory holds no more than one Parquet row group, of rows their names.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from riskva.data.conversation import Conversation
from riskva.data.formats import BASE64_COLUMN
from riskva.data.manifest import WrittenFile
from riskva.files import sha256_of, write_whole
from riskva.tables.records import StoredPhoto

ImageEncoding = Literal["bytes", "base64"]

PHOTO_FOLDER = "images"
OWN_COLUMNS = ("id", "messages", "images", BASE64_COLUMN)
"""Columns that prepared rows have of themselves; a table's columns of these names would clash."""

# In bytes; file systems allow 255, and a number may have to be added.
_LONGEST_NAME = 240

# A reader that jumps about reads a whole group for each row, so groups are kept small.
ROWS_PER_GROUP = 64
BYTES_PER_GROUP = 2 << 20


class PhotoNames:
    """What the photos of a data set are called in it: `images/` + the table's path, with numbers where two would clash.

    Names are compared without case, as some file systems do.
    """

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}
        self._folders: set[str] = set()
        self._next_numbers: dict[str, int] = {}
        self._renamed: dict[tuple[str, str], PurePosixPath] = {}

    def name(self, photo: StoredPhoto, row_number: int) -> str:
        """The name of `photo`; the same source file always gets the same one, and a re-encoded one ends in .jpg."""
        path = _stored_path(photo.name, photo.is_unchanged)
        # A picture that stands in the table itself belongs to its row alone.
        owner = f"row {row_number}" if photo.source is None else str(photo.source)
        if any(_key(parent) in self._owners for parent in path.parents):
            path = PurePosixPath(PHOTO_FOLDER, "_".join(path.parts[1:]))  # a file bears the name of its folder
        name = self._renamed.get((_key(path), owner), path)
        while not self._is_free(name, owner):
            number = self._next_numbers.get(_key(path), 2)
            self._next_numbers[_key(path)] = number + 1
            name = path.with_stem(f"{path.stem}-{number}")
            self._renamed[_key(path), owner] = name
        self._owners[_key(name)] = owner
        self._folders.update(_key(parent) for parent in name.parents)
        return str(name)

    def _is_free(self, name: PurePosixPath, owner: str) -> bool:
        return self._owners.get(_key(name), owner) == owner and _key(name) not in self._folders


def _key(path: PurePosixPath) -> str:
    return str(path).lower()


def certain_name(photo_name: str) -> str | None:
    """What the photo is called in the data set, if that is known before it is opened; another may take the name."""
    path = _stored_path(photo_name, is_unchanged=True)
    return str(path) if path == _stored_path(photo_name, is_unchanged=False) else None


def _stored_path(photo_name: str, is_unchanged: bool) -> PurePosixPath:
    path = PurePosixPath(photo_name)
    if len(path.parts) == 1 or path.parts[0] != PHOTO_FOLDER:
        path = PurePosixPath(PHOTO_FOLDER, *path.parts)
    path = path if is_unchanged else path.with_suffix(".jpg")
    while len(path.name.encode()) > _LONGEST_NAME:
        path = path.with_stem(path.stem[:-1])
    return path


class PhotoFolder:
    """The photos that JSONL rows point at, as files in `folder`."""

    def __init__(self, folder: Path, storage: Literal["copy", "link"]) -> None:
        self._folder = folder
        self._storage = storage
        self.files: dict[str, WrittenFile] = {}

    def store(self, photo: StoredPhoto, data: bytes, name: str) -> None:
        """Put the photo under `name`, once; with `link`, one that is unchanged becomes a link to the original.

        The link is a hard one, or a symbolic one where the original lies on another file system.
        """
        if name in self.files:
            return
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A run that was killed may have left a link here: writing through it would change the original.
        path.unlink(missing_ok=True)
        if self._storage == "link" and photo.is_unchanged and photo.source is not None:
            _link(photo.source, path)
        else:
            path.write_bytes(data)
        self.files[name] = WrittenFile(name, photo.num_bytes, photo.sha256)


def _link(source: Path, path: Path) -> None:
    original = source.resolve()  # a link to a link would lead elsewhere from here
    try:
        os.link(original, path)
    except OSError:
        path.symlink_to(original)


def write_jsonl(path: Path, conversations: Iterable[Conversation], encoding: ImageEncoding) -> WrittenFile:
    """One conversation a line; photos are named in it, or with `base64` stand in it as text."""
    num_rows = 0
    with write_whole(path) as stream:
        for conversation in conversations:
            row = _row(conversation, encoding)
            if "images" in row:
                row["images"] = [photo.name for photo in conversation.photos]
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            num_rows += 1
    return described(path, num_rows)


@dataclass(frozen=True)
class ParquetForm:
    """How Parquet files are written: photos as bytes or text, the codec, and the table's columns that travel along."""

    encoding: ImageEncoding
    compression: Literal["snappy", "zstd"]
    extra_columns: tuple[str, ...]

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of prepared files, with the features of `datasets` in its metadata, so viewers show them."""
        from datasets import Features, Image, List, Value

        photos = {"images": List(Image())} if self.encoding == "bytes" else {BASE64_COLUMN: List(Value("string"))}
        messages = List({"role": Value("string"), "content": Value("string")})
        extra = {name: Value("string") for name in self.extra_columns if name not in OWN_COLUMNS}
        schema: pa.Schema = Features({"id": Value("string"), "messages": messages, **photos, **extra}).arrow_schema
        return schema


def write_parquet(path: Path, conversations: Iterable[Conversation], form: ParquetForm) -> WrittenFile:
    """One file, in row groups small enough to be read one at a time, with an index of its pages."""
    num_rows = 0
    schema = form.schema
    with (
        write_whole(path, "wb") as stream,
        # Photos are compressed already and texts are long: dictionaries would only be built and thrown away.
        pq.ParquetWriter(
            stream, schema, compression=form.compression, use_dictionary=False, write_page_index=True
        ) as writer,
    ):
        for rows in _groups(conversations, form.encoding):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            num_rows += len(rows)
    return described(path, num_rows)


def _groups(conversations: Iterable[Conversation], encoding: ImageEncoding) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    num_bytes = 0
    for conversation in conversations:
        rows.append(_row(conversation, encoding))
        num_bytes += sum(len(photo.read()) for photo in conversation.photos)
        if len(rows) >= ROWS_PER_GROUP or num_bytes >= BYTES_PER_GROUP:
            yield rows
            rows, num_bytes = [], 0
    if rows:
        yield rows


def plan_shards(num_bytes: Sequence[int], max_bytes: int) -> list[range]:
    """Which of the rows, by position, stand in each file, given each row's photo bytes; a file has at least one row."""
    shards, start, held = [], 0, 0
    for position, size in enumerate(num_bytes):
        if position > start and held + size > max_bytes:
            shards.append(range(start, position))
            start, held = position, 0
        held += size
    return [*shards, range(start, len(num_bytes))] if num_bytes else shards


def _row(conversation: Conversation, encoding: ImageEncoding) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": conversation.id,
        "messages": [{"role": one.role, "content": one.content} for one in conversation.messages],
    }
    if encoding == "base64":
        row[BASE64_COLUMN] = [base64.b64encode(photo.read()).decode("ascii") for photo in conversation.photos]
    else:
        row["images"] = [{"bytes": photo.read(), "path": photo.name} for photo in conversation.photos]
    return row | {key: value for key, value in conversation.extra.items() if key not in OWN_COLUMNS}


def described(path: Path, num_rows: int) -> WrittenFile:
    """The file at `path` as a manifest lists it."""
    return WrittenFile(path.name, path.stat().st_size, sha256_of(path), num_rows)
