"""`stage: eval`: how good a model's answers are; with `predictions:`, how good those are, without a model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from evaluation.evaluated import Evaluation
from evaluation.label_studio import require_own_folder, write_tasks
from evaluation.leaderboard import check_board, put_on_board
from evaluation.metrics import metrics_of
from evaluation.pages.report_page import write_report
from evaluation.predictions import FILE_NAME, Prediction, read_predictions, write_predictions
from evaluation.sample_scores import write_sample_scores
from evaluation.scoring import score
from evaluation.table import render_table
from riskva.console import note, warn
from riskva.distributed import working_together
from riskva.errors import DataError, StoppedBySignal
from riskva.files import remove_folder, write_json
from riskva.generation.asked import BLANKED_FILE
from riskva.generation.run import (
    GOES_ON,
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
from riskva.review.rows import AnsweredRows, answered_rows
from riskva.review.scoring import prediction_file, scoring_of, training_answers, training_reports
from riskva.signals import sigterm_raises

METRICS_FILE = "metrics.json"
SAMPLE_FILE = "sample_scores.jsonl"
LABEL_STUDIO_FOLDER = "label_studio"
OWNED = (*map(re.escape, (SAMPLE_FILE, "report.html", "report_photos")),)
"""The tasks for Label Studio are not among them: someone may be annotating there."""


def run(recipe: EvalRecipe) -> None:
    """Predict unless the recipe names predictions, score them, write numbers and pages, print the table."""
    with sigterm_raises(StoppedBySignal(f"stopped on SIGTERM; {GOES_ON}")), working_together():
        _run(recipe)


def _run(recipe: EvalRecipe) -> None:
    output = _output(recipe)
    if recipe.label_studio:
        require_own_folder(recipe.output_dir / LABEL_STUDIO_FOLDER)
    if recipe.leaderboard is not None:
        check_board(recipe.leaderboard)  # what is wrong with it is found before hours of work, not after
    training = training_answers(recipe)  # likewise
    answers = _predicted(recipe, output) if recipe.predictions is None else _given(recipe, output)
    if answers is None:  # the main process scores
        return
    rows = _joined(recipe, answers.predictions)
    if recipe.predictions is not None:  # otherwise predicting has taken it
        output.take(output.check([recipe.predictions]))
    write_failed_rows(rows.predictions, recipe.output_dir)
    evaluation = score(
        rows.predictions,
        scoring_of(recipe, answers.report_format),
        training_reports(training, answers.report_format),
        _joined(recipe, answers.blanked).predictions if answers.blanked is not None else None,
    )
    _write(recipe, evaluation, rows)
    print(render_table(evaluation))
    if recipe.leaderboard is not None:
        print("\n" + put_on_board(recipe.leaderboard, str(recipe.output_dir), evaluation))
    # The metrics last: they say that the run is finished
    write_json(recipe.output_dir / METRICS_FILE, metrics_of(evaluation))
    note(f"the scores lie in {recipe.output_dir / METRICS_FILE}")
    raise_for_failed_rows(rows.predictions, recipe.output_dir)


def plan(recipe: EvalRecipe) -> list[str]:
    """What `run` would do."""
    output, training = _output(recipe), training_answers(recipe)
    floors = f", floors from {len(training)} training rows" if training else ""
    score_them = f"score the answers into {recipe.output_dir / METRICS_FILE}{floors}"
    if recipe.predictions is None:
        return [*plan_predictions(recipe, output), score_them]
    output.check([recipe.predictions])
    return [f"read {prediction_file(recipe.predictions)}; no model is loaded", score_them]


def _output(recipe: EvalRecipe) -> OutputFolder:
    return output_folder_of(recipe, METRICS_FILE, OWNED)


@dataclass(frozen=True)
class _Answers:
    """What is scored, and the form of its reports; `blanked` only where it was asked for."""

    predictions: list[Prediction]
    report_format: ReportFormat
    blanked: list[Prediction] | None = None


def _predicted(recipe: EvalRecipe, output: OutputFolder) -> _Answers | None:
    predicted = predict_recipe(recipe, output)
    if predicted is None:
        return None
    answers = predicted.answers
    return _Answers(answers[FILE_NAME], predicted.context.report_format, answers.get(BLANKED_FILE))


def _given(recipe: EvalRecipe, output: OutputFolder) -> _Answers:
    """The predictions that the recipe names, and their form: the recipe's, or that of a `riskva.json` beside them."""
    assert recipe.predictions is not None
    output.check([recipe.predictions])
    path = prediction_file(recipe.predictions)
    context = ModelContext.load(path.parent)
    report_format = recipe.report_format() or (context.report_format if context else DEFAULT_FORMAT)
    return _Answers(read_predictions(path), report_format)


def _joined(recipe: EvalRecipe, predictions: list[Prediction]) -> AnsweredRows:
    return answered_rows(predictions, recipe.eval_dataset, recipe.dataset_dir, recipe.media_dir, recipe.max_samples)


def _write(recipe: EvalRecipe, evaluation: Evaluation, rows: AnsweredRows) -> None:
    """The files of an evaluation but for its metrics."""
    folder = recipe.output_dir
    if recipe.predictions is not None:
        # As they were read, so that the folder can be compared with others
        write_predictions(evaluation.predictions, folder / FILE_NAME)
    write_sample_scores(evaluation.samples, folder / SAMPLE_FILE)
    page = write_report(evaluation, rows.page_photos, folder, title=str(folder), most_rows=recipe.report_rows)
    rows.tell_unreadable()
    if recipe.label_studio:
        _write_tasks(folder / LABEL_STUDIO_FOLDER, evaluation, rows)
    note(f"the page to look at: {page}")


def _write_tasks(folder: Path, evaluation: Evaluation, rows: AnsweredRows) -> None:
    remove_folder(folder)  # of a run that was killed here
    if mistaken := [index for index, one in enumerate(evaluation.samples) if one.marks]:
        try:
            write_tasks(evaluation, mistaken, rows.named_photos, folder, rows.cells)
        except DataError as error:  # the scores are worth more than the tasks
            warn(f"no tasks were written: {error}")
        else:
            note("corrected rows of a test split test nothing once they are trained on: mend the test with them")
    else:
        note("no answer is mistaken: there are no tasks for Label Studio")
