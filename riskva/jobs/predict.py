"""`stage: predict`: a model's answers for every row of a data set."""

from __future__ import annotations

from riskva.console import note
from riskva.generation.predict import FILE_NAME
from riskva.generation.run import claim_output, plan_predictions, predict_recipe, raise_for_failed_rows
from riskva.recipe import PredictRecipe


def run(recipe: PredictRecipe) -> None:
    """Write `generated_predictions.jsonl`."""
    claim_output(recipe, finished_file=FILE_NAME)
    path, _ = predict_recipe(recipe)
    note(f"the answers lie in {path}")
    raise_for_failed_rows(path)


def plan(recipe: PredictRecipe) -> list[str]:
    """What `run` would do."""
    return plan_predictions(recipe)
