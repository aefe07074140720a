import random
import subprocess
import sys

import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from evaluation.levels import level_scores, majority_level
from riskva.errors import DataError
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
