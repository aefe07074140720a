"""`stage: eval`: how good a model's answers are; with `predictions:`, how good those are, without a model."""

from __future__ import annotations

from evaluation.predictions import read_predictions
from evaluation.scoring import score
from evaluation.table import render_table
from riskva.console import note
from riskva.errors import MissingDataError
from riskva.files import write_json
from riskva.generation.run import claim_output, plan_predictions, predict_recipe, raise_for_failed_rows
from riskva.modeling.context import ModelContext
from riskva.recipe import EvalRecipe
from riskva.report import DEFAULT_FORMAT, ReportFormat

METRICS_FILE = "metrics.json"


def run(recipe: EvalRecipe) -> None:
    """Predict unless the recipe names predictions, score them, write `metrics.json`, print the table."""
    claim_output(recipe, finished_file=METRICS_FILE)
    if recipe.predictions is None:
        path, context = predict_recipe(recipe)
        report_format = recipe.report_format() or context.report_format
    else:
        path = recipe.predictions
        report_format = recipe.report_format() or _format_beside(recipe)
    metrics = score(read_predictions(path), report_format)
    write_json(recipe.output_dir / METRICS_FILE, metrics)
    print(render_table(metrics))
    note(f"the scores lie in {recipe.output_dir / METRICS_FILE}")
    raise_for_failed_rows(path)


def plan(recipe: EvalRecipe) -> list[str]:
    """What `run` would do."""
    if recipe.predictions is None:
        return [*plan_predictions(recipe), f"score the answers into {recipe.output_dir / METRICS_FILE}"]
    return [f"score {recipe.predictions} into {recipe.output_dir / METRICS_FILE}; no model is loaded"]


def _format_beside(recipe: EvalRecipe) -> ReportFormat:
    """The format in the `riskva.json` that predict wrote beside the predictions, or the default one."""
    assert recipe.predictions is not None
    if not recipe.predictions.is_file():
        raise MissingDataError(f"predictions: no file {recipe.predictions}; write one with stage: predict")
    context = ModelContext.load(recipe.predictions.parent)
    return context.report_format if context else DEFAULT_FORMAT
