"""From answers to an evaluation: every number beside its floors, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluation.baselines import constant_report, nearest_reports
from evaluation.evaluated import Baseline, BaselineKind, Evaluation
from evaluation.levels import LevelScores, level_scores
from evaluation.predictions import Prediction
from evaluation.resampling import Resampling
from evaluation.sample_scores import SampleScore, Scoring, score_samples
from evaluation.signature import signature
from evaluation.tally import Tally, tally
from evaluation.verdict import Evidence, findings
from riskva.console import progress
from riskva.errors import DataError
from riskva.report import RiskReport, Unparsed

NUM_LISTED = 5

BASELINES: Mapping[BaselineKind, tuple[str, str]] = {
    "constant": ("固定答案", "one constant answer"),
    "nearest": ("最近训练文本", "nearest training report"),
    "blanked": ("灰色照片", "grey photos"),
}
"""What the baselines are called."""


def score(
    predictions: Sequence[Prediction],
    scoring: Scoring,
    training: Sequence[RiskReport] = (),
    blanked: Sequence[Prediction] | None = None,
) -> Evaluation:
    """All that is to be known of `predictions`; neither the order of rows nor the time of day changes it.

    Floors come from the `training` reports; without any, from the labels of the predictions themselves, and there is no
    nearest one. `blanked` are the same model's answers to grey photos, row for row. Raises `DataError` when there are
    no rows, or when no row's label is a report of the format.
    """
    if not predictions:
        raise DataError("no predictions to score: the file or data set is empty")
    _check_references(predictions, scoring)
    samples = _scored(predictions, scoring, "scoring")
    own = run_tally(samples, scoring)
    constant, answers = _baselines(predictions, samples, scoring, training)
    if blanked is not None:
        answers["blanked"] = blanked
    tallies = {
        kind: run_tally(_scored(rows, scoring, f"floor: {BASELINES[kind][1]}"), scoring)
        for kind, rows in answers.items()
    }
    levels = _levels(predictions, samples, scoring, constant)
    spread = Resampling.of(samples)
    evidence = Evidence(
        predictions=predictions,
        samples=samples,
        defect_label=scoring.defect_label,
        levels=levels,
        scores=own.scores(),
        intervals=spread.intervals(own),
        constant=tallies["constant"].scores(),
        leads=spread.leads(tallies["constant"], own),
        blanked=tallies["blanked"].scores() if "blanked" in tallies else None,
        nearest=tallies["nearest"].scores() if "nearest" in tallies else None,
    )
    return Evaluation(
        scoring=scoring,
        predictions=predictions,
        samples=samples,
        levels=levels,
        scores=evidence.scores,
        intervals=evidence.intervals,
        baselines=tuple(Baseline(kind, *BASELINES[kind], counted.scores()) for kind, counted in tallies.items()),
        num_groups=len(set(spread.groups)) if spread.groups else None,
        signature=signature(predictions, scoring, _floors_in_words(training), spread.in_words()),
        findings=findings(evidence),
        leads=evidence.leads,
    )


def run_tally(samples: Sequence[SampleScore], scoring: Scoring) -> Tally:
    """The samples' tally under `scoring`."""
    return tally(samples, scoring.report_format.text_labels, scoring.costs)


def _scored(predictions: Sequence[Prediction], scoring: Scoring, what: str) -> list[SampleScore]:
    return list(progress(score_samples(predictions, scoring), len(predictions), what))


def _baselines(
    predictions: Sequence[Prediction],
    samples: Sequence[SampleScore],
    scoring: Scoring,
    training: Sequence[RiskReport],
) -> tuple[RiskReport, dict[BaselineKind, Sequence[Prediction]]]:
    """The constant report, and by baseline what it answers to every row."""
    render = scoring.report_format.render
    expected = [one.expected for one in samples if one.expected is not None]
    constant = constant_report(training or expected, scoring.report_format)
    answers: dict[BaselineKind, Sequence[Prediction]] = {
        "constant": [_answering(row, render(constant)) for row in predictions]
    }
    if training:
        nearest = iter(nearest_reports(expected, training))
        copied = [constant if one.expected is None else next(nearest) for one in samples]
        answers["nearest"] = [_answering(row, render(one)) for row, one in zip(predictions, copied, strict=True)]
    return constant, answers


def _answering(row: Prediction, answer: str) -> Prediction:
    return replace(row, predict=answer, error=None, level_probability=None, level_probabilities=None)


def _levels(
    predictions: Sequence[Prediction], samples: Sequence[SampleScore], scoring: Scoring, constant: RiskReport
) -> LevelScores:
    known = [(row, one, one.expected.level) for row, one in zip(predictions, samples, strict=True) if one.expected]
    return level_scores(
        [one.answered_level for _, one, _ in known],
        [level for _, _, level in known],
        scoring.costs,
        probabilities=[row.level_probabilities for row, _, _ in known],
        confidences=[row.level_probability for row, _, _ in known],
        floor_level=constant.level,
    )


def _check_references(predictions: Sequence[Prediction], scoring: Scoring) -> None:
    unparsed: list[str] = []
    for row in predictions:
        parsed = scoring.report_format.parse(row.label)
        if not isinstance(parsed, Unparsed):
            return
        unparsed.append(f"id {row.id}: {parsed.reason}")
    listed = "\n  ".join(unparsed[:NUM_LISTED])
    raise DataError(
        f"none of the {len(predictions)} labels is a report of the expected format; "
        f"set answer_fields to the fields that the data was made with:\n  {listed}"
    )


def _floors_in_words(training: Sequence[RiskReport]) -> str:
    if not training:
        return "from the labels of the scored rows themselves"
    return f"from {len(training)} training reports"
