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
from riskva.parts import Part
from riskva.preparation.pieces import PART_NAME, PieceFolder, PieceRow


@dataclass(frozen=True)
class SourceFile:
    """A table that rows were read from: what rows call it, where it lies, its SHA-256, and how it was read."""

    name: str
    path: str
    sha256: str
    label: str

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes it the same table, wherever it lies."""
        return self.name, self.sha256, self.label


@dataclass(frozen=True)
class FinishedPart:
    """A part whose rows are all in its pieces. `num_rows` counts those of all parts; `recipe` is prepare's."""

    part: Part
    folder: PieceFolder
    num_pieces: int
    num_rows: int
    recipe: Mapping[str, Any]
    tables: tuple[SourceFile, ...]
    columns: tuple[str, ...]

    def save(self) -> None:
        """Mark the part's folder as whole."""
        facts = {name: value for name, value in asdict(self).items() if name != "folder"}
        self.folder.finish({"key": self.folder.key, **facts})


def read_parts(work: Path) -> list[FinishedPart]:
    """The parts in the folder `work`, which together hold every row.

    Raises `MissingDataError` when one is missing or unfinished, and `DataError` when they do not belong together.
    """
    found = {part: path for path in work.glob("part-*") if (part := Part.of_folder(path.name))}
    _check_complete(found, work.parent)
    parts = [_read(path) for _, path in sorted(found.items(), key=lambda item: item[0].index)]
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
    try:
        facts = json.loads((path / PART_NAME).read_text(encoding="utf-8"))
        return _from_json(path, facts)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path / PART_NAME}: damaged ({error!r}); run this part of prepare again") from error


def _from_json(path: Path, facts: Mapping[str, Any]) -> FinishedPart:
    return FinishedPart(
        Part(**facts["part"]),
        PieceFolder(path, facts["key"]),
        facts["num_pieces"],
        facts["num_rows"],
        facts["recipe"],
        tuple(SourceFile(**one) for one in facts["tables"]),
        tuple(facts["columns"]),
    )


def _check_complete(found: Mapping[Part, Path], output_dir: Path) -> None:
    if not found:
        raise MissingDataError(f"{output_dir}: no parts to merge; run `stage: prepare` with shard=0/N … first")
    counts = {part.count for part in found}
    if len(counts) > 1:
        raise DataError(
            f"{output_dir}: parts of {' and of '.join(map(str, sorted(counts)))}; remove the folders that do not "
            f"belong from {next(iter(found.values())).parent}"
        )
    (count,) = counts
    missing = [f"{index}/{count}" for index in range(count) if Part(index, count) not in found]
    unfinished = [f"{part.index}/{count}" for part, path in found.items() if not (path / PART_NAME).is_file()]
    if missing or unfinished:
        said = [
            *([f"parts are missing: {', '.join(missing)}"] if missing else []),
            *([f"parts are not finished: {', '.join(sorted(unfinished))}"] if unfinished else []),
        ]
        first = (*missing, *unfinished)[0]
        raise MissingDataError(f"{output_dir}: {'; '.join(said)}; run prepare with shard={first} and the others")


def _check_together(parts: Sequence[FinishedPart], output_dir: Path) -> None:
    for part in parts[1:]:
        differing = _differences(parts[0], part)
        if differing:
            raise DataError(
                f"{output_dir}: {part.part.name} was prepared otherwise than {parts[0].part.name}: {differing}; "
                "run it again"
            )


def _differences(one: FinishedPart, other: FinishedPart) -> str:
    if [table.identity for table in one.tables] != [table.identity for table in other.tables]:
        return "other tables, or tables that have changed"
    keys = [key for key in one.recipe if one.recipe[key] != other.recipe.get(key)]
    if keys:
        return ", ".join(f"{key} {one.recipe[key]!r} and {other.recipe.get(key)!r}" for key in keys)
    return "" if one.folder.key == other.folder.key else "another photo folder, or other versions of RisKVA or Pillow"
