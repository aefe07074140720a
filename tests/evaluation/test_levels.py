import random
import subprocess
import sys

import numpy as np
import pytest
from report_rows import HUNDRED
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    mean_absolute_error,
    precision_recall_fscore_support,
    precision_score,
    recall_score,
)

from evaluation.levels import NUM_CELLS, cells, level_scores, level_statistics, majority_level
from evaluation.probabilities import probability_scores
from riskva.errors import DataError, RecipeError
from riskva.level_costs import DEFAULT_COSTS, LevelCosts
from riskva.report import LEVEL_LABELS, RiskLevel


def _draw(seed: int, size: int = 60) -> tuple[list[int | None], list[int]]:
    draw = random.Random(seed)
    references = draw.choices([0, 1, 2], weights=[8, 3, 1], k=size)
    predictions: list[int | None] = [draw.choice([level, 0, 1, 2, None]) for level in references]
    return predictions, references


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn(seed: int) -> None:
    predictions, references = _draw(seed)
    coded = [9 if level is None else level for level in predictions]
    scores = level_scores(predictions, references)
    assert scores["accuracy"] == pytest.approx(accuracy_score(references, coded))
    assert scores["macro_f1"] == pytest.approx(
        f1_score(references, coded, labels=[0, 1, 2], average="macro", zero_division=0)
    )
    matrix = confusion_matrix(references, coded, labels=[0, 1, 2, 9])[:3].tolist()
    assert [list(row.values()) for row in scores["confusion"].values()] == matrix
    for level, label in enumerate(LEVEL_LABELS):
        one = scores["per_level"][label]
        options = {"labels": [level], "average": "macro", "zero_division": 0}
        assert one["precision"] == pytest.approx(precision_score(references, coded, **options))
        assert one["recall"] == pytest.approx(recall_score(references, coded, **options))
        assert one["f1"] == pytest.approx(f1_score(references, coded, **options))
        assert one["support"] == references.count(level)


@pytest.mark.parametrize("seed", range(20))
def test_parsed_answers_agree_with_scikit_learn(seed: int) -> None:
    predictions, references = _draw(seed, size=[3, 12, 200][seed % 3])
    answers = [0 if level is None else level for level in predictions]
    scores = level_scores(answers, references)
    labels = [0, 1, 2]
    columns = precision_recall_fscore_support(references, answers, labels=labels, zero_division=0)
    for one, *expected in zip(scores["per_level"].values(), *columns, strict=True):
        assert list(one.values()) == pytest.approx(expected)
    assert scores["mean_absolute_error"] == pytest.approx(mean_absolute_error(references, answers))
    assert scores["macro_f1"] == pytest.approx(
        f1_score(references, answers, labels=labels, average="macro", zero_division=0)
    )
    if len({*answers, *references}) > 1:
        kappa = cohen_kappa_score(references, answers, weights="quadratic", labels=labels)
        assert scores["quadratic_kappa"] == pytest.approx(kappa)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning", "ignore:invalid value")
def test_kappa_is_unknown_where_scikit_learns_is() -> None:
    assert np.isnan(cohen_kappa_score([1, 1], [1, 1], weights="quadratic", labels=[0, 1, 2]))
    assert level_scores([1, 1], [1, 1])["quadratic_kappa"] is None
    assert level_scores([1, 1], [1, 0])["quadratic_kappa"] == pytest.approx(0)


def test_statistics_are_the_scores_for_any_number_of_matrices() -> None:
    draws = [_draw(seed) for seed in range(6)]
    counts = np.stack([cells(*one).sum(axis=0) for one in draws]).reshape(2, 3, NUM_CELLS)
    found = level_statistics(counts, DEFAULT_COSTS.matrix)
    for place, one in enumerate(draws):
        scores = level_scores(*one)
        for name, values in found.items():
            assert values.shape == (2, 3)
            assert values.flat[place] == scores[name]  # type: ignore[literal-required]


def test_weights_are_repeated_rows() -> None:
    predictions, references = _draw(0, size=20)
    assert set(references) == {0, 1, 2}
    weights = 1 + np.arange(20) % 3
    weighted = level_statistics(weights @ cells(predictions, references), DEFAULT_COSTS.matrix)
    rows = np.repeat(np.arange(20), weights)
    repeated = level_scores([predictions[row] for row in rows], [references[row] for row in rows])
    assert all(float(value) == repeated[name] for name, value in weighted.items())  # type: ignore[literal-required]


def test_statistics_of_no_rows_are_unknown() -> None:
    found = level_statistics(np.zeros(NUM_CELLS), DEFAULT_COSTS.matrix)
    assert all(np.isnan(value) for value in found.values())
    assert len(found) == 8


def test_cells_are_reference_by_answer() -> None:
    table = cells([2, None, 0], [0, 1, 2])
    assert [list(np.flatnonzero(row)) for row in table] == [[2], [7], [8]]
    assert table.sum() == 3


def test_perfect_answers_score_one() -> None:
    references = [0, 0, 1, 2, 1]
    scores = level_scores(references, references)
    assert scores["accuracy"] == scores["macro_f1"] == scores["severe_recall"] == 1.0
    assert scores["under_call_rate"] == 0.0


def test_row_order_does_not_matter() -> None:
    predictions, references = _draw(3)
    order = random.Random(1).sample(range(len(references)), len(references))
    shuffled = level_scores([predictions[row] for row in order], [references[row] for row in order])
    assert shuffled == level_scores(predictions, references)


def test_the_floor_is_the_majority_level_everywhere() -> None:
    references = [0] * 239 + [1] * 9
    scores = level_scores([2] * 248, references)
    constant = level_scores([0] * 248, references)
    assert scores["floor_level"] == "轻微"
    assert scores["floor_accuracy"] == constant["accuracy"] == pytest.approx(0.9637, abs=1e-4)
    # 轻微 alone has F1 478/487; the absent 严重 counts as 0 instead of leaving the mean
    assert scores["floor_macro_f1"] == constant["macro_f1"] == pytest.approx(478 / 487 / 3)


def test_one_level_only_cannot_reach_a_perfect_macro_f1() -> None:
    scores = level_scores([1, 1], [1, 1])
    assert scores["accuracy"] == scores["floor_accuracy"] == 1.0
    assert scores["macro_f1"] == pytest.approx(1 / 3)
    assert scores["severe_recall"] is None
    assert level_scores([0], [0])["under_call_rate"] is None


def test_an_unparsed_answer_is_wrong_and_has_no_level() -> None:
    scores = level_scores([None, None, 1], [0, 2, 1])
    assert scores["accuracy"] == pytest.approx(1 / 3)
    assert scores["severe_recall"] == 0.0
    assert scores["under_call_rate"] == 0.0
    assert scores["num_unparsed"] == 2
    assert scores["confusion"]["严重"] == {"轻微": 0, "中等": 0, "严重": 0, "unparsed": 1}


def test_under_calls_are_counted_among_what_can_be_under_called() -> None:
    assert level_scores([0, 0, 0, 2, 1], [0, 0, 1, 1, 2])["under_call_rate"] == pytest.approx(2 / 3)


def test_over_calls_are_counted_among_what_can_be_over_called() -> None:
    assert level_scores([1, 2, 2, None, 2, 0], [0, 0, 1, 1, 2, 2])["over_call_rate"] == pytest.approx(3 / 4)
    assert level_scores([2], [2])["over_call_rate"] is None


def test_an_unparsed_answer_costs_and_errs_as_the_worst_level_does() -> None:
    references = [0, 1, 2]
    unparsed, worst = level_scores([None] * 3, references), level_scores([2, 0, 0], references)
    for name in ("expected_cost", "mean_absolute_error", "quadratic_kappa"):
        assert unparsed[name] == worst[name]  # type: ignore[literal-required]
    assert unparsed["expected_cost"] == pytest.approx((2 + 3 + 10) / 3)
    assert unparsed["mean_absolute_error"] == pytest.approx(5 / 3)
    # who says nothing calls nothing too low; a 0 would look like a virtue
    assert unparsed["under_call_rate"] is unparsed["over_call_rate"] is None
    some = level_scores([None, None, 0], references)
    assert (some["under_call_rate"], some["over_call_rate"]) == (0.5, None)


def test_costs_are_the_recipes() -> None:
    costs = LevelCosts(HUNDRED)
    assert level_scores([0, 1, None], [2, 2, 2], costs)["expected_cost"] == pytest.approx((100 + 4 + 100) / 3)
    assert level_scores([0], [2])["expected_cost"] == 10


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ({"严重": {"轻微": 10}}, "no cost for 轻微 → 中等, 轻微 → 严重, 中等 → 轻微, 中等 → 严重, 严重 → 中等"),
        ({}, "give all six mistakes one"),
        ({**HUNDRED, "严重": {"轻微": -1, "中等": 4}}, "严重 → 轻微: a cost is a number from 0 to"),
        ({**HUNDRED, "轻微": {"中等": 1, "严重": 2, "轻微": 1}}, "a right level costs nothing"),
    ],
)
def test_costs_that_forget_or_contradict_something_are_refused(costs: dict[str, dict[str, float]], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        LevelCosts(costs)


def test_the_floor_may_come_from_the_training_rows() -> None:
    references = [0, 0, 1]
    scores = level_scores(references, references, floor_level=RiskLevel.MODERATE)
    constant = level_scores([1, 1, 1], references)
    assert scores["floor_level"] == "中等"
    assert (scores["floor_accuracy"], scores["floor_macro_f1"]) == (constant["accuracy"], constant["macro_f1"])


def test_probabilities_are_scored_beside() -> None:
    beliefs = [[0.7, 0.2, 0.1], None, [0.1, 0.3, 0.6]]
    scores = level_scores([0, 1, None], [0, 2, 2], probabilities=beliefs)
    assert scores["probabilities"] == probability_scores(beliefs, [0, 1, None], [0, 2, 2])
    assert level_scores([0], [0])["probabilities"] is None


def test_equally_frequent_levels_give_the_lower_one() -> None:
    assert majority_level([2, 1, 1, 2]) == 1


def test_levels_may_be_given_as_risk_levels() -> None:
    assert level_scores([RiskLevel.SEVERE, None], [RiskLevel.SEVERE, RiskLevel.MINOR]) == level_scores(
        [2, None], [2, 0]
    )


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([], [], "at least one row"),
        ([0], [0, 1], r"1 predicted level\(s\) for 2 reference\(s\)"),
        ([0, 3], [0, 1], "row 1: predicted level 3 is none of 0, 1, 2"),
        ([0, -1], [0, 1], "row 1: predicted level -1"),
        ([0], [None], "row 0: reference level None"),
    ],
)
def test_bad_levels_are_refused(predictions: list[int | None], references: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        level_scores(predictions, references)


@pytest.mark.parametrize("module", ["evaluation", "evaluation.levels", "evaluation.predictions", "evaluation.table"])
def test_light_modules_load_no_heavy_library(module: str) -> None:
    heavy = ["torch", "transformers", "datasets", "evaluate", "sklearn", "pyarrow", "jieba", "nltk"]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_names_its_public_parts() -> None:
    import evaluation

    assert evaluation.level_scores is level_scores
    assert set(evaluation.__all__) <= set(dir(evaluation))
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = evaluation.absent
