"""From answers to an evaluation: every number beside its floors, with its interval."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from evaluation.baselines import NAMES, Floors
from evaluation.evaluated import Baseline, Evaluation
from evaluation.levels import LevelScores, level_scores
from evaluation.predictions import Prediction
from evaluation.resampling import Resampling
from evaluation.sample_scores import SampleScore, Scoring, score_samples
from evaluation.score_names import BaselineKind
from evaluation.signature import signature
from evaluation.tally import Tally, tally
from evaluation.verdict import Evidence, findings
from riskva.console import progress
from riskva.errors import DataError
from riskva.report import RiskReport, Unparsed

NUM_LISTED = 5

WITHOUT_MODEL: tuple[BaselineKind, ...] = ("constant", "cheapest", "nearest")
"""The baselines that need no model."""


def score(
    predictions: Sequence[Prediction],
    scoring: Scoring,
    training: Sequence[RiskReport] = (),
    blanked: Sequence[Prediction] | None = None,
    baselines: Collection[BaselineKind] = WITHOUT_MODEL,
) -> Evaluation:
    """All that is to be known of `predictions`; neither the order of rows nor the time of day changes it.

    Floors come from the `training` reports; without any, from the labels of the predictions themselves, and there is no
    nearest one. `baselines` are those that are scored; the constant one always is. `blanked` are the same model's
    answers to grey photos, row for row. Raises `DataError` when there are no rows, or when no row's label is a report
    of the format.
    """
    if not predictions:
        raise DataError("no predictions to score: the file or data set is empty")
    if blanked is not None and len(blanked) != len(predictions):
        raise DataError(f"{len(blanked)} answers to grey photos for {len(predictions)} predictions: give one a row")
    _check_references(predictions, scoring)
    samples = list(_scored(predictions, scoring, "scoring"))
    own = run_tally(samples, scoring)
    expected = [one.expected for one in samples]
    known = training or [one for one in expected if one is not None]
    floors = Floors(known, bool(training), scoring.report_format, scoring.costs)
    tallies: dict[BaselineKind, Tally] = {
        kind: _floor_tally(predictions, scoring, kind, floors.answers(expected, kind))
        for kind in _kinds_to_score(floors, baselines)
    }
    if blanked is not None:
        tallies["blanked"] = run_tally(_scored(blanked, scoring, f"floor: {NAMES['blanked'][1]}"), scoring)
    levels = _levels(predictions, samples, scoring, floors.constant)
    spread = Resampling.of(samples)
    # The nearest training report is no floor, so there is no lead over it
    floored: list[BaselineKind] = [kind for kind in tallies if kind != "nearest"]
    leads = {kind: spread.leads(tallies[kind], own) for kind in floored}
    scored = tuple(Baseline(kind, *NAMES[kind], counted.scores()) for kind, counted in tallies.items())
    evidence = Evidence(
        predictions=predictions,
        samples=samples,
        defect_label=scoring.report_format.defect_label,
        text_labels=scoring.report_format.text_labels,
        levels=levels,
        scores=own.scores(),
        baselines={one.kind: one.scores for one in scored},
        leads=leads,
        cheapest_level=floors.cheapest.level,
        has_training=bool(training),
    )
    return Evaluation(
        scoring=scoring,
        predictions=predictions,
        samples=samples,
        levels=levels,
        scores=evidence.scores,
        intervals=spread.intervals(own),
        baselines=scored,
        num_groups=len(set(spread.groups)) if spread.groups else None,
        signature=signature(predictions, scoring, floors.in_words(), spread.in_words()),
        findings=findings(evidence),
        leads=leads["constant"],
    )


def run_tally(samples: Iterator[SampleScore] | Sequence[SampleScore], scoring: Scoring) -> Tally:
    """The samples' tally under `scoring`."""
    return tally(samples, scoring.report_format.text_labels, scoring.costs)


def _scored(predictions: Sequence[Prediction], scoring: Scoring, what: str) -> Iterator[SampleScore]:
    return progress(score_samples(predictions, scoring), len(predictions), what)


def _kinds_to_score(floors: Floors, asked: Collection[BaselineKind]) -> Iterator[BaselineKind]:
    """The constant one first; the cheapest only where it is another, the nearest only where there is training."""
    yield "constant"
    if "cheapest" in asked and floors.cheapest.level != floors.constant.level:
        yield "cheapest"
    if "nearest" in asked and floors.are_training:
        yield "nearest"


def _floor_tally(
    predictions: Sequence[Prediction], scoring: Scoring, kind: BaselineKind, answers: Sequence[str]
) -> Tally:
    rows = [
        replace(row, predict=answer, error=None, finish_reason=None, level_probability=None, level_probabilities=None)
        for row, answer in zip(predictions, answers, strict=True)
    ]
    return run_tally(_scored(rows, scoring, f"floor: {NAMES[kind][1]}"), scoring)


def _levels(
    predictions: Sequence[Prediction], samples: Sequence[SampleScore], scoring: Scoring, constant: RiskReport
) -> LevelScores:
    known = [(row, one, one.expected.level) for row, one in zip(predictions, samples, strict=True) if one.expected]
    return level_scores(
        [one.answered_level for _, one, _ in known],
        [level for _, _, level in known],
        scoring.costs,
        probabilities=[row.level_probabilities for row, _, _ in known],
        confidences=[row.confidence_in(one.answered_level) for row, one, _ in known],
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
