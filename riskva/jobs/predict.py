"""`stage: predict`: a model's answers for every row of a data set."""

from __future__ import annotations

from evaluation.predictions import FILE_NAME, read_predictions
from riskva.console import note
from riskva.errors import StoppedBySignal
from riskva.generation.run import (
    GOES_ON,
    output_folder_of,
    plan_predictions,
    predict_recipe,
    raise_for_failed_rows,
    write_failed_rows,
)
from riskva.recipe import PredictRecipe
from riskva.signals import sigterm_raises


def run(recipe: PredictRecipe) -> None:
    """Write `generated_predictions.jsonl`."""
    with sigterm_raises(StoppedBySignal(f"stopped on SIGTERM; {GOES_ON}")):
        _run(recipe)


def _run(recipe: PredictRecipe) -> None:
    path = predict_recipe(recipe, output_folder_of(recipe, finished_file=FILE_NAME)).predictions
    note(f"the answers lie in {path}")
    predictions = read_predictions(path)
    write_failed_rows(predictions, recipe.output_dir)
    raise_for_failed_rows(predictions, recipe.output_dir)


def plan(recipe: PredictRecipe) -> list[str]:
    """What `run` would do."""
    return plan_predictions(recipe, output_folder_of(recipe, finished_file=FILE_NAME))
