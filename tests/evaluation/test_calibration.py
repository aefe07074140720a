from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from report_rows import MINOR, MODERATE, SEVERE, right_rows
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss

from evaluation.calibration import (
    GREATEST_TEMPERATURE,
    LEAST_TEMPERATURE,
    Calibration,
    fit_temperature,
    sureness,
    tempered,
)
from evaluation.calibration_rows import calibrate, level_rows, render_calibration
from evaluation.predictions import Prediction
from evaluation.probabilities import probability_scores
from riskva.errors import DataError
from riskva.report import DEFAULT_FORMAT

Rows = tuple[list[list[float]], list[int]]


def _too_sure(num_rows: int, factor: float, seed: int = 0) -> Rows:
    """Levels drawn from true probabilities, and the probabilities of a model whose logits are `factor` times theirs."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(scale=1.5, size=(num_rows, 3))
    levels = [int(draw.choice(3, p=softmax(row))) for row in logits]
    return softmax(factor * logits, axis=1).tolist(), levels


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_found_again(factor: float) -> None:
    # 4,000 rows: over 40 seeds the estimate was off by 4.5 % at most
    calibration = fit_temperature(*_too_sure(4000, factor))
    assert calibration.temperature == pytest.approx(factor, rel=0.07)
    assert not calibration.is_at_bound
    assert calibration.crossed is not None
    assert calibration.after.ece < 0.03
    assert calibration.crossed.ece < 0.03


def test_scores_are_those_of_scikit_learn_and_of_evaluation() -> None:
    probabilities, levels = _too_sure(300, 2.0, seed=3)
    calibration = fit_temperature(probabilities, levels)
    by_hand = softmax(np.log(probabilities) / calibration.temperature, axis=1)
    for scores, beliefs in ((calibration.before, np.array(probabilities)), (calibration.after, by_hand)):
        assert scores.nll == pytest.approx(log_loss(levels, beliefs, labels=[0, 1, 2]), rel=1e-9)
        assert scores.brier == pytest.approx(brier_score_loss(levels, beliefs, labels=[0, 1, 2], scale_by_half=False))
        known = probability_scores(beliefs.tolist(), beliefs.argmax(axis=1).tolist(), levels)
        assert known is not None
        assert scores.ece == pytest.approx(known["ece"])
        assert scores.accuracy == pytest.approx((beliefs.argmax(axis=1) == levels).mean())


def test_no_other_temperature_is_better() -> None:
    probabilities, levels = _too_sure(200, 1.7, seed=5)
    best = fit_temperature(probabilities, levels)

    def loss(temperature: float) -> float:
        return log_loss(levels, [tempered(one, temperature) for one in probabilities], labels=[0, 1, 2])

    tried = [loss(one) for one in np.geomspace(LEAST_TEMPERATURE, GREATEST_TEMPERATURE, 400)]
    assert best.after.nll <= min(tried) + 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_the_fit_never_makes_the_fitted_rows_worse_and_changes_no_level(seed: int) -> None:
    probabilities, levels = _too_sure(25, 0.3 + 0.2 * seed, seed)
    calibration = fit_temperature(probabilities, levels)
    assert calibration.after.nll <= calibration.before.nll
    assert calibration.after.accuracy == calibration.before.accuracy


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 3.0, 20.0])
def test_tempering_keeps_a_distribution_and_its_order(temperature: float) -> None:
    rows = [*np.random.default_rng(1).dirichlet([0.3, 0.3, 0.3], size=200).tolist(), [1, 0, 0], [0, 0.5, 0.5]]
    for row in rows:
        told = tempered(row, temperature)
        assert sum(told) == pytest.approx(1, abs=1e-12)
        assert int(np.argmax(told)) == int(np.argmax(row))
        order = np.argsort(row)
        assert all(told[low] <= told[high] for low, high in pairwise(order))
        if temperature == 1:
            assert told == pytest.approx(row, abs=1e-11)


def test_a_probability_of_zero_is_a_number_and_one_such_mistake_is_not_endless() -> None:
    assert tempered([0.0, 1.0, 0.0], 2.0) == pytest.approx([1e-6, 1, 1e-6], rel=1e-4)
    probabilities, levels = _too_sure(100, 1.0)
    calibration = fit_temperature([*probabilities, [1.0, 0.0, 0.0]], [*levels, 2])
    assert np.isfinite(calibration.before.nll)
    assert LEAST_TEMPERATURE < calibration.temperature < GREATEST_TEMPERATURE


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(temperature: float) -> None:
    with pytest.raises(DataError, match="a temperature is a positive number"):
        tempered([0.5, 0.3, 0.2], temperature)


def test_rows_of_one_group_are_never_apart_in_cross_fitting() -> None:
    probabilities, levels = _too_sure(60, 3.0, seed=2)
    # Each row three times over: alone, its twins would be fitted to; as groups, they are left out with it
    many, truths = [one for one in probabilities for _ in range(3)], [one for one in levels for _ in range(3)]
    names = [f"house {row}" for row in range(60) for _ in range(3)]
    once, grouped = fit_temperature(probabilities, levels), fit_temperature(many, truths, names)
    apart = fit_temperature(many, truths)
    assert once.crossed is not None
    assert grouped.crossed is not None
    assert apart.crossed is not None
    assert grouped.crossed.nll == pytest.approx(once.crossed.nll, rel=1e-6)
    assert apart.crossed.nll < grouped.crossed.nll
    assert grouped.after.nll == pytest.approx(once.after.nll)


def test_cross_fitted_scores_are_worse_than_those_of_the_fitted_rows() -> None:
    gaps = []
    for seed in range(30):
        calibration = fit_temperature(*_too_sure(30, 2.0, seed))
        assert calibration.crossed is not None
        gaps.append(calibration.crossed.nll - calibration.after.nll)
    assert np.mean(gaps) > 0.005


def test_rows_of_a_single_group_cannot_be_cross_fitted() -> None:
    assert fit_temperature(*_too_sure(30, 2.0), ["one house"] * 30).crossed is None


def test_too_few_rows_are_refused_with_the_remedy() -> None:
    with pytest.raises(DataError, match=r"9 rows with probabilities.*at least 10.*name more rows"):
        fit_temperature(*_too_sure(9, 1.0))


def test_rows_without_a_mistake_are_refused_with_the_reason() -> None:
    with pytest.raises(DataError, match=r"right in each of the 12 rows.*its bound of 0\.05; name more rows"):
        fit_temperature([[0.8, 0.1, 0.1]] * 12, [0] * 12)


def test_a_model_that_is_sure_and_mostly_wrong_hits_the_bound_and_it_is_told() -> None:
    calibration = fit_temperature([[0.98, 0.01, 0.01]] * 12, [1] * 11 + [0])
    assert calibration.is_at_bound
    assert calibration.temperature == pytest.approx(GREATEST_TEMPERATURE, rel=0.02)


def test_lists_that_do_not_fit_together_are_refused() -> None:
    probabilities, levels = _too_sure(12, 1.0)
    with pytest.raises(DataError, match="differ in number"):
        fit_temperature(probabilities, levels[1:])
    with pytest.raises(DataError, match="levels are numbers from 0 to 2, found 3"):
        fit_temperature(probabilities, [*levels[1:], 3])
    with pytest.raises(DataError, match="row 0: probabilities are 0 to 1"):
        fit_temperature([[0.9, 0.9, 0.9], *probabilities[1:]], levels)
    with pytest.raises(DataError, match="no rows with probabilities"):
        sureness([], [])


def _answered(num_rows: int) -> list[Prediction]:
    rows = right_rows([(MINOR, MODERATE, SEVERE)[row % 3] for row in range(num_rows)])
    beliefs, _ = _too_sure(num_rows, 2.0)
    return [replace(row, level_probabilities=tuple(belief)) for row, belief in zip(rows, beliefs, strict=True)]


def test_rows_without_belief_report_or_truth_are_left_out_and_counted() -> None:
    rows = _answered(20)
    rows[0] = replace(rows[0], level_probabilities=None)
    rows[1] = replace(rows[1], finish_reason="length")
    rows[2] = replace(rows[2], label="没有报告")
    rows[3] = replace(rows[3], error="no such photo", level_probabilities=None)
    kept = level_rows(rows, DEFAULT_FORMAT)
    assert len(kept.levels) == len(kept.probabilities) == len(kept.groups) == 16
    assert kept.levels[:3] == (MODERATE, SEVERE, MINOR)
    assert kept.left_out == {
        "no probabilities of levels": 1,
        "the answer is no report": 1,
        "the label is no report": 1,
        "could not be predicted": 1,
    }


def test_nothing_to_fit_to_is_told_with_what_was_left_out() -> None:
    rows = level_rows(right_rows([MINOR] * 30), DEFAULT_FORMAT)
    with pytest.raises(DataError, match=r"eval_dataset: 0 rows.*left out: 30 × no probabilities of levels"):
        calibrate(rows)


def test_the_table_shows_both_data_sets_before_and_after() -> None:
    fitted, test = level_rows(_answered(40), DEFAULT_FORMAT), level_rows(_answered(60)[40:], DEFAULT_FORMAT)
    calibration = calibrate(fitted)
    lines = render_calibration(calibration, fitted, test).splitlines()
    assert lines[0] == f"temperature {calibration.temperature:.3f}, fitted to 40 rows"
    (fitted_line,) = [line for line in lines if line.startswith("fitted rows, as answered")]
    assert f"{calibration.before.ece:.4f}" in fitted_line
    (test_line,) = [line for line in lines if line.startswith("test rows, as answered")]
    assert f"{sureness(test.probabilities, test.levels).nll:.4f}" in test_line
    tempered_line = lines[lines.index(test_line) + 1]
    assert f"{sureness(test.tempered(calibration.temperature), test.levels).nll:.4f}" in tempered_line
    assert any(line.startswith("warning: a rough temperature: 40 rows") for line in lines)


def test_a_fit_at_the_bound_is_warned_of() -> None:
    fitted = level_rows(_answered(40), DEFAULT_FORMAT)
    at_bound: Calibration = replace(calibrate(fitted), is_at_bound=True)
    assert "warning: the fit hit the bound" in render_calibration(at_bound, fitted)


def test_a_part_whose_other_rows_have_no_mistake_is_left_as_it_is_in_cross_fitting() -> None:
    # one mistake: the rows beside it have none, so that no temperature could be fitted to them
    calibration = fit_temperature([[0.9, 0.06, 0.04]] * 20, [0] * 19 + [2], [str(row) for row in range(20)])
    assert calibration.crossed is not None
    assert calibration.crossed.nll < calibration.before.nll + 1
