"""`stage: compare`: two runs or more on the same rows, numbers and photos side by side; no model is loaded."""

from __future__ import annotations

import re

from evaluation.comparison import compare
from evaluation.comparison_table import comparison_to_json, render_comparison
from evaluation.pages.comparison_page import write_comparison
from evaluation.predictions import read_predictions
from evaluation.scoring import score
from riskva.console import note, warn
from riskva.errors import StoppedBySignal
from riskva.files import write_json
from riskva.modeling.context import ModelContext
from riskva.output_folder import OutputFolder
from riskva.recipe import CompareRecipe, recipe_to_yaml
from riskva.report import DEFAULT_FORMAT, ReportFormat
from riskva.review.rows import answered_rows
from riskva.review.scoring import prediction_file, same_format, scoring_of, training_answers, training_reports
from riskva.signals import sigterm_raises

FINISHED_FILE = "comparison.json"
OWNED = (*map(re.escape, (FINISHED_FILE, "comparison.html", "comparison_photos")),)


def run(recipe: CompareRecipe) -> None:
    """Score every run in the same way, set them against the first, write numbers and page, print the table."""
    with sigterm_raises(StoppedBySignal("stopped on SIGTERM; the same command begins anew")):
        _run(recipe)


def _run(recipe: CompareRecipe) -> None:
    output = _output(recipe)
    goes_on = output.check(list(recipe.predictions.values()))
    report_format = _format(recipe)
    scoring, training = scoring_of(recipe, report_format), training_reports(training_answers(recipe), report_format)
    runs, evaluations = {}, {}
    for name, path in recipe.predictions.items():
        note(f"{name}: {path}")
        runs[name] = answered_rows(
            read_predictions(prediction_file(path)),
            recipe.eval_dataset,
            recipe.dataset_dir,
            recipe.media_dir,
            recipe.max_samples,
        )
        if num_failed := sum(row.error is not None for row in runs[name].predictions):
            warn(f"{name}: {num_failed} rows could not be predicted, and count as wrong")
        evaluations[name] = score(runs[name].predictions, scoring, training, baselines=())
    comparison = compare(evaluations)
    output.take(goes_on)
    first = next(iter(runs.values()))
    page = write_comparison(
        comparison, first.page_photos, recipe.output_dir, title=str(recipe.output_dir), most_rows=recipe.report_rows
    )
    first.tell_unreadable()
    write_json(recipe.output_dir / FINISHED_FILE, comparison_to_json(comparison))
    print(render_comparison(comparison))
    note(f"the numbers lie in {recipe.output_dir / FINISHED_FILE}; the page to look at: {page}")


def plan(recipe: CompareRecipe) -> list[str]:
    """What `run` would do."""
    _output(recipe).check(list(recipe.predictions.values()))
    files = {name: prediction_file(path) for name, path in recipe.predictions.items()}
    first = next(iter(files))
    return [
        *(f"{name}: {path}" for name, path in files.items()),
        f"score them in the same way and set them against {first}; no model is loaded",
        f"write {recipe.output_dir / FINISHED_FILE} and comparison.html",
    ]


def _output(recipe: CompareRecipe) -> OutputFolder:
    comparable = recipe_to_yaml(recipe.model_copy(update={"overwrite_output_dir": False}))
    return OutputFolder(recipe.output_dir, comparable, FINISHED_FILE, OWNED, recipe.overwrite_output_dir)


def _format(recipe: CompareRecipe) -> ReportFormat:
    """The form of the reports: the recipe's, or the one that every `riskva.json` beside the predictions names."""
    if (asked := recipe.report_format()) is not None:
        return asked
    contexts = [ModelContext.load(prediction_file(path).parent) for path in recipe.predictions.values()]
    return same_format([one.report_format if one else DEFAULT_FORMAT for one in contexts])
