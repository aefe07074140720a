import random

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from evaluation.probabilities import ProbabilityScores, probability_scores
from riskva.errors import DataError


def _scores(*arguments: object, **options: object) -> ProbabilityScores:
    found = probability_scores(*arguments, **options)  # type: ignore[arg-type]
    assert found is not None
    return found


def _draw(seed: int, size: int = 200) -> tuple[list[list[float]], list[int], list[int]]:
    draw = np.random.default_rng(seed)
    beliefs = draw.dirichlet([1, 1, 1], size=size)
    references = [int(draw.choice(3, p=belief)) for belief in beliefs]
    return beliefs.tolist(), [int(one) for one in beliefs.argmax(axis=1)], references


def test_two_rows_worked_by_hand() -> None:
    scores = _scores([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]], [0, 0], [0, 2])
    # 0.3² + 0.2² + 0.1² = 0.14 and 0.5² + 0.3² + 0.8² = 0.98
    assert scores["brier"] == pytest.approx((0.14 + 0.98) / 2)
    # cumulated: (−0.3, −0.1, 0) and (0.5, 0.8, 0); halves of 0.10 and 0.89
    assert scores["rps"] == pytest.approx((0.05 + 0.445) / 2)
    # 0.7 is right, 0.5 is wrong, each alone in its bin
    assert scores["ece"] == pytest.approx((0.3 + 0.5) / 2)
    assert scores["risk_coverage"] == [(0.5, 0.0), (1.0, 0.5)]
    assert scores["aurc"] == pytest.approx(0.25)
    assert scores["num_rows"] == 2


def test_certainty_scores_at_the_ends() -> None:
    right = _scores([[0, 0, 1]], [2], [2])
    assert (right["brier"], right["rps"], right["ece"], right["aurc"]) == (0, 0, 0, 0)
    wrong = _scores([[1, 0, 0]], [0], [2])
    assert (wrong["brier"], wrong["rps"], wrong["ece"], wrong["aurc"]) == (2, 1, 1, 1)


def test_rps_forgives_the_neighbouring_level() -> None:
    near, far = _scores([[0, 1, 0]], [1], [2]), _scores([[1, 0, 0]], [0], [2])
    assert near["brier"] == far["brier"]
    assert (near["rps"], far["rps"]) == (0.5, 1)


def test_brier_is_scikit_learns() -> None:
    beliefs, answers, references = _draw(1)
    expected = brier_score_loss(references, beliefs, labels=[0, 1, 2], scale_by_half=False)
    assert _scores(beliefs, answers, references)["brier"] == pytest.approx(expected)


def test_brier_of_two_levels_is_twice_scikit_learns() -> None:
    draw = random.Random(2)
    shares = [draw.random() for _ in range(50)]
    references = [draw.choice([0, 1]) for _ in shares]
    scores = _scores([[1 - one, one, 0] for one in shares], [0] * 50, references)
    assert scores["brier"] == pytest.approx(2 * brier_score_loss(references, shares))


def test_calibration_error_is_the_papers() -> None:
    beliefs, answers, references = _draw(3, size=1000)
    confidence = np.max(beliefs, axis=1)
    right = np.equal(answers, references)
    expected = 0.0
    for low, high in zip(np.arange(15) / 15, np.arange(1, 16) / 15, strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    scores = _scores(beliefs, answers, references)
    assert scores["ece"] == pytest.approx(expected)
    # these levels are drawn by their probabilities; 15 bins of 1,000 rows are 0.03 off by chance here
    assert expected < 0.06


def test_aurc_is_the_mean_risk_over_all_numbers_of_rows_kept() -> None:
    beliefs, answers, references = _draw(4)
    order = np.argsort(-np.max(beliefs, axis=1))
    wrong = np.not_equal(answers, references)[order]
    scores = _scores(beliefs, answers, references)
    assert scores["aurc"] == pytest.approx((np.cumsum(wrong) / np.arange(1, 201)).mean())
    assert scores["risk_coverage"][-1] == (1.0, pytest.approx(wrong.mean()))
    assert len(scores["risk_coverage"]) == 100
    assert set(scores["risk_coverage"]) <= {((k + 1) / 200, wrong[: k + 1].mean()) for k in range(200)}


def test_ties_are_kept_together_whatever_their_order() -> None:
    confidences = [0.9, 0.9, 0.5]
    for answers in ([0, 1, 0], [1, 0, 0]):
        scores = _scores([None] * 3, answers, [0, 0, 0], confidences)
        assert scores["risk_coverage"] == [(pytest.approx(2 / 3), 0.5), (1.0, pytest.approx(1 / 3))]
        assert scores["aurc"] == pytest.approx((0.5 + 0.5 + 1 / 3) / 3)


def test_rows_without_any_are_left_out() -> None:
    full = _scores([[0.7, 0.2, 0.1]], [0], [0])
    assert _scores([None, [0.7, 0.2, 0.1], None], [1, 0, None], [0, 0, 2]) == full
    assert probability_scores([None, None], [0, 1], [0, 1]) is None
    assert probability_scores([None], [0], [0], [None]) is None


def test_confidences_alone_tell_no_brier() -> None:
    scores = _scores([None, None], [0, 1], [0, 0], [0.8, 0.6])
    assert scores["brier"] is None
    assert scores["rps"] is None
    assert scores["ece"] == pytest.approx((0.2 + 0.6) / 2)


def test_a_given_confidence_goes_before_the_answers_probability() -> None:
    scores = _scores([[0.6, 0.4, 0.0], [0.6, 0.4, 0.0]], [0, 0], [0, 0], [0.9, None])
    assert scores["ece"] == pytest.approx((0.1 + 0.4) / 2)


def test_an_unparsed_answer_is_wrong_and_as_confident_as_the_likeliest_level() -> None:
    scores = _scores([[0.8, 0.1, 0.1]], [None], [0])
    assert scores["ece"] == pytest.approx(0.8)
    assert scores["aurc"] == 1
    assert scores["brier"] == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("belief", "message"),
    [
        ([0.5, 0.3, 0.1], r"row 1: probabilities are 0 to 1 and sum to 1, found \[0.5, 0.3, 0.1\]"),
        ([1.2, -0.2, 0.0], "row 1: probabilities"),
        ([float("nan"), 0.5, 0.5], "row 1: probabilities"),
        ([0.5, 0.5], r"row 1: expected 3 probabilities, found shape \(2,\)"),
    ],
)
def test_bad_probabilities_are_refused(belief: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        probability_scores([[1, 0, 0], belief], [0, 0], [0, 0])


def test_rounded_probabilities_are_taken() -> None:
    assert _scores([[0.3333, 0.3333, 0.3333]], [0], [0])["num_rows"] == 1


def test_bad_confidences_and_lengths_are_refused() -> None:
    with pytest.raises(DataError, match=r"row 0: a confidence is 0 to 1, found 1\.5"):
        probability_scores([None], [0], [0], [1.5])
    with pytest.raises(DataError, match="give one a row"):
        probability_scores([None], [0, 1], [0, 1])
