"""What a recipe says of scoring, as evaluation takes it: form, vocabularies, costs, training reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.predictions import FILE_NAME
from evaluation.sample_scores import Scoring
from riskva.console import warn
from riskva.data.datasets import open_datasets
from riskva.errors import DataError, MissingDataError
from riskva.level_costs import DEFAULT_COSTS, LevelCosts
from riskva.recipe.stages import CompareRecipe, EvalRecipe
from riskva.report import ReportFormat, RiskReport
from riskva.vocabulary import KINDS, ROOMS, Vocabulary


def scoring_of(recipe: EvalRecipe | CompareRecipe, report_format: ReportFormat) -> Scoring:
    """By what the recipe judges reports of this form."""
    return Scoring(
        report_format,
        Vocabulary(KINDS if recipe.kinds is None else recipe.kinds),
        Vocabulary(ROOMS if recipe.rooms is None else recipe.rooms),
        DEFAULT_COSTS if recipe.level_costs is None else LevelCosts(recipe.level_costs),
    )


def training_answers(recipe: EvalRecipe | CompareRecipe) -> list[str | None]:
    """The answers of the recipe's `train_dataset`; none where it names none. No photo is read.

    Raises `DataError` where it cannot be opened.
    """
    if not recipe.train_dataset:
        return []
    try:
        return open_datasets(recipe.train_dataset, recipe.dataset_dir, recipe.media_dir).answers
    except DataError as error:
        raise DataError(f"train_dataset: {error}. Name the training rows, or none with train_dataset=null") from error


def training_reports(answers: Sequence[str | None], report_format: ReportFormat) -> list[RiskReport]:
    """The reports that floors are taken from; answers that are none are counted in a warning.

    Raises `DataError` when there are answers and none of them is a report of this form.
    """
    parsed = [report_format.parse(answer or "") for answer in answers]
    reports = [one for one in parsed if isinstance(one, RiskReport)]
    if answers and not reports:
        raise DataError(
            f"train_dataset: none of its {len(answers)} answers is a report of the expected format; set answer_fields "
            "to the fields that the data was made with"
        )
    if len(reports) < len(answers):
        warn(f"train_dataset: {len(answers) - len(reports)} of its {len(answers)} answers are no reports")
    return reports


def prediction_file(path: Path) -> Path:
    """The file that a recipe's `predictions` means: the path itself, or the file of a run that is named by its folder.

    Raises `MissingDataError` when it is not there.
    """
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise MissingDataError(f"predictions: no file {file}; write one with stage: predict")
    return file


def same_format(formats: Sequence[ReportFormat]) -> ReportFormat:
    """The one form that all runs have. Raises `DataError` when they differ."""
    if any(one.labels != formats[0].labels for one in formats):
        listed = "; ".join(", ".join(one.labels) for one in formats)
        raise DataError(f"the runs' reports have different fields ({listed}); name one form with answer_fields")
    return formats[0]
