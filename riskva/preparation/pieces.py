"""Prepared rows on disk, a piece at a time: what a killed run has finished, and what parts hand to the merge.

A part's folder holds `piece-00000.jsonl`, a line a row, beside `piece-00000.photos`, the pictures that were encoded
anew, one after the other; photos that keep their bytes stay where they are. A piece takes its name when it is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from riskva.data.conversation import Photo
from riskva.errors import DataError
from riskva.files import remove_folder, write_json, write_whole
from riskva.paths import is_file
from riskva.report import RiskLevel, RiskReport
from riskva.tables.records import BadRow, DefectRecord, GoodRow, PreparedRow, StoredPhoto

ROWS_PER_PIECE = 256
"""How much work a killed run loses at most."""

PICTURE_BYTES_PER_PIECE = 64 << 20
"""Of pictures that stand in the tables: the rows of a piece are held in memory."""

PART_NAME = "part.json"


FileState = tuple[int, int]


@dataclass(frozen=True)
class DoneRow:
    """A row that has been worked on; `picture` is given where it was encoded anew, and so stands nowhere else.

    `state` is that of the photo's file before it was read: its size in bytes and the time of its last change in ns.
    """

    row: PreparedRow | BadRow
    picture: bytes | None = None
    state: FileState | None = None


def file_state(photo: Photo) -> FileState | None:
    """What shows that a photo's file has been replaced; None where there is no file."""
    if photo.path is None or not is_file(photo.path):
        return None
    found = photo.path.stat()
    return found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class PieceRow:
    """A row of a piece, and where its picture's bytes are: at `offset` of the file `photos`, or in the original."""

    row: PreparedRow | BadRow
    photos: Path
    offset: int | None = None

    def read_photo(self) -> bytes:
        """The encoded picture. Raises `DataError` when it is no longer the one that was prepared."""
        assert isinstance(self.row, PreparedRow)
        photo = self.row.photo
        path, offset = (photo.source, 0) if self.offset is None else (self.photos, self.offset)
        assert path is not None
        try:
            with path.open("rb") as stream:
                stream.seek(offset)
                data = stream.read(photo.num_bytes if self.offset is not None else -1)
        except OSError as error:
            raise DataError(
                f"{path}: {photo.name} cannot be read again ({error.strerror}); run prepare again"
            ) from error
        if hashlib.sha256(data).hexdigest() != photo.sha256:
            # Its file shows no change, or the piece would not have counted: without it, the next run does it again.
            self.photos.with_suffix(".jsonl").unlink(missing_ok=True)
            raise DataError(
                f"{path}: {photo.name} has changed while the data set was being prepared; run prepare again"
            )
        return data


@dataclass(frozen=True)
class PieceFolder:
    """The folder of one part. `key` says what the rows are made from and how; pieces of another key do not count."""

    path: Path
    key: str

    def open(self) -> None:
        """Make the folder this key's, and unfinished: what was made under another key is removed."""
        if not self._is_current:
            remove_folder(self.path)
            with write_whole(self._key_file) as stream:
                stream.write(self.key)
        (self.path / PART_NAME).unlink(missing_ok=True)

    def holds(self, number: int, rows: Sequence[DefectRecord | BadRow]) -> bool:
        """Whether piece `number` is there, whole, of just these rows, and their photos are still the same files.

        A photo that could not be read is tried again: what was amiss may have been mended elsewhere than in its file.
        """
        if not (self._is_current and self._facts(number).is_file() and self._photos(number).is_file()):
            return False
        try:
            there = list(self._lines(number))
        except DataError:
            return False
        ends = [one["offset"] + one["photo"]["num_bytes"] for one in there if "offset" in one]
        return (
            len(there) == len(rows)
            and all(_is_of(one, row) for one, row in zip(there, rows, strict=True))
            and self._photos(number).stat().st_size == max(ends, default=0)
        )

    @contextmanager
    def writing(self, number: int) -> Iterator[PieceWriter]:
        """A piece to add rows to; it is there once the block ends, and not at all when it ends by an exception."""
        # The facts take their name last: where they stand, the pictures stand too.
        with write_whole(self._facts(number)) as facts, write_whole(self._photos(number), "wb") as photos:
            yield PieceWriter(facts, photos)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Say that the part is complete; `facts` is what the merge must know of it."""
        write_json(self.path / PART_NAME, facts)

    def rows(self, num_pieces: int) -> Iterator[PieceRow]:
        """Every row of the part in the order of the tables."""
        for number in range(num_pieces):
            yield from self.piece(number)

    def piece(self, number: int) -> Iterator[PieceRow]:
        """The rows of one piece."""
        for line in self._lines(number):
            yield _from_json(line, self._photos(number))

    def first_number(self, piece: int) -> int:
        """The number of the first row of a piece."""
        return next(self.piece(piece)).row.number

    @property
    def _key_file(self) -> Path:
        return self.path / "key"

    @property
    def _is_current(self) -> bool:
        return self._key_file.is_file() and self._key_file.read_text(encoding="ascii") == self.key

    def _lines(self, number: int) -> Iterator[dict[str, Any]]:
        path = self._facts(number)
        try:
            with path.open(encoding="utf-8", newline="\n") as stream:
                for line in stream:
                    yield json.loads(line)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: damaged ({error}); run this part of prepare again") from error

    def _facts(self, number: int) -> Path:
        return self.path / f"piece-{number:05d}.jsonl"

    def _photos(self, number: int) -> Path:
        return self.path / f"piece-{number:05d}.photos"


class PieceWriter:
    """Takes the rows of one piece in their order."""

    def __init__(self, facts: IO[str], photos: IO[bytes]) -> None:
        self._facts = facts
        self._photos = photos

    def add(self, done: DoneRow) -> None:
        """Append a row."""
        line = {"state": done.state, **_to_json(done.row)}
        if done.picture is not None:
            line["offset"] = self._photos.tell()
            self._photos.write(done.picture)
        self._facts.write(json.dumps(line, ensure_ascii=False) + "\n")


def in_pieces(rows: Iterable[DefectRecord | BadRow]) -> Iterator[list[DefectRecord | BadRow]]:
    """The rows of a part, divided into what one piece holds; fewer rows where the tables hold large pictures."""
    piece: list[DefectRecord | BadRow] = []
    num_bytes = 0
    for row in rows:
        piece.append(row)
        num_bytes += len(row.photo.data or b"") if isinstance(row, DefectRecord) else 0
        if len(piece) == ROWS_PER_PIECE or num_bytes >= PICTURE_BYTES_PER_PIECE:
            yield piece
            piece, num_bytes = [], 0
    if piece:
        yield piece


def _is_of(there: Mapping[str, Any], row: DefectRecord | BadRow) -> bool:
    if (there["number"], there["id"]) != (row.number, row.id):
        return False
    if isinstance(row, BadRow):
        return bool(there.get("reason") == row.reason)
    if "reason" in there:
        return False
    state = file_state(row.photo)
    return bool(there["state"] == (None if state is None else list(state)))


def _to_json(row: PreparedRow | BadRow) -> dict[str, Any]:
    if isinstance(row, BadRow):
        return asdict(row)
    photo = {name: getattr(row.photo, name) for name in StoredPhoto.__dataclass_fields__}
    facts = {name: getattr(row, name) for name in _PLAIN}
    photo["source"] = None if row.photo.source is None else str(row.photo.source)
    return {**facts, "level": int(row.report.level), "texts": dict(row.report.texts), "photo": photo}


# A report is a value of its own; all else of a row is plain JSON.
_PLAIN = tuple(name for name in GoodRow.__dataclass_fields__ if name != "report")


def _from_json(line: dict[str, Any], photos: Path) -> PieceRow:
    offset = line.pop("offset", None)
    del line["state"]
    if "reason" in line:
        return PieceRow(BadRow(**line), photos)
    photo = line["photo"]
    source = None if photo["source"] is None else Path(photo["source"])
    stored = StoredPhoto(**{**photo, "source": source, "size": tuple(photo["size"])})
    report = RiskReport(RiskLevel(line["level"]), line["texts"])
    return PieceRow(PreparedRow(report=report, photo=stored, **{name: line[name] for name in _PLAIN}), photos, offset)
