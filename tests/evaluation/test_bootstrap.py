from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap, norm, t
from simulate_coverage import Setting

from evaluation.bootstrap import intervals, paired_intervals
from evaluation.levels import cells, level_statistics
from riskva.errors import DataError
from riskva.level_costs import DEFAULT_COSTS

Array = NDArray[np.float64]


def _mean(sums: Array) -> Mapping[str, Array]:
    """(..., 2): a total and a count."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"mean": np.asarray(sums[..., 0] / sums[..., 1])}


def _with_ones(values: Array) -> Array:
    return np.stack([values, np.ones_like(values)], axis=-1)


@pytest.mark.parametrize("setting", [Setting(40, largest=8), Setting(100)], ids=["40 groups", "100 rows"])
def test_they_cover_the_truth(setting: Setting) -> None:
    found = setting.coverage(1000, seed=3)
    # 95 % meant; a thousand simulations tell it to 0.7 %. scripts/simulate_coverage.py has all settings and scores
    assert all(0.93 <= found[name] <= 0.97 for name in ("accuracy", "macro_f1", "rouge")), found


@pytest.mark.parametrize("ratio", [False, True], ids=["mean", "ratio"])
@pytest.mark.parametrize("num_rows", [15, 40, 400])
def test_they_are_scipys_bca(num_rows: int, ratio: bool) -> None:
    draw = np.random.default_rng(num_rows)
    totals = draw.exponential(3, size=num_rows)
    counts = draw.integers(1, 6, size=num_rows).astype(float) if ratio else np.ones(num_rows)

    def score(total: Array, count: Array, axis: int = -1) -> Array:
        return np.asarray(total.sum(axis=axis) / count.sum(axis=axis))

    # widened for few rows, they are scipy's of a higher confidence
    quantile = np.sqrt(num_rows / (num_rows - 1)) * t.ppf(0.975, num_rows - 1)
    authority = bootstrap(
        (totals, counts),
        score,
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        confidence_level=2 * norm.cdf(quantile) - 1,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    found = intervals(np.stack([totals, counts], axis=-1), None, _mean, num_resamples=20_000)["mean"]
    # relative to the width, over ten seeds 20,000 resamples put an end 0.03 off at most
    assert found == pytest.approx(authority, abs=0.05 * (authority.high - authority.low))


def test_groups_are_drawn_whole() -> None:
    draw = np.random.default_rng(5)
    values = np.repeat(draw.normal(size=50), 20)
    groups = [f"house {row // 20}" for row in range(1000)]
    by_group = intervals(_with_ones(values), groups, _mean)["mean"]
    by_row = intervals(_with_ones(values), None, _mean)["mean"]
    assert by_group is not None
    assert by_row is not None
    # rows of a group are all alike, so that 1,000 rows are 50: sqrt(20) = 4.5 times as wide, widened a little more
    assert 4 < (by_group[1] - by_group[0]) / (by_row[1] - by_row[0]) < 5.5


def test_the_order_of_rows_does_not_matter() -> None:
    draw = np.random.default_rng(6)
    terms = draw.exponential(size=(200, 2))
    groups = [f"{number}" for number in draw.integers(0, 30, size=200)]
    order = draw.permutation(200)
    shuffled = [groups[row] for row in order]
    assert intervals(terms[order], None, _mean) == intervals(terms, None, _mean)
    # sums over a group round otherwise in another order: 4e-16 here
    assert intervals(terms[order], shuffled, _mean)["mean"] == pytest.approx(intervals(terms, groups, _mean)["mean"])


def test_a_seed_fixes_them() -> None:
    terms = _with_ones(np.random.default_rng(7).exponential(size=50))
    assert intervals(terms, None, _mean, seed=1) == intervals(terms, None, _mean, seed=1)
    assert intervals(terms, None, _mean, seed=1) != intervals(terms, None, _mean, seed=2)


def test_memory_does_not_change_them(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = _with_ones(np.random.default_rng(8).integers(0, 9, size=50).astype(float))
    at_once = intervals(terms, None, _mean)
    monkeypatch.setattr("evaluation.bootstrap._NUM_DRAWN_AT_ONCE", 170)
    assert intervals(terms, None, _mean) == at_once


def test_pairs_cancel_what_makes_a_row_hard() -> None:
    draw = np.random.default_rng(9)
    hard = draw.normal(0, 10, size=300)
    first, second = _with_ones(hard), _with_ones(hard + draw.normal(1, 1, size=300))
    found = paired_intervals(first, second, None, _mean)["mean"]
    assert found is not None
    lead = intervals(_with_ones(second[:, 0] - first[:, 0]), None, _mean)["mean"]
    # the same rows in another order are drawn: two ways to the interval of one mean
    assert found == pytest.approx(lead, abs=0.03)
    assert 0.7 < found[0] < 1 < found[1] < 1.3


def test_pairs_that_differ_nowhere_have_none() -> None:
    terms = _with_ones(np.random.default_rng(10).normal(size=30))
    assert paired_intervals(terms, terms, None, _mean) == {"mean": None}


def test_one_group_tells_nothing() -> None:
    assert intervals(_with_ones(np.arange(5.0)), ["a"] * 5, _mean) == {"mean": None}
    assert intervals(_with_ones(np.arange(1.0)), None, _mean) == {"mean": None}


def test_a_score_that_cannot_be_told_has_none() -> None:
    terms = np.column_stack([np.arange(5.0), np.zeros(5)])
    assert intervals(terms, None, _mean, share_units={"mean": 5}) == {"mean": None}


def test_resamples_without_the_score_are_left_out() -> None:
    # one row in eight counts, so that a third of the resamples has none
    counts = np.array([1.0, 1, 0, 0, 0, 0, 0, 0])
    found = intervals(np.column_stack([np.array([3.0, 5, 0, 0, 0, 0, 0, 0]), counts]), None, _mean)["mean"]
    assert found is not None
    assert 3 <= found[0] < found[1] <= 5


def test_scores_that_do_not_vary_have_none_unless_they_are_shares() -> None:
    right, wrong = _with_ones(np.ones(40)), _with_ones(np.zeros(40))
    assert intervals(right, None, _mean) == {"mean": None}
    assert intervals(_with_ones(np.full(40, 0.7)), None, _mean, share_units={"mean": 40}) == {"mean": None}
    assert intervals(right, None, _mean, share_units={"mean": 40})["mean"] == (pytest.approx(0.025 ** (1 / 40)), 1)
    assert intervals(wrong, None, _mean, share_units={"mean": 40})["mean"] == (0, pytest.approx(0.0881, abs=1e-4))


def test_a_share_of_few_rows_is_bounded_by_those() -> None:
    counts = cells([0] * 37 + [2] * 3, [0] * 37 + [2] * 3)

    def recall(sums: Array) -> Mapping[str, Array]:
        return {"severe_recall": level_statistics(sums, DEFAULT_COSTS.matrix)["severe_recall"]}

    found = intervals(counts, None, recall, share_units={"severe_recall": 3})
    assert found == {"severe_recall": (pytest.approx(0.025 ** (1 / 3)), 1)}


def test_extreme_rows_stay_inside_the_data() -> None:
    # one row has all: the acceleration comes near its pole
    terms = _with_ones(np.array([*np.zeros(9), 1000.0]))
    found = intervals(terms, None, _mean)["mean"]
    assert found is not None
    assert 0 <= found[0] < 100 < found[1] <= 1000


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 group\(s\) for 2 row\(s\)"):
        intervals(np.ones((2, 2)), ["a"], _mean)
    with pytest.raises(DataError, match="at least one"):
        intervals(np.ones((0, 2)), None, _mean)
    with pytest.raises(DataError, match=r"found \(2, 2\) and \(3, 2\)"):
        paired_intervals(np.ones((2, 2)), np.ones((3, 2)), None, _mean)
