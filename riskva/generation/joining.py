"""The parts that `stage: predict` wrote with `shard` become one prediction."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from evaluation.predictions import FILE_NAME, Prediction, read_predictions
from riskva.errors import DataError, MissingDataError, OutputFolderError
from riskva.generation.publishing import KEYS_FILE, RECORDS_NAME, check_records_path, publish, remembered_keys
from riskva.generation.review_list import FILE_NAME as REVIEW_FILE
from riskva.generation.run import FAILED_FILE, ROWS_FILE, WEIGHTS_MARK
from riskva.modeling.context import FILE_NAME as CONTEXT_FILE
from riskva.modeling.context import ModelContext
from riskva.output_folder import MARK, RECIPE_FILE
from riskva.parts import Part
from riskva.recipe import MergeRecipe

_OWN_LINES = re.compile(rf"^((shard|output_dir): |{re.escape(WEIGHTS_MARK)}).*$", re.MULTILINE)
"""What is of this part alone: machines may see the folder under different names, and have a copy of the model each."""


@dataclass(frozen=True)
class AnsweredPart:
    """One part, finished."""

    part: Part
    folder: Path
    recipe_text: str


def holds_answered_parts(folder: Path) -> bool:
    """Whether parts of a prediction lie in the folder."""
    return bool(_part_folders(folder))


def answered_parts(folder: Path) -> list[AnsweredPart]:
    """All parts of a prediction, in order.

    Raises `MissingDataError` that names those that are missing or unfinished, and `DataError` where their recipes say
    different things.
    """
    found = _part_folders(folder)
    counts = {part.count for part in found}
    if len(counts) > 1:
        raise DataError(f"{folder}: parts of {' and of '.join(map(str, sorted(counts)))}; delete those of other runs")
    count = counts.pop()
    missing = [f"{index}/{count}" for index in range(count) if not _is_finished(folder / Part(index, count).name)]
    if missing:
        raise MissingDataError(
            f"{folder}: {len(missing)} of {count} parts are missing or unfinished: {', '.join(missing[:10])}; run "
            f"stage: predict with shard={missing[0]}"
        )
    for path in (found[part] / name for part in found for name in (ROWS_FILE, CONTEXT_FILE, KEYS_FILE)):
        if not path.is_file():
            raise MissingDataError(f"{path}: missing; answer that part anew")
    parts = [_read(found[part], part) for part in sorted(found, key=lambda one: one.index)]
    for other in parts[1:]:
        if other.recipe_text != parts[0].recipe_text:
            raise DataError(
                f"{other.folder / RECIPE_FILE} differs from {parts[0].folder / RECIPE_FILE} in more than shard: these "
                "are parts of different runs"
            )
        for name, what in ((ROWS_FILE, "rows"), (CONTEXT_FILE, "models, or one that was calibrated in between")):
            one, another = other.folder / name, parts[0].folder / name
            if one.read_bytes() != another.read_bytes():
                raise DataError(f"{one} differs from {another}: these are parts of different {what}; answer one anew")
    return parts


def join(recipe: MergeRecipe) -> None:
    """Write the files of the whole prediction beside its parts, as one run would have. Raises as `publish` does."""
    folder, parts = recipe.output_dir, answered_parts(recipe.output_dir)
    recipe = remembered_keys(recipe, parts[0].folder)
    if (folder / FILE_NAME).exists() and not recipe.overwrite_output_dir:
        raise OutputFolderError(f"{folder / FILE_NAME} exists; set overwrite_output_dir: true to replace it")
    check_records_path(recipe, folder, [part.folder for part in parts])
    answers = [row for part in parts for row in _answers_of(part)]
    context = ModelContext.load(parts[0].folder)
    for name in (FILE_NAME, FAILED_FILE, REVIEW_FILE, *(f"{RECORDS_NAME}.{form}" for form in ("json", "jsonl", "csv"))):
        (folder / name).unlink(missing_ok=True)
    assert context is not None
    context.save(folder)
    publish(recipe, folder, context.report_format, answers)


def _answers_of(part: AnsweredPart) -> list[Prediction]:
    """The part's rows; it has none where there were fewer rows than parts."""
    path = part.folder / FILE_NAME
    return read_predictions(path) if path.stat().st_size else []


def _part_folders(folder: Path) -> dict[Part, Path]:
    if not folder.is_dir():
        return {}
    named = {Part.of_folder(path.name): path for path in folder.iterdir() if (path / RECIPE_FILE).is_file()}
    return {part: path for part, path in named.items() if part is not None}


def _is_finished(folder: Path) -> bool:
    return (folder / FILE_NAME).is_file()


def _read(folder: Path, part: Part) -> AnsweredPart:
    text = (folder / RECIPE_FILE).read_text(encoding="utf-8").removeprefix(MARK)
    return AnsweredPart(part, folder, _OWN_LINES.sub("", text))
