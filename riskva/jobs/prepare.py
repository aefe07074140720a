"""`stage: prepare`: tables of photos become data sets that sft, predict and eval open by name."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from riskva import __version__
from riskva.console import note
from riskva.data.preview import preview
from riskva.errors import DataError, OutputFolderError, RecipeError, StoppedBySignal
from riskva.files import sha256_of
from riskva.preparation.assembly import HOW_TO_RUN, assemble, prompt_of, report_format_of, split_names
from riskva.preparation.finished_parts import FinishedPart, TableFacts
from riskva.preparation.parts import Part, choose_part
from riskva.preparation.photo_work import Backlog, find_backlog, work_off
from riskva.preparation.pieces import PieceFolder
from riskva.preparation.quarantine import bad_lines, judge
from riskva.preparation.splits import assign_splits
from riskva.preparation.staging import QUARANTINE_NAME, Staging
from riskva.preparation.summary import level_lines, summary
from riskva.preparation.writers import OWN_COLUMNS, certain_name
from riskva.recipe import PrepareRecipe
from riskva.report import RiskLevel
from riskva.tables.level_names import level_names_from
from riskva.tables.records import BadRow, DefectRecord
from riskva.tables.table import TableLayout, Tables, open_tables

# What decides on rows and their photos; the other keys say what is made of them, and leave finished pieces as they are.
_OF_THE_ROWS = {
    "answer_fields",
    "column_names",
    "excel_sheet",
    "group_by",
    "group_pattern",
    "image_quality",
    "level_names",
    "max_image_size",
    "split_column",
    "strip_patterns",
}


@dataclass
class _Survey:
    """What a first pass over the tables found, before any photo is opened.

    `photo_names` are those of the files that JSONL will certainly have beside it.
    """

    stores_photos: bool
    bad: list[BadRow] = field(default_factory=list)
    photo_names: set[str] = field(default_factory=set)

    def watch(self, rows: Iterable[DefectRecord | BadRow]) -> Iterator[DefectRecord | BadRow]:
        """The rows, unchanged, while they are looked at."""
        for row in rows:
            if isinstance(row, BadRow):
                self.bad.append(row)
            elif self.stores_photos and (name := certain_name(row.photo.name)):
                self.photo_names.add(name)
            yield row


def run(recipe: PrepareRecipe) -> None:
    """Prepare every row's photo, in pieces that a killed run goes on from, then make the data set of them.

    With `preview`, print the first rows of that file and do nothing else; with `shard`, prepare that part of the rows
    and leave the data set to `stage: merge`. Bad rows are listed in quarantine.jsonl even when there are too many;
    where that run was to overwrite a data set, whose list stays as it is, they are listed in quarantine.failed.jsonl.
    Raises `DataError` for a table that cannot be read, `TooManyBadRowsError` above `max_bad_share`, `AuditError` for
    an audit with errors that is strict, and `OutputFolderError` for a folder that holds something else.
    """
    if recipe.preview is not None:
        print(preview(recipe.preview, recipe.preview_rows))
        return
    part = choose_part(recipe.shard, os.environ)
    tables = _open(recipe)
    staging = _staging(recipe, tables)
    for file in tables.files:
        note(f"{file.path}: {file.label}")
    facts = _table_facts(tables)
    folder = PieceFolder(staging.part_folder(part), _key(facts, part, recipe))
    backlog = _survey(tables, part, folder, recipe, staging)
    with _stopping_on_sigterm(), staging.locked(part.name):
        work_off(tables.rows(), part, folder, backlog, recipe)
        recorded = recipe.model_dump(mode="json", exclude=set(HOW_TO_RUN))
        finished = FinishedPart(part, folder, backlog.num_pieces, backlog.num_rows, recorded, facts, tables.columns)
        finished.save()
        if not part.is_all:
            print(f"part {part.index} of {part.count} is done: {backlog.num_own} rows")
            print(f"next, when all parts are: riskva-run recipes/merge.yaml output_dir={staging.output_dir}")
            return
        assembled = assemble([finished], recipe, staging)
    print("\n".join(summary(assembled, recipe, staging.output_dir)))


def plan(recipe: PrepareRecipe) -> list[str]:
    """What `run` would do, as lines for a person: rows by split and level, bad rows, files. Nothing is written.

    Raises what `run` would raise before it opens a photo, `TooManyBadRowsError` for missing photos among it.
    """
    if recipe.preview is not None:
        return [f"would print the first {recipe.preview_rows} rows of {recipe.preview}"]
    part = choose_part(recipe.shard, os.environ)
    tables = _open(recipe)
    staging = _staging(recipe, tables)
    folder = PieceFolder(staging.part_folder(part), _key(_table_facts(tables), part, recipe))
    survey = _Survey(_stores_photos(recipe))
    backlog = find_backlog(survey.watch(tables.rows()), part, folder)
    _check(survey, backlog, recipe, staging)
    judge(survey.bad, backlog.num_rows, recipe.max_bad_share)
    share = "" if part.is_all else f"; part {part.index} of {part.count} has {backlog.num_own} of them"
    done = f"; {backlog.num_own - backlog.num_to_do} are done already" if backlog.finished_pieces else ""
    return [
        *(f"table: {file.path} ({file.label})" for file in tables.files),
        f"{backlog.num_rows} rows{share}{done}",
        *level_lines(_levels_by_split(tables, recipe)),
        *bad_lines(survey.bad, backlog.num_rows),
        "photos are only looked for here; the job also decodes them, and may move look-alikes to one split",
        *(f"would write {staging.output_dir / name}" for name in _expected_names(recipe)),
    ]


def _open(recipe: PrepareRecipe) -> Tables:
    prompt_of(recipe)  # a question that cannot be asked is refused before anything is read
    layout = TableLayout(
        report_format_of(recipe),
        column_names=recipe.column_names,
        level_names=level_names_from(recipe.level_names),
        strip_patterns=recipe.strip_patterns,
        group_by=recipe.group_by,
        group_pattern=recipe.group_pattern,
        split_column=recipe.split_column,
        splits=tuple(split_names(recipe)),
        excel_sheet=recipe.excel_sheet,
    )
    if not recipe.csv_path:
        raise RecipeError("csv_path is missing; prepare needs it unless preview names a file to show")
    tables = open_tables(recipe.csv_path, layout, recipe.image_base_path)
    taken = [name for name in tables.columns if name in OWN_COLUMNS]
    if taken:
        raise DataError(
            f"prepared rows have columns {', '.join(taken)} of their own; rename the tables' with column_names"
        )
    return tables


def _staging(recipe: PrepareRecipe, tables: Tables) -> Staging:
    """The output folder, checked before any work is done."""
    if recipe.output_dir is None:
        raise RecipeError("output_dir is missing; prepare needs it unless preview names a file to show")
    inputs = [("csv_path", file.path) for file in tables.files] + [("image_base_path", tables.photo_folder)]
    for key, path in inputs:
        if path.resolve().is_relative_to(recipe.output_dir.resolve()):
            raise OutputFolderError(
                f"{recipe.output_dir}: output_dir holds {key} ({path}), which prepare might overwrite; "
                "name another output_dir"
            )
    return Staging(recipe.output_dir, recipe.overwrite_output_dir, _expected_names(recipe))


def _survey(tables: Tables, part: Part, folder: PieceFolder, recipe: PrepareRecipe, staging: Staging) -> Backlog:
    """One pass over the text, so that what can be known without opening a photo ends the job before it begins."""
    survey = _Survey(_stores_photos(recipe))
    backlog = find_backlog(survey.watch(tables.rows()), part, folder)
    _check(survey, backlog, recipe, staging)
    judge(survey.bad, backlog.num_rows, recipe.max_bad_share, staging.failure_path(QUARANTINE_NAME))
    return backlog


def _check(survey: _Survey, backlog: Backlog, recipe: PrepareRecipe, staging: Staging) -> None:
    if not backlog.num_rows:
        raise DataError(f"{', '.join(map(str, recipe.csv_path))}: a header and no rows")
    staging.refuse_clashes(survey.photo_names)


def _stores_photos(recipe: PrepareRecipe) -> bool:
    return recipe.output_format == "jsonl" and recipe.image_encoding == "bytes"


@contextmanager
def _stopping_on_sigterm() -> Iterator[None]:
    """On SIGTERM, as a scheduler sends it, end with the status that says: the same command goes on."""

    def stop(*_: object) -> None:
        raise StoppedBySignal("stopped on SIGTERM; the same command goes on with what is finished")

    former = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _table_facts(tables: Tables) -> tuple[TableFacts, ...]:
    return tuple(
        TableFacts(name, str(file.path), sha256_of(file.path), file.label)
        for name, file in zip(tables.names, tables.files, strict=True)
    )


def _key(tables: tuple[TableFacts, ...], part: Part, recipe: PrepareRecipe) -> str:
    """Equal for runs whose rows and photos come out the same."""
    made_from = {
        "version": __version__,
        "tables": [asdict(one) for one in tables],
        "photos": str(Path(recipe.image_base_path or ".").resolve()),
        "parts": part.count,
        "recipe": recipe.model_dump(mode="json", include=_OF_THE_ROWS),
        "splits": split_names(recipe) if recipe.split_column else [],
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def _levels_by_split(tables: Tables, recipe: PrepareRecipe) -> dict[str, Counter[RiskLevel]]:
    rows = [row for row in tables.rows() if isinstance(row, DefectRecord)]
    levels = [row.report.level for row in rows]
    if recipe.split_column is not None:
        splits = [str(row.split) for row in rows]
    else:
        # A row without a group is alone
        groups = [row.group or row.number for row in rows] if recipe.group_by else None
        splits = assign_splits(levels, recipe.split, recipe.seed, groups)
    counts = {name: Counter[RiskLevel]() for name in split_names(recipe)}
    for split, level in zip(splits, levels, strict=True):
        counts[split][level] += 1
    return counts


def _expected_names(recipe: PrepareRecipe) -> list[str]:
    suffix = ".jsonl" if recipe.output_format == "jsonl" else "-00000-of-00001.parquet"
    return [*(f"{name}{suffix}" for name in split_names(recipe)), "manifest.json", "dataset_info.json"]
