"""How much a model's belief in its level is worth: is it near the truth, is it calibrated, does it order the answers.

A row counts with its probabilities of the three levels, or with a confidence in its answer alone. An answer without a
level is wrong, and as confident as the likeliest level is: nobody gains by saying nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from evaluation.predictions import SUM_TOLERANCE, confidence_by
from riskva.errors import DataError
from riskva.report import RiskLevel

NUM_BINS = 15
NUM_POINTS = 100
"""Points of a risk–coverage curve at most; AURC is taken over all rows."""

Array = NDArray[np.float64]


class ProbabilityScores(TypedDict):
    """`num_rows` rows had a probability or a confidence; lower is better everywhere.

    `brier` (Brier, 1950) is the mean over rows of the squared differences to the truth summed over the three levels, 0
    to 2 (scikit-learn's of two classes, 0 to 1, is half of it). `rps` (ranked probability score; Epstein, 1969) is the
    same of cumulated probabilities, halved, 0 to 1: believing in the neighbouring level costs less. Both are None where
    there are only confidences. `ece` (Guo et al., 2017) is the mean distance of confidence and accuracy in 15 bins of
    equal width. `aurc` (Geifman and El-Yaniv, 2017) is the mean error rate of the most confident rows, over all numbers
    of rows kept. `risk_coverage` has (share of rows kept, error rate among them), the most confident rows first; rows
    of one confidence are kept together, so that their order does not matter.
    """

    brier: float | None
    rps: float | None
    ece: float | None
    aurc: float | None
    risk_coverage: list[tuple[float, float]]
    num_rows: int


def probability_scores(
    probabilities: Sequence[Sequence[float] | None],
    answers: Sequence[int | None],
    references: Sequence[int],
    confidences: Sequence[float | None] | None = None,
) -> ProbabilityScores | None:
    """Scores of the rows that have probabilities, (3,) from 轻微 to 严重, or a confidence; None when no row has any.

    A row's confidence in its answer is the one given, else the probability of the answered level. Raises `DataError`
    for lists of different lengths, for probabilities that are not three or do not sum to 1, and for values outside 0
    to 1.
    """
    given = [None] * len(references) if confidences is None else list(confidences)
    if not len(probabilities) == len(answers) == len(given) == len(references):
        raise DataError("probabilities, answers, references and confidences differ in number: give one a row")
    beliefs = [_belief(row, one) for row, one in enumerate(probabilities)]
    believed = [row for row, one in enumerate(beliefs) if one is not None]
    confident = [row for row, one in enumerate(given) if one is not None or beliefs[row] is not None]
    if not confident:
        return None
    confidence = np.array([_confidence(row, given[row], beliefs[row], answers[row]) for row in confident])
    wrong = np.array([answers[row] != references[row] for row in confident], dtype=np.float64)
    curve, aurc = _risk_coverage(confidence, wrong)
    known = np.array([beliefs[row] for row in believed], dtype=np.float64)
    truth = np.eye(len(RiskLevel))[[int(references[row]) for row in believed]]
    return ProbabilityScores(
        brier=float(np.square(known - truth).sum(axis=1).mean()) if believed else None,
        rps=float(np.square(np.cumsum(known - truth, axis=1)).sum(axis=1).mean() / 2) if believed else None,
        ece=_calibration_error(confidence, 1 - wrong),
        aurc=aurc,
        risk_coverage=curve,
        num_rows=len(confident),
    )


def _belief(row: int, probabilities: Sequence[float] | None) -> Array | None:
    if probabilities is None:
        return None
    belief = np.asarray(probabilities, dtype=np.float64)
    if belief.shape != (len(RiskLevel),):
        raise DataError(f"row {row}: expected {len(RiskLevel)} probabilities, found shape {belief.shape}")
    # written so that NaN is refused as well
    if not (np.all((belief >= 0) & (belief <= 1 + SUM_TOLERANCE)) and abs(belief.sum() - 1) <= SUM_TOLERANCE):
        raise DataError(f"row {row}: probabilities are 0 to 1 and sum to 1, found {belief.tolist()}")
    return belief


def _confidence(row: int, given: float | None, belief: Array | None, answer: int | None) -> float:
    if given is not None:
        if not 0 <= given <= 1:
            raise DataError(f"row {row}: a confidence is 0 to 1, found {given}")
        return float(given)
    assert belief is not None
    return confidence_by(belief.tolist(), answer)


def _calibration_error(confidence: Array, right: Array) -> float:
    """Bin m holds confidences above (m - 1)/15 up to m/15, as in the paper; 0 is in the first."""
    places = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    gaps = np.bincount(places, weights=right - confidence, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def _risk_coverage(confidence: Array, wrong: Array) -> tuple[list[tuple[float, float]], float]:
    distinct, places = np.unique(-confidence, return_inverse=True)
    num_rows = np.bincount(places, minlength=len(distinct))
    num_kept = np.cumsum(num_rows)
    risk = np.cumsum(np.bincount(places, weights=wrong, minlength=len(distinct))) / num_kept
    aurc = float((risk * num_rows).sum() / len(wrong))
    shown = np.unique(np.linspace(0, len(distinct) - 1, NUM_POINTS).round().astype(int))
    return [(float(num_kept[one] / len(wrong)), float(risk[one])) for one in shown], aurc
