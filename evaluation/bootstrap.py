"""95 % intervals of scores by resampling rows, or whole groups of rows where rows belong together.

Every score here is a function of sums over rows, so that a resample is no more than weights: how often each group was
drawn, times the sums of each group. Intervals are bias-corrected and accelerated (BCa; Efron, 1987), with the
acceleration from a jackknife over groups, and widened for few groups as Hesterberg (2015) proposes: the normal quantile
becomes Student's with one degree of freedom less than there are groups, times sqrt(G / (G - 1)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from evaluation.score_names import Interval
from riskva.errors import DataError

Array = NDArray[np.float64]

Statistics = Callable[[Array], Mapping[str, Array]]
"""From sums of terms, (..., K), to named scores, (...); NaN where a score cannot be told."""

_TAIL = 0.025
_NUM_DRAWN_AT_ONCE = 2_000_000
"""Draws that are held at a time: 50 MB up to that many rows."""

_ROUNDING = 1e-10
"""What differs by less is equal, relative to the score: sums of 100,000 terms in another order differ by 1e-14."""


def intervals(
    terms: Array,
    groups: Sequence[str] | None,
    statistics: Statistics,
    *,
    num_resamples: int = 2000,
    seed: int = 0,
    share_units: Mapping[str, int] | None = None,
) -> dict[str, Interval | None]:
    """The 95 % interval of each score; None where none can be told.

    `terms` is (N, K); `statistics` makes scores of their sums over rows. `groups` names the group of each row (N), None
    takes each row for its own. The same seed gives the same intervals, whatever the order of rows. None is given for
    fewer than two groups, for a score that is NaN, and for one that no resample changes. Resamples in which a score is
    NaN are left out for it.

    `share_units` names the scores that are shares, and how many groups (or rows) have a row that each is a share of:
    all of them for accuracy, those with a 严重 reference for its recall. Where a share is 0 or 1, resampling finds
    nothing else, though few rows can only say that the truth is near: such a share has the exact binomial bound,
    one-sided at 2.5 %, as if each of its groups were one draw.

    Raises `DataError` when rows and groups differ in number, or there are no rows.
    """
    bound = _share_bound(share_units)
    return _intervals(terms, groups, statistics, num_resamples=num_resamples, seed=seed, bound=bound)


def _intervals(
    terms: Array,
    groups: Sequence[str] | None,
    statistics: Statistics,
    *,
    num_resamples: int,
    seed: int,
    bound: Callable[[str, float], Interval | None],
) -> dict[str, Interval | None]:
    """`intervals`; `bound` gives that of a score which no resample changes."""
    _check(terms, groups)
    sums = _group_sums(terms, groups)
    observed = {name: float(value) for name, value in statistics(sums.sum(axis=0)).items()}
    if len(sums) < 2:
        return dict.fromkeys(observed)
    resampled = statistics(_resampled_sums(sums, num_resamples, seed))
    left_out = statistics(sums.sum(axis=0) - sums)
    return {
        name: bound(name, score)
        if _is_constant(resampled[name], score)
        else _bca(score, resampled[name], left_out[name])
        for name, score in observed.items()
    }


def paired_intervals(
    first: Array,
    second: Array,
    groups: Sequence[str] | None,
    statistics: Statistics,
    *,
    num_resamples: int = 2000,
    seed: int = 0,
    share_units: Mapping[str, int] | None = None,
) -> dict[str, Interval | None]:
    """The 95 % interval of each score of `second` minus that of `first`, both (N, K) and of the same rows in order.

    Every resample draws the same rows for both, so that what makes a row hard for either cancels out. Otherwise as
    `intervals`; two runs that differ nowhere have None. A share that is 1 in one run and 0 in the other has a bound:
    were a draw to show that with probability q, and the contrary otherwise, the difference would be 2 q - 1. Raises
    `DataError` when the shapes differ.
    """
    if first.shape != second.shape:
        raise DataError(f"terms of the same rows have one shape, found {first.shape} and {second.shape}")
    num_terms = first.shape[1]

    def differences(sums: Array) -> Mapping[str, Array]:
        before, after = statistics(sums[..., :num_terms]), statistics(sums[..., num_terms:])
        return {name: after[name] - before[name] for name in before}

    terms, bound = np.hstack([first, second]), _difference_bound(share_units)
    return _intervals(terms, groups, differences, num_resamples=num_resamples, seed=seed, bound=bound)


def _check(terms: Array, groups: Sequence[str] | None) -> None:
    if not len(terms):
        raise DataError("no rows to resample: give at least one")
    if groups is not None and len(groups) != len(terms):
        raise DataError(f"{len(groups)} group(s) for {len(terms)} row(s): give one a row")


def _group_sums(terms: Array, groups: Sequence[str] | None) -> Array:
    """(G, K), in an order that does not depend on that of the rows: a draw picks groups by their place."""
    if groups is None:
        return terms[np.lexsort(terms.T[::-1])]
    names, places = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    columns = [np.bincount(places, weights=column, minlength=len(names)) for column in terms.T]
    return np.stack(columns, axis=-1)


def _resampled_sums(sums: Array, num_resamples: int, seed: int) -> Array:
    """(R, K): sums over as many groups as there are, drawn with replacement."""
    draw = np.random.default_rng(seed)
    return np.concatenate([weights @ sums for weights in _weights(len(sums), num_resamples, draw)])


def _weights(num_groups: int, num_resamples: int, draw: np.random.Generator) -> Iterator[Array]:
    """(R', G) at a time, as few resamples as memory allows: how often each group was drawn."""
    at_once = max(1, _NUM_DRAWN_AT_ONCE // num_groups)
    for start in range(0, num_resamples, at_once):
        size = min(at_once, num_resamples - start)
        drawn = draw.integers(0, num_groups, size=(size, num_groups))
        drawn += np.arange(size)[:, None] * num_groups
        counts = np.bincount(drawn.ravel(), minlength=size * num_groups)
        yield counts.reshape(size, num_groups).astype(np.float64)


def _is_constant(resampled: Array, observed: float) -> bool:
    known = resampled[np.isfinite(resampled)]
    return not len(known) or not math.isfinite(observed) or float(np.ptp(known)) <= _rounding(observed)


def _rounding(observed: float) -> float:
    return _ROUNDING * max(1.0, abs(observed))


def _share_bound(num_units: Mapping[str, int] | None) -> Callable[[str, float], Interval | None]:
    """The exact binomial bound of a share that is 0 or 1 in all its groups, None for anything else."""

    def bound(name: str, share: float) -> Interval | None:
        units = (num_units or {}).get(name, 0)
        if share not in (0, 1) or not units:
            return None
        lowest = _TAIL ** (1 / units)
        return (lowest, 1.0) if share == 1 else (0.0, 1 - lowest)

    return bound


def _difference_bound(num_units: Mapping[str, int] | None) -> Callable[[str, float], Interval | None]:
    """That of the difference of two shares, 1 or -1 in all groups; none for two runs that differ nowhere."""

    def bound(name: str, difference: float) -> Interval | None:
        units = (num_units or {}).get(name, 0)
        if difference not in (-1, 1) or not units:
            return None
        nearest = 2 * _TAIL ** (1 / units) - 1
        return (nearest, 1.0) if difference == 1 else (-1.0, -nearest)

    return bound


def _bca(observed: float, resampled: Array, left_out: Array) -> Interval:
    known = resampled[np.isfinite(resampled)]
    bias, acceleration = _bias(observed, known), _acceleration(left_out[np.isfinite(left_out)])
    width = _width(len(left_out))
    levels = [_level(bias, acceleration, side * width) for side in (-1, 1)]
    low, high = np.quantile(known, levels)
    return float(low), float(high)


def _bias(observed: float, resampled: Array) -> float:
    """The normal quantile of the share of resamples below what was observed, equal ones counted half."""
    rounding = _rounding(observed)
    below = (np.mean(resampled < observed - rounding) + np.mean(resampled <= observed + rounding)) / 2
    # all resamples on one side: as far as their number can tell
    at_least = 0.5 / len(resampled)
    return NormalDist().inv_cdf(float(np.clip(below, at_least, 1 - at_least)))


def _acceleration(left_out: Array) -> float:
    """A sixth of the skewness of the jackknife, one score for each group left out."""
    if len(left_out) < 2:
        return 0.0
    deviations = left_out.mean() - left_out
    spread = float(np.square(deviations).sum()) ** 1.5
    return float((deviations**3).sum()) / (6 * spread) if spread > 0 else 0.0


def _width(num_groups: int) -> float:
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    return math.sqrt(num_groups / (num_groups - 1)) * float(stdtrit(num_groups - 1, 1 - _TAIL))


def _level(bias: float, acceleration: float, quantile: float) -> float:
    """Which quantile of the resamples stands for this one of the normal distribution, 0 to 1."""
    shifted = bias + quantile
    shrunk = 1 - acceleration * shifted
    # beyond its pole the formula would turn round; the limit there is the outermost resample
    return NormalDist().cdf(bias + shifted / shrunk) if shrunk > 0 else float(shifted > 0)
