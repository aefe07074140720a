"""Scores as the pages draw them: the number, its interval and its floors as places on a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from evaluation.compared import Difference
from evaluation.evaluated import Baseline, Evaluation
from evaluation.score_names import (
    FORM_NAMES,
    LEVEL_NAMES,
    NAMING_NAMES,
    Interval,
    ScoreName,
    main_names,
    main_text_names,
    score_names,
)

Standing = Literal["above", "level", "below", "unknown"]
"""Where a score stands to the constant answer: surely better, perhaps no different, surely worse, cannot be told."""


@dataclass(frozen=True)
class Floor:
    """What a baseline scores; `at` is its place on the line, 0 to 100."""

    baseline: Baseline
    shown: str
    at: float


@dataclass(frozen=True)
class ScoreView:
    """A score on its line; places are 0 to 100, `low` and `high` those of the 95 % interval, None where unknown.

    `interval` is empty where there is none.
    """

    name: ScoreName
    shown: str
    at: float | None
    low: float | None
    high: float | None
    interval: str
    floors: tuple[Floor, ...]
    standing: Standing


@dataclass(frozen=True)
class Group:
    """Scores that belong together, under a heading."""

    zh: str
    en: str
    scores: tuple[ScoreView, ...]


@dataclass(frozen=True)
class Change:
    """A run's score less the first run's; `standing` is `level` where the interval holds 0, or cannot be told.

    `interval` is empty where there is none.
    """

    shown: str
    interval: str
    standing: Standing


def main_groups(evaluation: Evaluation) -> tuple[Group, ...]:
    """The scores to decide by."""
    return (
        Group("风险等级", "Risk level", _views(evaluation, LEVEL_NAMES)),
        Group("格式、类型与部位", "Form, kind and room", _views(evaluation, (*FORM_NAMES, *NAMING_NAMES))),
        Group("文字", "Texts", _views(evaluation, main_text_names(evaluation.scoring.report_format.text_labels))),
    )


def other_scores(evaluation: Evaluation) -> tuple[ScoreView, ...]:
    """All that `main_groups` leaves out."""
    return _views(evaluation, other_names(evaluation))


def other_names(evaluation: Evaluation) -> tuple[ScoreName, ...]:
    """Names of the scores that are not `main_names`."""
    labels = evaluation.scoring.report_format.text_labels
    main = set(main_names(labels))
    return tuple(one for one in score_names(labels) if one not in main)


def change(score: ScoreName, difference: Difference | None) -> Change | None:
    """The difference in words; None where there is none to tell."""
    if difference is None:
        return None
    if difference.interval is None:
        return Change(score.signed(difference.value), "", "level")
    return Change(
        score.signed(difference.value),
        score.signed_interval(difference.interval),
        _standing(score, difference.interval),
    )


def _views(evaluation: Evaluation, names: Sequence[ScoreName]) -> tuple[ScoreView, ...]:
    return tuple(_view(evaluation, name) for name in names if name.name in evaluation.scores)


def _view(evaluation: Evaluation, score: ScoreName) -> ScoreView:
    value, interval = evaluation.scores[score.name], evaluation.intervals.get(score.name)
    floors = [(one, one.scores.get(score.name)) for one in evaluation.baselines]
    start, end = _range(score, [value, *(interval or ()), *(floor for _, floor in floors)])

    def place(one: float) -> float:
        return round(100 * min(max((one - start) / (end - start), 0.0), 1.0), 2)

    return ScoreView(
        name=score,
        shown=score.shown(value),
        at=None if value is None else place(value),
        low=None if interval is None else place(interval[0]),
        high=None if interval is None else place(interval[1]),
        interval="" if interval is None else score.shown_interval(interval),
        floors=tuple(Floor(one, score.shown(floor), place(floor)) for one, floor in floors if floor is not None),
        standing=_standing_to_constant(evaluation, score),
    )


def _range(score: ScoreName, values: Sequence[float | None]) -> tuple[float, float]:
    """The ends of the line: the whole scale, or as far as costs reach."""
    known = [value for value in values if value is not None]
    if score.unit == "cost":
        return 0.0, max([*known, 1.0])
    if score.unit == "kappa":
        return min([*known, 0.0]), 1.0
    return 0.0, {"share": 1.0, "percent": 100.0, "levels": 2.0}[score.unit]


def _standing_to_constant(evaluation: Evaluation, score: ScoreName) -> Standing:
    """By the interval of the lead; without one, by whether the score's own interval holds the constant's value."""
    floor, interval = evaluation.baselines[0].scores.get(score.name), evaluation.intervals.get(score.name)
    if floor is None or evaluation.scores[score.name] is None or _is_perfect(score, floor):
        return "unknown"
    if (lead := evaluation.leads.get(score.name)) is not None:
        return _standing(score, lead)
    return "unknown" if interval is None else _standing(score, (interval[0] - floor, interval[1] - floor))


def _is_perfect(score: ScoreName, floor: float) -> bool:
    """Whether a constant answer cannot be beaten: it is always in form, and never too high if it says 轻微."""
    return floor == 0 if score.lower_is_better else score.unit == "share" and floor == 1


def _standing(score: ScoreName, lead: Interval) -> Standing:
    low, high = (-lead[1], -lead[0]) if score.lower_is_better else lead
    return "above" if low > 0 else "below" if high < 0 else "level"


def risk_coverage_points(curve: Sequence[tuple[float, float]]) -> tuple[str, float]:
    """The curve as the points of an SVG polyline in a box of 100 by 100, and the error rate at the box's top."""
    top = max([0.1, *(error for _, error in curve)])
    return " ".join(_points(curve, top)), top


def _points(curve: Sequence[tuple[float, float]], top: float) -> Iterator[str]:
    for coverage, error in curve:
        yield f"{100 * coverage:.2f},{100 - 100 * error / top:.2f}"
