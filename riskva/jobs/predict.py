"""`stage: predict`: a model's reports for photos, or for every row of a data set."""

from __future__ import annotations

import re
import sys

from evaluation.predictions import FILE_NAME, Prediction
from riskva.console import note
from riskva.data.photo_inputs import one_photo
from riskva.distributed import decide_once, together, working_together
from riskva.errors import StoppedBySignal
from riskva.generation.asked import Asked
from riskva.generation.openai_batch import REQUEST_FILES
from riskva.generation.publishing import (
    CLAIM_FILE,
    KEYS_FILE,
    RECORDS_PATTERN,
    check_records_path,
    publish,
    records_path,
    remember_keys,
    rule_of,
)
from riskva.generation.records import write_records
from riskva.generation.review_list import FILE_NAME as REVIEW_FILE
from riskva.generation.run import (
    GOES_ON,
    answer_one,
    output_folder_of,
    part_of,
    plan_predictions,
    predict_recipe,
)
from riskva.generation.terminal import screen_of, shown
from riskva.modeling.resolving import asking_of
from riskva.output_folder import OutputFolder
from riskva.recipe import PredictRecipe
from riskva.signals import sigterm_raises

OWNED = (*map(re.escape, (REVIEW_FILE, KEYS_FILE, CLAIM_FILE)), RECORDS_PATTERN, REQUEST_FILES)


def run(recipe: PredictRecipe) -> None:
    """Print the report of one photo, or write those of many; `riskva.generation.publishing` says which files."""
    with sigterm_raises(StoppedBySignal(f"stopped on SIGTERM; {GOES_ON}")), working_together():
        if recipe.image is not None:
            _one(recipe)
        else:
            _many(recipe)


def _one(recipe: PredictRecipe) -> None:
    asked = Asked(recipe)
    check_records_path(recipe, None, [*asked.inputs, recipe.image])
    assert recipe.image is not None
    row = one_photo(recipe.image, asking_of(asked.context))[0]
    report_format, rule = asked.context.report_format, rule_of(recipe)
    answer: Prediction = answer_one(asked, row)
    print(shown(answer, report_format, rule, compare_gt=recipe.compare_gt, screen=screen_of(sys.stdout)))
    if recipe.output_file is not None:
        write_records([answer], report_format, recipe.output_file, compare_gt=recipe.compare_gt, rule=rule)
        note(f"the report: {recipe.output_file}")


def _many(recipe: PredictRecipe) -> None:
    output = together(lambda: _output(recipe))
    decide_once(lambda: check_records_path(recipe, output.path, [*Asked(recipe).inputs, *recipe.batch_results]))
    predicted = predict_recipe(recipe, output)
    if predicted is None:  # another process has all the answers, or an endpoint is to give them
        return
    part = part_of(recipe)
    if part.count > 1:
        remember_keys(recipe, predicted.folder)
        print(f"part {part.index} of {part.count} is done")
        print(f"next, when all parts are: riskva-run recipes/merge.yaml output_dir={recipe.output_dir}")
    publish(recipe, predicted.folder, predicted.context.report_format, predicted.answers[FILE_NAME])


def plan(recipe: PredictRecipe) -> list[str]:
    """What `run` would do."""
    if recipe.image is not None:
        asked = Asked(recipe)
        one_photo(recipe.image, asking_of(asked.context))
        return [f"print the report of {recipe.image}, written by {recipe.model_name_or_path}"]
    output = _output(recipe)
    lines = plan_predictions(recipe, output)
    return [*lines, f"the reports go to {records_path(recipe, output.path)}"]


def _output(recipe: PredictRecipe) -> OutputFolder:
    return output_folder_of(recipe, FILE_NAME, OWNED)
