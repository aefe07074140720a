"""`stage: eval`: how good a model's answers are; with `predictions:`, how good those are, without a model."""

from __future__ import annotations

import re
from pathlib import Path

from evaluation.evaluated import Evaluation
from evaluation.label_studio import write_tasks
from evaluation.leaderboard import append, read_board, render_board
from evaluation.metrics import metrics_of
from evaluation.pages.report_page import write_report
from evaluation.predictions import read_predictions
from evaluation.sample_scores import write_sample_scores
from evaluation.scoring import score
from evaluation.table import render_table
from riskva.console import note
from riskva.files import remove_folder, write_json
from riskva.generation.run import (
    Predicted,
    output_folder_of,
    plan_predictions,
    predict_recipe,
    raise_for_failed_rows,
    write_failed_rows,
)
from riskva.modeling.context import ModelContext
from riskva.output_folder import OutputFolder
from riskva.recipe import EvalRecipe
from riskva.report import DEFAULT_FORMAT
from riskva.review.rows import AnsweredRows, answered_rows
from riskva.review.scoring import prediction_file, scoring_of, training_reports

METRICS_FILE = "metrics.json"
SAMPLE_FILE = "sample_scores.jsonl"
LABEL_STUDIO_FOLDER = "label_studio"
OWNED = (*map(re.escape, (SAMPLE_FILE, "report.html", "report_photos", LABEL_STUDIO_FOLDER)),)


def run(recipe: EvalRecipe) -> None:
    """Predict unless the recipe names predictions, score them, write numbers and pages, print the table."""
    output = _output(recipe)
    if recipe.leaderboard is not None and recipe.leaderboard.exists():
        read_board(recipe.leaderboard)  # a board that cannot be read is found before hours of work, not after
    predicted = predict_recipe(recipe, output) if recipe.predictions is None else _given(recipe, output)
    rows = answered_rows(
        read_predictions(predicted.predictions),
        recipe.eval_dataset,
        recipe.dataset_dir,
        recipe.media_dir,
        recipe.max_samples,
    )
    write_failed_rows(rows.predictions, recipe.output_dir)
    evaluation = score(
        rows.predictions,
        scoring_of(recipe, predicted.report_format),
        training_reports(recipe, predicted.report_format),
        read_predictions(predicted.blanked) if predicted.blanked else None,
    )
    _write(recipe, evaluation, rows)
    print(render_table(evaluation))
    if recipe.leaderboard is not None:
        newest = append(recipe.leaderboard, str(recipe.output_dir), evaluation)
        print("\n" + render_board(read_board(recipe.leaderboard), newest))
    raise_for_failed_rows(rows.predictions, recipe.output_dir)


def plan(recipe: EvalRecipe) -> list[str]:
    """What `run` would do."""
    output = _output(recipe)
    score_them = f"score the answers into {recipe.output_dir / METRICS_FILE}"
    if recipe.predictions is None:
        return [*plan_predictions(recipe, output), score_them]
    output.check([recipe.predictions])
    return [f"read {prediction_file(recipe.predictions)}; no model is loaded", score_them]


def _output(recipe: EvalRecipe) -> OutputFolder:
    return output_folder_of(recipe, METRICS_FILE, OWNED)


def _given(recipe: EvalRecipe, output: OutputFolder) -> Predicted:
    """The predictions that the recipe names, and their form: the recipe's, or that of a `riskva.json` beside them."""
    assert recipe.predictions is not None
    goes_on = output.check([recipe.predictions])
    path = prediction_file(recipe.predictions)
    output.take(goes_on)
    context = ModelContext.load(path.parent)
    return Predicted(path, recipe.report_format() or (context.report_format if context else DEFAULT_FORMAT))


def _write(recipe: EvalRecipe, evaluation: Evaluation, rows: AnsweredRows) -> None:
    """All files of an evaluation; the metrics last, since they say that the run is finished."""
    folder = recipe.output_dir
    write_sample_scores(evaluation.samples, folder / SAMPLE_FILE)
    page = write_report(evaluation, rows.page_photos, folder, title=str(folder), most_rows=recipe.report_rows)
    if recipe.label_studio:
        _write_tasks(folder / LABEL_STUDIO_FOLDER, evaluation, rows)
    write_json(folder / METRICS_FILE, metrics_of(evaluation))
    note(f"the scores lie in {folder / METRICS_FILE}; the page to look at: {page}")


def _write_tasks(folder: Path, evaluation: Evaluation, rows: AnsweredRows) -> None:
    remove_folder(folder)  # of a run that was killed here
    if mistaken := [index for index, one in enumerate(evaluation.samples) if one.marks]:
        write_tasks(evaluation, mistaken, rows.named_photos, folder, rows.cells)
    else:
        note("no answer is mistaken: there are no tasks for Label Studio")
