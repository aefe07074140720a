"""Scores of the risk level, each beside the floor that a constant answer reaches.

Levels are `RiskLevel` values or their numbers (0 轻微, 1 中等, 2 严重). A prediction of None is an answer from which no
level could be read: wrong for accuracy, a miss for recall, and never given a level.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

from riskva.errors import DataError
from riskva.report import LEVEL_LABELS, RiskLevel

LEVELS = tuple(int(level) for level in RiskLevel)
UNPARSED = "unparsed"
_UNPARSED_CODE = -1


class PerLevel(TypedDict):
    """Scores of one level, 0 to 1; a level that was never answered has precision 0."""

    precision: float
    recall: float
    f1: float
    support: int


class LevelScores(TypedDict):
    """Scores of the risk level, as `metrics.json` holds them under `risk_level`; shares are 0 to 1.

    `floor_level` is the most frequent reference level (the lower one of equals), `floor_accuracy` and `floor_macro_f1`
    what always answering it scores. `confusion[reference][answer]` counts rows; answers include `unparsed`.
    `severe_recall` is None without a 严重 reference. `under_call_rate` is the share of references above 轻微 that were
    answered with a lower level, None without such a reference.
    """

    accuracy: float
    floor_accuracy: float
    macro_f1: float
    floor_macro_f1: float
    floor_level: str
    severe_recall: float | None
    under_call_rate: float | None
    num_unparsed: int
    per_level: dict[str, PerLevel]
    confusion: dict[str, dict[str, int]]


def level_scores(predictions: Sequence[int | None], references: Sequence[int]) -> LevelScores:
    """How well `predictions` meet `references`, row by row.

    Macro-F1 is the mean over all three levels, absent ones included (their F1 is 0), so that it cannot rise because a
    level is missing from the data. Raises `DataError` when the lists are empty, differ in length or hold no level.
    """
    _check(predictions, references)
    answers = [_UNPARSED_CODE if level is None else int(level) for level in predictions]
    expected = [int(level) for level in references]
    floor = majority_level(expected)
    constant = [floor] * len(expected)
    confusion = _confusion(answers, expected)
    return LevelScores(
        accuracy=_accuracy(answers, expected),
        floor_accuracy=_accuracy(constant, expected),
        macro_f1=_macro_f1(answers, expected),
        floor_macro_f1=_macro_f1(constant, expected),
        floor_level=LEVEL_LABELS[floor],
        severe_recall=_severe_recall(confusion),
        under_call_rate=_under_call_rate(answers, expected),
        num_unparsed=answers.count(_UNPARSED_CODE),
        per_level=_per_level(answers, expected),
        confusion=confusion,
    )


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


def _accuracy(answers: Sequence[int], expected: Sequence[int]) -> float:
    return sum(answer == level for answer, level in zip(answers, expected, strict=True)) / len(expected)


def _macro_f1(answers: Sequence[int], expected: Sequence[int]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(expected, answers, labels=LEVELS, average="macro", zero_division=0))


def _per_level(answers: Sequence[int], expected: Sequence[int]) -> dict[str, PerLevel]:
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(expected, answers, labels=LEVELS, zero_division=0)
    return {
        label: PerLevel(precision=float(precision), recall=float(recall), f1=float(f1), support=int(support))
        for label, precision, recall, f1, support in zip(LEVEL_LABELS, *columns, strict=True)
    }


def _confusion(answers: Sequence[int], expected: Sequence[int]) -> dict[str, dict[str, int]]:
    counts = Counter(zip(expected, answers, strict=True))
    columns = (*zip(LEVELS, LEVEL_LABELS, strict=True), (_UNPARSED_CODE, UNPARSED))
    return {LEVEL_LABELS[level]: {name: counts[level, answer] for answer, name in columns} for level in LEVELS}


def _severe_recall(confusion: dict[str, dict[str, int]]) -> float | None:
    severe = RiskLevel.SEVERE.label
    support = sum(confusion[severe].values())
    return confusion[severe][severe] / support if support else None


def _under_call_rate(answers: Sequence[int], expected: Sequence[int]) -> float | None:
    raised = [pair for pair in zip(answers, expected, strict=True) if pair[1] > RiskLevel.MINOR]
    if not raised:
        return None
    return sum(answer != _UNPARSED_CODE and answer < level for answer, level in raised) / len(raised)
