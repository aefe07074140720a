"""`stage: eval`: how good a model's answers are; with `predictions:`, how good those are, without a model."""

from __future__ import annotations

from pathlib import Path

from evaluation.predictions import read_predictions
from evaluation.scoring import score
from evaluation.table import render_table
from riskva.console import note
from riskva.errors import MissingDataError
from riskva.files import write_json
from riskva.generation.run import (
    output_folder_of,
    plan_predictions,
    predict_recipe,
    raise_for_failed_rows,
    write_failed_rows,
)
from riskva.modeling.context import ModelContext
from riskva.output_folder import OutputFolder
from riskva.recipe import EvalRecipe
from riskva.report import DEFAULT_FORMAT, ReportFormat

METRICS_FILE = "metrics.json"


def run(recipe: EvalRecipe) -> None:
    """Predict unless the recipe names predictions, score them, write `metrics.json`, print the table."""
    output = output_folder_of(recipe, finished_file=METRICS_FILE)
    if recipe.predictions is None:
        path, report_format = predict_recipe(recipe, output)
    else:
        path, report_format = _given(recipe.predictions, recipe, output)
    predictions = read_predictions(path)
    write_failed_rows(predictions, recipe.output_dir)
    metrics = score(predictions, report_format)
    write_json(recipe.output_dir / METRICS_FILE, metrics)
    print(render_table(metrics))
    note(f"the scores lie in {recipe.output_dir / METRICS_FILE}")
    raise_for_failed_rows(predictions, recipe.output_dir)


def plan(recipe: EvalRecipe) -> list[str]:
    """What `run` would do."""
    output = output_folder_of(recipe, finished_file=METRICS_FILE)
    if recipe.predictions is None:
        return [*plan_predictions(recipe, output), f"score the answers into {recipe.output_dir / METRICS_FILE}"]
    output.check([recipe.predictions])
    return [f"score {recipe.predictions} into {recipe.output_dir / METRICS_FILE}; no model is loaded"]


def _given(predictions: Path, recipe: EvalRecipe, output: OutputFolder) -> tuple[Path, ReportFormat]:
    """The predictions that the recipe names, and their form: the recipe's, or that of a `riskva.json` beside them."""
    goes_on = output.check([predictions])
    if not predictions.is_file():
        raise MissingDataError(f"predictions: no file {predictions}; write one with stage: predict")
    output.take(goes_on)
    context = ModelContext.load(predictions.parent)
    return predictions, recipe.report_format() or (context.report_format if context else DEFAULT_FORMAT)
