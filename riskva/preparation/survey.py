"""A first pass over the tables, before any photo is opened: what is bad, what is done already, what will be written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from riskva.errors import DataError, OutputFolderError
from riskva.parts import Part
from riskva.preparation.index import Index
from riskva.preparation.pieces import PieceFolder, in_pieces
from riskva.preparation.writers import certain_name
from riskva.recipe import PrepareRecipe
from riskva.tables.records import BadRow, DefectRecord, name_of_row
from riskva.tables.table import Tables


@dataclass
class Survey:
    """What the pass found.

    `bad` holds the bad rows of all parts; `num_own` counts the rows of this part, `finished_pieces` are those of its
    pieces that a former run left whole. `photo_names` are those of the files that JSONL will certainly have beside it.
    """

    num_rows: int = 0
    num_own: int = 0
    num_done: int = 0
    num_pieces: int = 0
    num_grouped: int = 0
    bad: list[BadRow] = field(default_factory=list)
    finished_pieces: set[int] = field(default_factory=set)
    photo_names: set[str] = field(default_factory=set)


def survey_tables(
    tables: Tables, part: Part, folder: PieceFolder, recipe: PrepareRecipe, index: Index | None = None
) -> Survey:
    """Look through all rows once. Bad rows and photo names are kept; with `index`, what that keeps of every row."""
    found = Survey()
    own = (row for row in _noted(tables.rows(), found, recipe, index) if part.holds(name_of_row(row)))
    for number, piece in enumerate(in_pieces(own)):
        found.num_pieces += 1
        found.num_own += len(piece)
        if folder.holds(number, piece):
            found.finished_pieces.add(number)
            found.num_done += len(piece)
    _check_patterns(found, tables, recipe)
    return found


def _check_patterns(found: Survey, tables: Tables, recipe: PrepareRecipe) -> None:
    """Raise `DataError` where a pattern finds nothing at all: a slip in it would keep private text, or part houses."""
    hint = "on a command line, quote it: a shell eats backslashes"
    for column, pattern in recipe.strip_patterns.items():
        if found.num_rows and not tables.num_cut[column]:
            raise DataError(f"strip_patterns: {pattern!r} begins no cell of {column}, so nothing is cut off; {hint}")
    if recipe.group_pattern is not None and not found.num_grouped and len(found.bad) < found.num_rows:
        raise DataError(f"group_pattern: {recipe.group_pattern!r} is in no cell of {recipe.group_by}; {hint}")


def _noted(
    rows: Iterable[DefectRecord | BadRow], found: Survey, recipe: PrepareRecipe, index: Index | None
) -> Iterator[DefectRecord | BadRow]:
    """The rows as they pass by, noted in `found` and in `index`."""
    home = Path(recipe.output_dir or ".").absolute()
    stores_photos = recipe.output_format == "jsonl" and recipe.image_encoding == "bytes"
    for row in rows:
        found.num_rows += 1
        if index is not None:
            index.add(row)
        if isinstance(row, BadRow):
            found.bad.append(row)
        else:
            found.num_grouped += row.group is not None
            _check_place(row, home)
            if stores_photos and (name := certain_name(row.photo.name)):
                found.photo_names.add(name)
        yield row


def _check_place(row: DefectRecord, output_dir: Path) -> None:
    if row.photo.path is not None and row.photo.path.absolute().is_relative_to(output_dir):
        raise OutputFolderError(
            f"{row.table}:{row.line}: {row.photo.path} lies in output_dir, where prepare might overwrite it; name "
            "another output_dir"
        )
