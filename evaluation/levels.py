"""Scores of the risk level, each beside the floor that a constant answer reaches.

Levels are `RiskLevel` values or their numbers (0 轻微, 1 中等, 2 严重). A prediction of None is an answer from which no
level could be read: wrong for accuracy, a miss for recall, neither an under- nor an over-call, as expensive as the
worst level, and for quadratic kappa and the mean error the level furthest from the right one. Nobody gains by saying
nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.probabilities import ProbabilityScores, probability_scores
from riskva.errors import DataError
from riskva.level_costs import DEFAULT_COSTS, LevelCosts
from riskva.report import LEVEL_LABELS, RiskLevel

LEVELS = tuple(int(level) for level in RiskLevel)
UNPARSED = "unparsed"
_NUM_LEVELS = len(LEVELS)
_NUM_ANSWERS = _NUM_LEVELS + 1

NUM_CELLS = _NUM_LEVELS * _NUM_ANSWERS
"""Reference level × (answered level, or unparsed), row by row: 轻微→轻微, 轻微→中等, …, 严重→unparsed."""

_UNDER_CALLS = np.tril(np.ones((_NUM_LEVELS, _NUM_ANSWERS), dtype=bool), -1)
_OVER_CALLS = np.triu(np.ones((_NUM_LEVELS, _NUM_ANSWERS), dtype=bool), 1) & (np.arange(_NUM_ANSWERS) < _NUM_LEVELS)
_DISTANCES = np.abs(np.subtract.outer(np.arange(_NUM_LEVELS), np.arange(_NUM_LEVELS))).astype(np.float64)
_FURTHEST = (RiskLevel.SEVERE, RiskLevel.MINOR, RiskLevel.MINOR)

Array = NDArray[np.float64]


class PerLevel(TypedDict):
    """Scores of one level, 0 to 1; a level that was never answered has precision 0."""

    precision: float
    recall: float
    f1: float
    support: int


class LevelScores(TypedDict):
    """Scores of the risk level, as `metrics.json` holds them under `risk_level`; shares are 0 to 1.

    `floor_level` is the most frequent level (the lower one of equals); `floor_accuracy`, `floor_macro_f1` and
    `floor_expected_cost` are what always answering it scores. `confusion[reference][answer]` counts rows; answers
    include `unparsed`.
    `severe_recall` is None without a 严重 reference. `under_call_rate` is the share of references above 轻微 that were
    answered with a lower level, `over_call_rate` that of references below 严重 that were answered with a higher one;
    each is None without such a reference, or where none of them was answered with a level. `expected_cost` is a mean
    over rows in the units of the costs, `mean_absolute_error` one in levels. `quadratic_kappa` (Cohen, 1968) is 1 at
    best, None where references and answers are all of one level. `probabilities` is None where no row has any.
    """

    accuracy: float
    floor_accuracy: float
    macro_f1: float
    floor_macro_f1: float
    floor_level: str
    severe_recall: float | None
    under_call_rate: float | None
    over_call_rate: float | None
    expected_cost: float
    floor_expected_cost: float
    quadratic_kappa: float | None
    mean_absolute_error: float
    num_unparsed: int
    per_level: dict[str, PerLevel]
    confusion: dict[str, dict[str, int]]
    probabilities: ProbabilityScores | None


def level_scores(
    predictions: Sequence[int | None],
    references: Sequence[int],
    costs: LevelCosts = DEFAULT_COSTS,
    *,
    probabilities: Sequence[Sequence[float] | None] | None = None,
    confidences: Sequence[float | None] | None = None,
    floor_level: RiskLevel | int | None = None,
) -> LevelScores:
    """How well `predictions` meet `references`, row by row.

    Macro-F1 is the mean over all three levels, absent ones included (their F1 is 0), so that it cannot rise because a
    level is missing from the data. `probabilities` has for each row the model's belief in each level, (3,), or None,
    `confidences` its belief in what it answered.
    `floor_level` is the most frequent level of the training rows; without it that of the references is taken. Raises
    `DataError` when the lists are empty, differ in length or hold no level, or for probabilities that are none.
    """
    _check(predictions, references)
    counts = cells(predictions, references).sum(axis=0)
    scores = _floats(level_statistics(counts, costs.matrix))
    floor = RiskLevel(majority_level([int(level) for level in references]) if floor_level is None else floor_level)
    constant = _floats(level_statistics(_constant_counts(counts, floor), costs.matrix))
    return LevelScores(
        accuracy=scores["accuracy"],
        floor_accuracy=constant["accuracy"],
        macro_f1=scores["macro_f1"],
        floor_macro_f1=constant["macro_f1"],
        floor_level=floor.label,
        severe_recall=_known(scores["severe_recall"]),
        under_call_rate=_known(scores["under_call_rate"]),
        over_call_rate=_known(scores["over_call_rate"]),
        expected_cost=scores["expected_cost"],
        floor_expected_cost=constant["expected_cost"],
        quadratic_kappa=_known(scores["quadratic_kappa"]),
        mean_absolute_error=scores["mean_absolute_error"],
        num_unparsed=int(_table(counts)[:, -1].sum()),
        per_level=_per_level(counts),
        confusion=_confusion(counts),
        probabilities=probability_scores(
            probabilities or [None] * len(references), predictions, references, confidences
        ),
    )


def cell_of(answer: int | None, reference: int) -> int:
    """The place, from 0, of a row's cell among `NUM_CELLS`."""
    return int(reference) * _NUM_ANSWERS + (_NUM_LEVELS if answer is None else int(answer))


def cells(predictions: Sequence[int | None], references: Sequence[int]) -> Array:
    """(N, 12): a one in the cell of each row, see `NUM_CELLS`; sums over rows are a confusion matrix."""
    places = [cell_of(answer, reference) for answer, reference in zip(predictions, references, strict=True)]
    table = np.zeros((len(places), NUM_CELLS))
    table[np.arange(len(places)), places] = 1
    return table


def level_statistics(counts: Array, costs: ArrayLike) -> dict[str, Array]:
    """Scores by name for one confusion matrix or many: `counts` is (..., 12), see `NUM_CELLS`, each score (...).

    Counts may be weighted. `costs` is `LevelCosts.matrix`, (3, 4). NaN where a score cannot be told.
    """
    table, total = _table(counts), counts.sum(axis=-1)
    right, support = np.diagonal(table, axis1=-2, axis2=-1), table.sum(axis=-1)
    return {
        "accuracy": _ratio(right.sum(axis=-1), total),
        "macro_f1": np.where(total > 0, _f1(table).mean(axis=-1), np.nan),
        "severe_recall": _ratio(right[..., RiskLevel.SEVERE], support[..., RiskLevel.SEVERE]),
        "under_call_rate": _call_rate(table, _UNDER_CALLS, slice(1, None)),
        "over_call_rate": _call_rate(table, _OVER_CALLS, slice(None, -1)),
        "expected_cost": _ratio((table * np.asarray(costs, dtype=np.float64)).sum(axis=(-2, -1)), total),
        "quadratic_kappa": _quadratic_kappa(_with_furthest(table)),
        "mean_absolute_error": _ratio((_with_furthest(table) * _DISTANCES).sum(axis=(-2, -1)), total),
    }


def majority_level(references: Sequence[int]) -> int:
    """The most frequent level of `references`; of equally frequent ones the lowest."""
    counts = Counter(references)
    return max(LEVELS, key=lambda level: (counts[level], -level))


def _check(predictions: Sequence[int | None], references: Sequence[int]) -> None:
    if len(predictions) != len(references):
        raise DataError(f"{len(predictions)} predicted level(s) for {len(references)} reference(s): give one a row")
    if not references:
        raise DataError("no levels to score: give at least one row")
    for what, levels in (("predicted", predictions), ("reference", references)):
        for row, level in enumerate(levels):
            if level not in LEVELS and not (level is None and what == "predicted"):
                raise DataError(f"row {row}: {what} level {level!r} is none of {', '.join(map(str, LEVELS))}")


def _table(counts: Array) -> Array:
    """(..., 12) -> (..., 3, 4)."""
    return counts.reshape(*counts.shape[:-1], _NUM_LEVELS, _NUM_ANSWERS)


def _with_furthest(table: Array) -> Array:
    """(..., 3, 4) -> (..., 3, 3): unparsed answers moved to the level furthest from the reference."""
    moved = table[..., :-1].copy()
    for level, furthest in zip(LEVELS, _FURTHEST, strict=True):
        moved[..., level, furthest] += table[..., level, -1]
    return moved


def _ratio(numerator: Array, denominator: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def _call_rate(table: Array, calls: NDArray[np.bool_], levels: slice) -> Array:
    """The share of rows of these levels that are among the `calls`; NaN where none of them was answered with a level.

    Who says nothing calls nothing too low: a 0 would look like a virtue.
    """
    rows = table[..., levels, :]
    is_answered = rows[..., :-1].sum(axis=(-2, -1)) > 0
    return np.where(is_answered, _ratio(table[..., calls].sum(axis=-1), rows.sum(axis=(-2, -1))), np.nan)


def _f1(table: Array) -> Array:
    """(..., 3): F1 of each level, 0 for a level that neither occurs nor is answered."""
    right = np.diagonal(table, axis1=-2, axis2=-1)
    return np.nan_to_num(_ratio(2 * right, table.sum(axis=-1) + table[..., :-1].sum(axis=-2)))


def _quadratic_kappa(table: Array) -> Array:
    """Cohen's kappa of (..., 3, 3) with the square of the distance as weight."""
    weights = _DISTANCES**2
    by_reference, by_answer = table.sum(axis=-1), table.sum(axis=-2)
    by_chance = _ratio(by_reference[..., :, None] * by_answer[..., None, :], table.sum(axis=(-2, -1))[..., None, None])
    return 1 - _ratio((table * weights).sum(axis=(-2, -1)), (by_chance * weights).sum(axis=(-2, -1)))


def _constant_counts(counts: Array, level: int) -> Array:
    """(12,): what `counts` would be if every answer were `level`."""
    table = np.zeros((_NUM_LEVELS, _NUM_ANSWERS))
    table[:, level] = _table(counts).sum(axis=-1)
    return table.reshape(NUM_CELLS)


def _floats(statistics: dict[str, Array]) -> dict[str, float]:
    return {name: float(value) for name, value in statistics.items()}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _per_level(counts: Array) -> dict[str, PerLevel]:
    table = _table(counts)
    right, support = np.diagonal(table), table.sum(axis=-1)
    precision, recall = (np.nan_to_num(_ratio(right, total)) for total in (table[:, :-1].sum(axis=0), support))
    return {
        label: PerLevel(precision=float(one), recall=float(two), f1=float(three), support=int(four))
        for label, one, two, three, four in zip(LEVEL_LABELS, precision, recall, _f1(table), support, strict=True)
    }


def _confusion(counts: Array) -> dict[str, dict[str, int]]:
    columns = (*LEVEL_LABELS, UNPARSED)
    return {
        label: {column: int(count) for column, count in zip(columns, row, strict=True)}
        for label, row in zip(LEVEL_LABELS, _table(counts), strict=True)
    }
