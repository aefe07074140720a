"""Parts that are whole: read back in the order of the tables, with no row missing and none twice."""

from __future__ import annotations

import heapq
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from riskva.errors import DataError, MissingDataError
from riskva.preparation.parts import Part
from riskva.preparation.pieces import PART_NAME, PieceFolder, PieceRow


@dataclass(frozen=True)
class TableFacts:
    """A table that rows were read from: what rows call it, where it lies, its SHA-256, and how it was read."""

    name: str
    path: str
    sha256: str
    label: str


@dataclass(frozen=True)
class FinishedPart:
    """A part whose rows are all in its pieces. `num_rows` counts those of all parts; `recipe` is prepare's."""

    part: Part
    folder: PieceFolder
    num_pieces: int
    num_rows: int
    recipe: Mapping[str, Any]
    tables: tuple[TableFacts, ...]
    columns: tuple[str, ...]

    def save(self) -> None:
        """Mark the part's folder as whole."""
        facts = {name: value for name, value in asdict(self).items() if name != "folder"}
        self.folder.finish({"key": self.folder.key, **facts})


def read_parts(work: Path) -> list[FinishedPart]:
    """The parts in the folder `work`, which together hold every row.

    Raises `MissingDataError` when one is missing or unfinished, and `DataError` when they do not belong together.
    """
    folders = sorted(path for path in work.glob("part-*-of-*") if path.is_dir())
    if not folders:
        raise MissingDataError(f"{work.parent}: no parts to merge; run `stage: prepare` with shard=0/N … first")
    unfinished = [path.name for path in folders if not (path / PART_NAME).is_file()]
    if unfinished:
        raise MissingDataError(
            f"{work.parent}: not finished: {', '.join(unfinished)}; run those parts of prepare again"
        )
    parts = [_read(path) for path in folders]
    _check_together(parts, work.parent)
    return parts


def rows_in_order(parts: Sequence[FinishedPart]) -> Iterator[PieceRow]:
    """Every row of all parts, in the order of the tables. Raises `DataError` for a gap or a row that stands twice."""
    merged = heapq.merge(*(part.folder.rows(part.num_pieces) for part in parts), key=lambda one: one.row.number)
    expected = 0
    for number, rows in groupby(merged, key=lambda one: one.row.number):
        row, *others = rows
        if number != expected or others:
            what = f"row {number} stands in two parts" if others else f"row {expected} is in no part"
            raise DataError(f"{what}; remove {parts[0].folder.path.parent} and run the parts of prepare again")
        expected += 1
        yield row
    if expected != parts[0].num_rows:
        raise DataError(
            f"row {expected} is in no part; remove {parts[0].folder.path.parent} and run the parts of prepare again"
        )


def find_row(parts: Sequence[FinishedPart], number: int) -> PieceRow:
    """The row of that number. Raises `KeyError` when no part has it."""
    for part in parts:
        piece = bisect_right(range(part.num_pieces), number, key=part.folder.first_number) - 1
        if piece >= 0:
            for one in part.folder.piece(piece):
                if one.row.number == number:
                    return one
    raise KeyError(number)


def _read(path: Path) -> FinishedPart:
    facts = json.loads((path / PART_NAME).read_text(encoding="utf-8"))
    return FinishedPart(
        Part(**facts["part"]),
        PieceFolder(path, facts["key"]),
        facts["num_pieces"],
        facts["num_rows"],
        facts["recipe"],
        tuple(TableFacts(**one) for one in facts["tables"]),
        tuple(facts["columns"]),
    )


def _check_together(parts: Sequence[FinishedPart], output_dir: Path) -> None:
    counts = {part.part.count for part in parts}
    if len(counts) > 1:
        raise DataError(
            f"{output_dir}: parts of {' and of '.join(map(str, sorted(counts)))}; remove the folders that do not "
            f"belong from {parts[0].folder.path.parent}"
        )
    missing = sorted(set(range(min(counts))) - {part.part.index for part in parts})
    if missing:
        named = ", ".join(f"{index}/{min(counts)}" for index in missing)
        raise MissingDataError(
            f"{output_dir}: parts are missing: {named}; run prepare with shard={missing[0]}/{min(counts)}"
        )
    for part in parts[1:]:
        differing = _differences(parts[0], part)
        if differing:
            raise DataError(
                f"{output_dir}: {part.part.name} was prepared otherwise than {parts[0].part.name}: {differing}; "
                "run it again"
            )


def _differences(one: FinishedPart, other: FinishedPart) -> str:
    if one.tables != other.tables:
        return "other tables, or tables that have changed"
    keys = [key for key in one.recipe if one.recipe[key] != other.recipe.get(key)]
    if keys:
        return ", ".join(f"{key} {one.recipe[key]!r} and {other.recipe.get(key)!r}" for key in keys)
    return "" if one.folder.key == other.folder.key else "another version of RisKVA, or another photo folder"
