"""Rows: what a good row of a table says, what a bad one lacks, and what is known of a photo that is ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from riskva.data.conversation import Photo
from riskva.report import RiskReport


@dataclass(frozen=True, kw_only=True)
class GoodRow:
    """What a row of a table says, found fit to be trained on.

    `number` counts the rows of all tables from 0, bad ones too; `table` is the file's name and `line` the physical
    line on which the row starts. `cells` holds every cell as the table has it, private prefixes stripped. `group` is
    what must stay in one split, `split` what the table itself says of it, and `level_as_written` the table's word for
    the level where that is none of the three.
    """

    number: int
    table: str
    line: int
    id: str
    report: RiskReport
    cells: Mapping[str, str]
    group: str | None = None
    split: str | None = None
    level_as_written: str | None = None


@dataclass(frozen=True, kw_only=True)
class DefectRecord(GoodRow):
    """A good row with its photo as it was found; `photo.name` is the image cell with forward slashes."""

    photo: Photo


@dataclass(frozen=True)
class BadRow:
    """A row that is kept out of the data set: where it stands, its id and photo, a short code, and what is wrong."""

    number: int
    table: str
    line: int
    id: str
    file: str
    reason: str
    message: str


def name_of_row(row: GoodRow | BadRow) -> str:
    """The row's id, or its place where it has none."""
    return row.id or f"{row.table}:{row.line}"


@dataclass(frozen=True)
class StoredPhoto:
    """What is known of a row's photo once it is fit for the data set.

    `name` is what the table calls it, `source` the original file (None where the table held the picture itself),
    `size` (width, height) in pixels, `num_bytes` and `sha256` those of the encoded picture, `perceptual_hash` what
    look-alikes are found by, and `is_unchanged` whether the bytes are the original file's.
    """

    name: str
    source: Path | None
    size: tuple[int, int]
    num_bytes: int
    sha256: str
    perceptual_hash: str
    is_unchanged: bool


@dataclass(frozen=True, kw_only=True)
class PreparedRow(GoodRow):
    """A good row whose photo has been read, proven to decode, and made fit for the data set."""

    photo: StoredPhoto
