"""`stage: calibrate`: how sure the model says it is of a level becomes how often it is right.

The rows of `eval_dataset` are answered, and one temperature is fitted to how sure the model was and what is true; see
`evaluation.calibration`. It is kept in the riskva.json of the adapter, or of a model that RisKVA exported, and from
then on predictions carry tempered probabilities. That changes no answer: every level, text and score of levels stays as
it is. What changes is which reports fall below `review_below`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.calibration import Calibration, sureness
from evaluation.calibration_rows import LevelRows, calibrate, level_rows, render_calibration
from evaluation.predictions import FILE_NAME, Prediction
from riskva.console import note, warn
from riskva.distributed import working_together
from riskva.errors import ModelError, StoppedBySignal
from riskva.files import write_json
from riskva.generation.asked import TEST_FILE
from riskva.generation.run import (
    GOES_ON,
    Predicted,
    output_folder_of,
    plan_predictions,
    predict_recipe,
    raise_for_failed_rows,
    write_failed_rows,
)
from riskva.modeling.context import FILE_NAME as CONTEXT_FILE
from riskva.modeling.context import ModelContext
from riskva.modeling.loading import locate_model_and_adapter
from riskva.output_folder import OutputFolder
from riskva.recipe import CalibrateRecipe
from riskva.signals import sigterm_raises

FINISHED_FILE = "calibration.json"


def run(recipe: CalibrateRecipe) -> None:
    """Answer the rows, fit the temperature, show what it changes, and keep it with the model."""
    with sigterm_raises(StoppedBySignal(f"stopped on SIGTERM; {GOES_ON}")), working_together():
        _run(recipe)


def _run(recipe: CalibrateRecipe) -> None:
    folder = temperature_folder(recipe)  # what is wrong with it is found before hours of work, not after
    output = _output(recipe)  # held until the end: with it goes the lock on the folder
    predicted = predict_recipe(recipe, output)
    if predicted is None:  # another process has all the answers
        return
    predictions = [row for rows in predicted.answers.values() for row in rows]
    write_failed_rows(predictions, predicted.folder)
    fitted, test = _rows(predicted, FILE_NAME), _rows(predicted, TEST_FILE)
    assert fitted is not None
    calibration = calibrate(fitted)
    print(render_calibration(calibration, fitted, test))
    keep_temperature(folder, calibration.temperature)
    write_json(predicted.folder / FINISHED_FILE, _as_json(calibration, fitted, test, folder))
    raise_for_failed_rows(predictions, predicted.folder)


def plan(recipe: CalibrateRecipe) -> list[str]:
    """What `run` would do."""
    folder = temperature_folder(recipe)
    return [
        *plan_predictions(recipe, _output(recipe)),
        f"fit a temperature to {', '.join(recipe.eval_dataset)}"
        + (f", and show on {', '.join(recipe.test_dataset)} what it changes" if recipe.test_dataset else ""),
        f"keep it in {folder / CONTEXT_FILE}, and write {recipe.output_dir / FINISHED_FILE}",
    ]


def temperature_folder(recipe: CalibrateRecipe) -> Path:
    """The folder whose riskva.json keeps the temperature: the adapter's, or that of a model RisKVA exported.

    Raises `ModelError` where there is none, or it lies in the hub's cache, which is shared and may be fetched anew.
    """
    model, adapter = locate_model_and_adapter(recipe.model_name_or_path, recipe.adapter_name_or_path)
    folder = adapter or model
    if ModelContext.load(folder) is None:
        raise ModelError(
            f"{folder}: no {CONTEXT_FILE}, in which the temperature is to be kept; calibrate a model that RisKVA has "
            "trained: name its adapter, or the folder that stage: export wrote"
        )
    if adapter is None and not Path(recipe.model_name_or_path).expanduser().is_dir():
        raise ModelError(f"{folder}: a model from the hub; download it into a folder of yours, and name that folder")
    return folder


def keep_temperature(folder: Path, temperature: float) -> None:
    """Write the temperature into the folder's riskva.json; one that was there before is named, and replaced."""
    context = ModelContext.load(folder)
    assert context is not None
    if context.level_temperature is not None:
        warn(f"{folder / CONTEXT_FILE}: replaces the level_temperature {context.level_temperature:.3f} that it held")
    dataclasses.replace(context, level_temperature=temperature).save(folder)
    note(f"kept in {folder / CONTEXT_FILE}: predictions of this model are tempered from now on")


def _output(recipe: CalibrateRecipe) -> OutputFolder:
    return output_folder_of(recipe, FINISHED_FILE, (re.escape(FINISHED_FILE),))


def _rows(predicted: Predicted, name: str) -> LevelRows | None:
    answers: list[Prediction] | None = predicted.answers.get(name)
    return None if answers is None else level_rows(answers, predicted.context.report_format)


def _as_json(calibration: Calibration, fitted: LevelRows, test: LevelRows | None, folder: Path) -> Mapping[str, Any]:
    """What the table shows, for programs."""
    crossed = calibration.crossed
    values: dict[str, Any] = {
        "temperature": calibration.temperature,
        "is_at_bound": calibration.is_at_bound,
        "kept_in": str(folder / CONTEXT_FILE),
        "fitted": {
            "num_rows": calibration.num_rows,
            "left_out": fitted.left_out,
            "before": calibration.before._asdict(),
            "after": calibration.after._asdict(),
            "cross_fitted": crossed and crossed._asdict(),
        },
    }
    if test is not None and test.levels:
        values["test"] = {
            "num_rows": len(test.levels),
            "left_out": test.left_out,
            "before": sureness(test.probabilities, test.levels)._asdict(),
            "after": sureness(test.tempered(calibration.temperature), test.levels)._asdict(),
        }
    return values
