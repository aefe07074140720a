"""`stage: prepare`: tables of photos become data sets that sft, predict and eval open by name."""

from __future__ import annotations

import os

from riskva.columns import GROUP_COLUMN
from riskva.console import note
from riskva.data.preview import preview
from riskva.errors import DataError, OutputFolderError, RecipeError, StoppedBySignal
from riskva.files import sha256_of
from riskva.parts import Part, choose_part
from riskva.preparation.assembly import assemble
from riskva.preparation.finished_parts import FinishedPart, SourceFile
from riskva.preparation.index import Index, split_rows
from riskva.preparation.photo_work import work_off
from riskva.preparation.pieces import PieceFolder
from riskva.preparation.quarantine import bad_lines, judge
from riskva.preparation.recipe_readings import key_of_rows, layout_of, prompt_of, recorded, split_names
from riskva.preparation.staging import QUARANTINE_NAME, Staging
from riskva.preparation.summary import level_lines, levels_by_split, summary
from riskva.preparation.survey import Survey, survey_tables
from riskva.preparation.writers import OWN_COLUMNS
from riskva.recipe import PrepareRecipe
from riskva.signals import sigterm_raises
from riskva.tables.table import Tables, open_tables


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
    part, tables, staging = _part(recipe), _open(recipe), _staging(recipe)
    for file in tables.files:
        note(f"{file.path}: {file.label}")
    stopped = StoppedBySignal("stopped on SIGTERM; the same command goes on with what is finished")
    with sigterm_raises(stopped), staging.locked(part.name):
        finished = _prepare_part(part, tables, staging, recipe)
        if recipe.shard is not None:
            print(f"part {part.index} of {part.count} is done")
            print(f"next, when all parts are: riskva-run recipes/merge.yaml output_dir={staging.output_dir}")
            return
        made = assemble([finished], recipe, staging)
    print("\n".join(summary(made, recipe, staging.output_dir)))


def plan(recipe: PrepareRecipe) -> list[str]:
    """What `run` would do, as lines for a person: rows by split and level, bad rows, files. Nothing is written.

    Raises what `run` would raise before it opens a photo, `TooManyBadRowsError` for missing photos among it.
    """
    if recipe.preview is not None:
        return [f"would print the first {recipe.preview_rows} rows of {recipe.preview}"]
    part, tables, staging = _part(recipe), _open(recipe), _staging(recipe)
    folder = PieceFolder(staging.part_folder(part), key_of_rows(recipe, _sources(tables), part))
    index = Index()
    survey = survey_tables(tables, part, folder, recipe, index)
    _check(survey, recipe, staging)
    judge(survey.bad, survey.num_rows, recipe.max_bad_share)
    share = f"; part {part.index} of {part.count} has {survey.num_own} of them" if recipe.shard is not None else ""
    done = f"; {survey.num_done} are done already" if survey.num_done else ""
    return [
        *(f"table: {file.path} ({file.label})" for file in tables.files),
        f"{survey.num_rows} rows{share}{done}",
        *level_lines(levels_by_split(split_rows(index, recipe), index.levels, split_names(recipe))),
        *bad_lines(survey.bad, survey.num_rows),
        "photos are only looked for here; the job also decodes them, and may move look-alikes to one split",
        f"would write into {staging.output_dir}",
    ]


def _part(recipe: PrepareRecipe) -> Part:
    return choose_part(recipe.shard, os.environ) if recipe.shard is not None else Part()


def _open(recipe: PrepareRecipe) -> Tables:
    prompt_of(recipe)  # a question that cannot be asked is refused before anything is read
    tables = open_tables(recipe.csv_path, layout_of(recipe), recipe.image_base_path)
    taken = [name for name in tables.columns if name in (*OWN_COLUMNS, GROUP_COLUMN)]
    if taken:
        raise DataError(
            f"prepared rows have columns {', '.join(taken)} of their own; rename the tables' with column_names"
        )
    for key, path in [*(("csv_path", file.path) for file in tables.files), ("image_base_path", tables.photo_folder)]:
        if recipe.output_dir is not None and path.resolve().is_relative_to(recipe.output_dir.resolve()):
            raise OutputFolderError(
                f"{recipe.output_dir}: output_dir holds {key} ({path}), which prepare might overwrite; "
                "name another output_dir"
            )
    return tables


def _staging(recipe: PrepareRecipe) -> Staging:
    """The output folder, checked before any work is done."""
    if recipe.output_dir is None:
        raise RecipeError("output_dir is missing")
    suffix = ".jsonl" if recipe.output_format == "jsonl" else "-00000-of-00001.parquet"
    files = [f"{name}{suffix}" for name in split_names(recipe)]
    return Staging(recipe.output_dir, recipe.overwrite_output_dir, files)


def _prepare_part(part: Part, tables: Tables, staging: Staging, recipe: PrepareRecipe) -> FinishedPart:
    sources = _sources(tables)
    folder = PieceFolder(staging.part_folder(part), key_of_rows(recipe, sources, part))
    survey = survey_tables(tables, part, folder, recipe)
    _check(survey, recipe, staging)
    judge(survey.bad, survey.num_rows, recipe.max_bad_share, staging.failure_path(QUARANTINE_NAME))
    for column in recipe.strip_patterns:
        note(f"strip_patterns: cut off in {tables.num_cut[column]} of {survey.num_rows} cells of {column}")
    work_off(tables.rows(), part, folder, survey, recipe)
    finished = FinishedPart(part, folder, survey.num_pieces, survey.num_rows, recorded(recipe), sources, tables.columns)
    finished.save()
    return finished


def _sources(tables: Tables) -> tuple[SourceFile, ...]:
    return tuple(
        SourceFile(name, str(file.path), sha256_of(file.path), file.label)
        for name, file in zip(tables.names, tables.files, strict=True)
    )


def _check(survey: Survey, recipe: PrepareRecipe, staging: Staging) -> None:
    if not survey.num_rows:
        raise DataError(f"{', '.join(map(str, recipe.csv_path))}: a header and no rows")
    staging.refuse_clashes(survey.photo_names)
