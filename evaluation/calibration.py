"""One temperature that turns how sure a model is of a level into how often it is right (Guo et al., 2017).

Probabilities p become softmax(log p / T). That changes no answer: the likeliest level stays the likeliest, and so does
the order of levels in every row. T above 1 takes back what the model is too sure of, T below 1 makes it surer. T is the
one that makes the true levels of rows that were not trained on likeliest (least negative log likelihood, NLL), which is
a proper score: it is best where probabilities are true ones.

Scores on the very rows that T was fitted to flatter it, the more the fewer rows there are. So there are cross-fitted
ones too: the rows are dealt into ten parts, groups kept whole, and each part is tempered by a T from the nine others.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.probabilities import probability_scores
from riskva.errors import DataError
from riskva.report import RiskLevel

LEAST_TEMPERATURE, GREATEST_TEMPERATURE = 0.05, 20.0
"""Within what a temperature is looked for; at 20 a level of 99.9 % has 42 %."""

FEWEST_ROWS = 10
"""Rows without which there is nothing to fit to; to rely on a temperature takes a few hundred."""

NUM_FOLDS = 10

SMALLEST = 1e-12
"""What a probability of 0 stands for: its logarithm must be a number, or one mistake would be infinitely bad."""

Array = NDArray[np.float64]


class Sureness(NamedTuple):
    """How far probabilities are to be believed: lower is better in the first three.

    `nll` is the mean negative log likelihood of the true level in nats. `ece` and `brier` are those of
    `evaluation.probabilities`. `confidence` is the mean probability of the likeliest level and `accuracy` how often
    that is the true one, 0 to 1: where they differ, the model is too sure or not sure enough.
    """

    nll: float
    ece: float
    brier: float
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """A temperature, and what it does to the `num_rows` rows that it was fitted to.

    `crossed` is `after` without the flattery, None where all rows are of one group. `is_at_bound` says that the search
    ended at the edge of its range: the rows would have a still higher or lower temperature, and are too few or too
    unlike the truth for one.
    """

    temperature: float
    num_rows: int
    before: Sureness
    after: Sureness
    crossed: Sureness | None
    is_at_bound: bool


def tempered(probabilities: Sequence[float], temperature: float) -> tuple[float, ...]:
    """(3,) probabilities at that temperature: softmax(log p / T); they sum to 1, and 1 leaves them as they are.

    Raises `DataError` for a temperature that is no positive number.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise DataError(f"a temperature is a positive number, found {temperature!r}; run stage: calibrate again")
    logarithms = [math.log(max(one, SMALLEST)) / temperature for one in probabilities]
    top = max(logarithms)
    weights = [math.exp(one - top) for one in logarithms]
    total = math.fsum(weights)
    return tuple(one / total for one in weights)


def fit_temperature(
    probabilities: Sequence[Sequence[float]], levels: Sequence[int], groups: Sequence[str | None] | None = None
) -> Calibration:
    """The temperature for (N, 3) probabilities whose true levels are (N,) numbers from 0 to 2.

    `groups` says which rows belong together in cross-fitting; a row without one stands for itself. Raises `DataError`
    for fewer than 10 rows, for probabilities that are none, and where the likeliest level is the true one in every row:
    nothing there says how often the model errs, and the search would run to its lower bound.
    """
    _check(probabilities, levels, groups)
    beliefs, truths = np.asarray(probabilities, dtype=np.float64), np.asarray(levels, dtype=np.int64)
    before = sureness(beliefs, truths)
    if before.accuracy == 1:
        raise DataError(
            f"the level is right in each of the {len(truths)} rows, so that they cannot tell how often the model errs, "
            f"and the temperature would run to its bound of {LEAST_TEMPERATURE}; name more rows, or harder ones"
        )
    temperature = _best_temperature(beliefs, truths)
    logarithm = math.log(temperature)
    near = min(abs(logarithm - math.log(bound)) for bound in (LEAST_TEMPERATURE, GREATEST_TEMPERATURE))
    return Calibration(
        temperature=temperature,
        num_rows=len(truths),
        before=before,
        after=sureness(_all_tempered(beliefs, temperature), truths),
        crossed=_crossed(beliefs, truths, groups or [None] * len(truths)),
        is_at_bound=near < 1e-2,
    )


def sureness(probabilities: Sequence[Sequence[float]] | Array, levels: Sequence[int] | NDArray[np.int64]) -> Sureness:
    """How far (N, 3) probabilities are to be believed, beside (N,) true levels. Raises `DataError` without rows."""
    beliefs, truths = np.asarray(probabilities, dtype=np.float64), np.asarray(levels, dtype=np.int64)
    answers = beliefs.argmax(axis=1) if len(beliefs) else np.array([], dtype=np.int64)
    scores = probability_scores(beliefs.tolist(), answers.tolist(), truths.tolist())
    if scores is None or scores["ece"] is None or scores["brier"] is None:
        raise DataError("no rows with probabilities of levels: give at least one")
    return Sureness(
        nll=_nll(np.log(np.maximum(beliefs, SMALLEST)), truths, 1.0),
        ece=scores["ece"],
        brier=scores["brier"],
        confidence=float(beliefs.max(axis=1).mean()),
        accuracy=float((answers == truths).mean()),
    )


def _check(
    probabilities: Sequence[Sequence[float]], levels: Sequence[int], groups: Sequence[str | None] | None
) -> None:
    if not len(probabilities) == len(levels) == len(levels if groups is None else groups):
        raise DataError("probabilities, levels and groups differ in number: give one a row")
    if wrong := [level for level in levels if level not in tuple(RiskLevel)]:
        raise DataError(f"levels are numbers from 0 to 2, found {wrong[0]!r}")
    if len(levels) < FEWEST_ROWS:
        raise DataError(
            f"{len(levels)} rows with probabilities of levels: a temperature takes at least {FEWEST_ROWS}, better a "
            "few hundred; name more rows"
        )


def _all_tempered(beliefs: Array, temperature: float) -> Array:
    """(N, 3) -> (N, 3), each row as `tempered` does it."""
    return np.array([tempered(row, temperature) for row in beliefs.tolist()])


def _nll(logarithms: Array, truths: NDArray[np.int64], temperature: float) -> float:
    """Mean negative log likelihood of the truths under (N, 3) `logarithms` of probabilities at that temperature."""
    scaled = logarithms / temperature
    top = scaled.max(axis=1)
    total = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float((total - scaled[np.arange(len(truths)), truths]).mean())


def _best_temperature(beliefs: Array, truths: NDArray[np.int64]) -> float:
    """The minimum is the only one: NLL is convex in 1/T."""
    from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

    logarithms = np.log(np.maximum(beliefs, SMALLEST))
    found = minimize_scalar(
        lambda log_t: _nll(logarithms, truths, math.exp(log_t)),
        bounds=(math.log(LEAST_TEMPERATURE), math.log(GREATEST_TEMPERATURE)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    # Where every temperature is alike the search ends anywhere: then none is better than leaving things as they are
    best = math.exp(float(found.x))
    return best if _nll(logarithms, truths, best) < _nll(logarithms, truths, 1.0) else 1.0


def _crossed(beliefs: Array, truths: NDArray[np.int64], groups: Sequence[str | None]) -> Sureness | None:
    folds = _folds(groups)
    if folds.max() == 0:
        return None
    told = np.empty_like(beliefs)
    for fold in range(folds.max() + 1):
        held = folds == fold
        told[held] = _all_tempered(beliefs[held], _temperature_of(beliefs[~held], truths[~held]))
    return sureness(told, truths)


def _temperature_of(beliefs: Array, truths: NDArray[np.int64]) -> float:
    """As `fit_temperature`: rows without a mistake have no temperature, and leave things as they are."""
    return 1.0 if np.array_equal(beliefs.argmax(axis=1), truths) else _best_temperature(beliefs, truths)


def _folds(groups: Sequence[str | None]) -> NDArray[np.int64]:
    """(N,): each row's part from 0, at most ten, as even as whole groups allow."""
    units: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        units.setdefault(row if group is None else group, []).append(row)
    folds, sizes = np.zeros(len(groups), dtype=np.int64), [0] * min(NUM_FOLDS, len(units))
    for rows in sorted(units.values(), key=len, reverse=True):
        fold = sizes.index(min(sizes))
        folds[rows] = fold
        sizes[fold] += len(rows)
    return folds
