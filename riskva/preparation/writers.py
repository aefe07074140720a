"""Conversations into files: JSONL with a folder of photos, or Parquet with the photos inside. Both stream.

Row by row, memory holds no more than one Parquet row group.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from riskva.data.conversation import Conversation, Photo
from riskva.data.formats import BASE64_COLUMN
from riskva.data.images import EncodedPhoto
from riskva.data.manifest import WrittenFile
from riskva.files import sha256_of

ImageEncoding = Literal["bytes", "base64"]

PHOTO_FOLDER = "images"
OWN_COLUMNS = ("id", "messages", "images", BASE64_COLUMN)
"""Columns that prepared rows have of themselves; a table's columns of these names would clash."""

# A reader that jumps about reads a whole group for each row, so groups are kept small.
ROWS_PER_GROUP = 64
BYTES_PER_GROUP = 2 << 20
BYTES_PER_FILE = 1 << 30


class SplitWriter(Protocol):
    """Takes the conversations of one split; `close` makes the files whole and says which they are."""

    def add(self, conversation: Conversation) -> None:
        """Append one conversation, whose photos hold the bytes and names to be written."""
        ...

    def close(self) -> list[WrittenFile]:
        """The files, in reading order, once all rows are in them."""
        ...


class PhotoNames:
    """What the photos of a data set are called in it: `images/` + the table's path, with numbers where two would clash.

    Names are compared without case, as some file systems do.
    """

    def __init__(self) -> None:
        self._owners: dict[str, Path] = {}

    def name(self, photo: Photo, encoded: EncodedPhoto) -> str:
        """The name of `photo`; the same source file always gets the same one, and a re-encoded one ends in .jpg."""
        path = _stored_path(photo.name, encoded.is_unchanged)
        name, number = path, 1
        assert photo.path is not None
        while self._owners.setdefault(str(name).lower(), photo.path) != photo.path:
            number += 1
            name = path.with_stem(f"{path.stem}-{number}")
        return str(name)


def certain_name(photo_name: str) -> str | None:
    """What the photo is called in the data set, if that is known before it is opened; another may take the name."""
    path = _stored_path(photo_name, is_unchanged=True)
    return str(path) if path == _stored_path(photo_name, is_unchanged=False) else None


def _stored_path(photo_name: str, is_unchanged: bool) -> PurePosixPath:
    path = PurePosixPath(photo_name)
    if path.parts[0] != PHOTO_FOLDER:
        path = PurePosixPath(PHOTO_FOLDER, *path.parts)
    return path if is_unchanged else path.with_suffix(".jpg")


class PhotoFolder:
    """The photos that JSONL rows point at, as files in `folder`."""

    def __init__(self, folder: Path, storage: Literal["copy", "link"]) -> None:
        self._folder = folder
        self._storage = storage
        self.files: dict[str, WrittenFile] = {}

    def store(self, photo: Photo, encoded: EncodedPhoto, name: str) -> None:
        """Put the photo under `name`, once; with `link`, one that is unchanged becomes a link to the original.

        The link is a hard one, or a symbolic one where the original lies on another file system.
        """
        if name in self.files:
            return
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._storage == "link" and encoded.is_unchanged and photo.path is not None:
            _link(photo.path, path)
        else:
            path.write_bytes(encoded.data)
        self.files[name] = WrittenFile(name, len(encoded.data), hashlib.sha256(encoded.data).hexdigest())


def _link(source: Path, path: Path) -> None:
    try:
        os.link(source, path)
    except OSError:
        path.symlink_to(source.resolve())


class JsonlWriter:
    """Rows as `{split}.jsonl` in `folder`; photos are named in them, or with `base64` stand in them as text."""

    def __init__(self, folder: Path, split: str, encoding: ImageEncoding) -> None:
        self._path = folder / f"{split}.jsonl"
        self._encoding = encoding
        self._stream = self._path.open("w", encoding="utf-8", newline="\n")
        self._num_rows = 0

    def add(self, conversation: Conversation) -> None:
        row = _row(conversation, self._encoding)
        if "images" in row:
            row["images"] = [photo.name for photo in conversation.photos]
        self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._num_rows += 1

    def close(self) -> list[WrittenFile]:
        self._stream.close()
        return [_written(self._path, self._num_rows)]


class ParquetWriter:
    """Rows as `{split}-00000-of-0000N.parquet` in `folder`, in row groups small enough to be read one at a time.

    The schema carries the features that `datasets` reads, so its viewers show the pictures.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        encoding: ImageEncoding,
        *,
        compression: Literal["snappy", "zstd"],
        extra_columns: Sequence[str],
        bytes_per_file: int = BYTES_PER_FILE,
    ) -> None:
        self._folder = folder
        self._split = split
        self._encoding = encoding
        self._compression = compression
        self._schema = parquet_schema(encoding, extra_columns)
        self._bytes_per_file = bytes_per_file
        self._rows: list[dict[str, Any]] = []
        self._num_bytes = 0
        self._paths: list[Path] = []
        self._num_rows: list[int] = []
        self._file: pq.ParquetWriter | None = None

    def add(self, conversation: Conversation) -> None:
        self._rows.append(_row(conversation, self._encoding))
        self._num_bytes += sum(len(photo.read()) for photo in conversation.photos)
        if len(self._rows) >= ROWS_PER_GROUP or self._num_bytes >= BYTES_PER_GROUP:
            self._flush()

    def close(self) -> list[WrittenFile]:
        if self._rows or not self._paths:
            self._flush()
        self._end_file()
        return [self._named(number) for number in range(len(self._paths))]

    def _flush(self) -> None:
        if self._file is None:
            self._paths.append(self._folder / f"{self._split}-{len(self._paths):05d}.parquet")
            self._num_rows.append(0)
            # Photos are compressed already and texts are long: dictionaries would only be built and thrown away.
            self._file = pq.ParquetWriter(
                self._paths[-1], self._schema, compression=self._compression, use_dictionary=False
            )
        self._file.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._num_rows[-1] += len(self._rows)
        self._rows, self._num_bytes = [], 0
        if self._paths[-1].stat().st_size >= self._bytes_per_file:
            self._end_file()

    def _end_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _named(self, number: int) -> WrittenFile:
        """File `number` under its final name, which says how many there are."""
        final = self._folder / f"{self._split}-{number:05d}-of-{len(self._paths):05d}.parquet"
        self._paths[number].replace(final)
        return _written(final, self._num_rows[number])


def parquet_schema(encoding: ImageEncoding, extra_columns: Sequence[str]) -> pa.Schema:
    """The Arrow schema of prepared Parquet files, with the features of `datasets` in its metadata."""
    from datasets import Features, Image, List, Value

    photos = {"images": List(Image())} if encoding == "bytes" else {BASE64_COLUMN: List(Value("string"))}
    messages = List({"role": Value("string"), "content": Value("string")})
    extra = {name: Value("string") for name in extra_columns if name not in OWN_COLUMNS}
    schema: pa.Schema = Features({"id": Value("string"), "messages": messages, **photos, **extra}).arrow_schema
    return schema


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


def _written(path: Path, num_rows: int) -> WrittenFile:
    return WrittenFile(path.name, path.stat().st_size, sha256_of(path), num_rows)
