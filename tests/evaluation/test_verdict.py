"""Each finding: a case where it is told, and one where it is not."""

from collections.abc import Sequence
from dataclasses import replace

from report_rows import MINOR, MODERATE, SEVERE, answering, expected, report, right_rows

from evaluation.evaluated import Evaluation
from evaluation.predictions import Prediction
from evaluation.sample_scores import Scoring
from evaluation.scoring import score
from evaluation.verdict import SEVERITIES
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport
from riskva.vocabulary import Vocabulary

LEVELS = [MINOR, MODERATE, SEVERE] * 12
ROWS = right_rows(LEVELS)
TRAINING = [expected(row) for row in ROWS]


def codes(evaluation: Evaluation) -> list[str]:
    return [one.code for one in evaluation.findings]


def called(rows: Sequence[Prediction], levels: Sequence[RiskLevel]) -> list[Prediction]:
    return [answering(row, replace(expected(row), level=level)) for row, level in zip(rows, levels, strict=True)]


def test_right_answers_are_better_than_the_constant_and_nothing_else() -> None:
    evaluation = score(ROWS, Scoring(), TRAINING)
    told = {"better_than_constant", "texts_stand_in_training", "rows_taken_as_independent"}
    assert set(codes(evaluation)) == told
    assert codes(score(ROWS, Scoring()))[-2:] == ["floors_from_test", "rows_taken_as_independent"]


def test_findings_come_the_gravest_first() -> None:
    evaluation = score(called(ROWS, [MINOR] * len(ROWS)), Scoring(), TRAINING)
    order = [SEVERITIES.index(one.severity) for one in evaluation.findings]
    assert order == sorted(order)
    assert order[0] == 0


def test_a_lead_that_may_be_chance() -> None:
    # three rows of each level, one 中等 and one 严重 more right than always 轻微
    rows = ROWS[:9]
    levels = [MINOR, MODERATE, SEVERE, *[MINOR] * 6]
    evaluation = score(called(rows, levels), Scoring(), TRAINING)
    lead = evaluation.leads["risk_level.macro_f1"]
    assert lead is not None
    assert lead[0] <= 0 < lead[1]
    assert "not_surely_better" in codes(evaluation)
    assert "better_than_constant" not in codes(evaluation)


def test_grey_photos_that_do_as_well_and_ones_that_do_not() -> None:
    looked, guessed = ROWS, called(ROWS, [MINOR] * len(ROWS))
    assert "sees_nothing" not in codes(score(looked, Scoring(), TRAINING, blanked=guessed))
    assert "sees_nothing" in codes(score(looked, Scoring(), TRAINING, blanked=looked))
    # few rows, and one answer's difference: not to be told from chance either
    few = ROWS[:12]
    almost = called(few, [MINOR, *LEVELS[1:11], MINOR])
    assert "sees_nothing" in codes(score(few, Scoring(), TRAINING, blanked=almost))


def test_costs_are_judged_against_the_level_that_is_cheapest_in_training() -> None:
    # always 严重 costs 2 and 1 on two thirds of the rows, always 轻微 3 and 10
    over = score(called(ROWS, [SEVERE] * len(ROWS)), Scoring(), TRAINING)
    assert over.baselines[1].kind == "cheapest"
    assert over.scores["risk_level.expected_cost"] == over.baselines[1].scores["risk_level.expected_cost"] == 1
    (finding,) = [one for one in over.findings if one.code == "costlier_than_constant"]
    assert "总是" not in finding.zh
    assert "一律判为“严重”" in finding.zh
    nearly = called(ROWS, [*LEVELS[:6], *[SEVERE] * 30])
    assert "costlier_than_constant" not in codes(score(nearly, Scoring(), TRAINING))
    # all right costs nothing, and is not called dear where all rows are of one level
    minor = right_rows([MINOR] * 12)
    assert not {"costlier_than_constant", "not_surely_cheaper"} & set(codes(score(minor, Scoring())))


def test_a_level_with_few_rows_or_groups() -> None:
    few = score(right_rows([*[MINOR] * 12, *[MODERATE] * 12, *[SEVERE] * 9]), Scoring())
    (finding,) = [one for one in few.findings if one.code == "too_few_rows"]
    assert "严重 9 行" in finding.zh
    # twelve rows of 严重, all of one house
    groups = [f"g{row}" if level != SEVERE else "g0" for row, level in enumerate(LEVELS)]
    (finding,) = [one for one in score(right_rows(LEVELS, groups), Scoring()).findings if one.code == "too_few_rows"]
    assert "严重 1 组" in finding.zh
    assert "too_few_rows" not in codes(score(ROWS, Scoring()))


def test_failed_rows_and_unreadable_answers_are_told_apart() -> None:
    rows = [replace(ROWS[0], predict="", error="no photo"), replace(ROWS[1], predict="什么也没有"), *ROWS[2:]]
    evaluation = score(rows, Scoring(), TRAINING)
    found = {one.code: one for one in evaluation.findings}
    assert found["failed_rows"].rows == (0,)
    assert found["unparsed"].rows == (1,)
    assert "35 个答案中有 1 个" in found["unparsed"].zh


def test_labels_that_are_no_reports_are_told_and_their_answers_not_called_right() -> None:
    rows = [replace(ROWS[0], label="墙面开裂"), *ROWS[1:]]
    evaluation = score(rows, Scoring(), TRAINING)
    (finding,) = [one for one in evaluation.findings if one.code == "labels_no_reports"]
    assert finding.rows == (0,)
    assert evaluation.samples[0].marks != ()


def test_a_vocabulary_that_does_not_fit_is_told_and_calls_nothing_right() -> None:
    foreign = Scoring(kinds=Vocabulary({"白蚁": ("白蚁",)}))
    nonsense = [
        answering(row, RiskReport(expected(row).level, dict.fromkeys(DEFAULT_FORMAT.text_labels, "完全无关的内容")))
        for row in ROWS
    ]
    evaluation = score(nonsense, foreign, TRAINING)
    assert "kinds_unknown" in codes(evaluation)
    assert "reworded" not in codes(evaluation)
    assert "kinds_unknown" not in codes(score(ROWS, Scoring(), TRAINING))


def test_texts_that_training_does_not_hold() -> None:
    others = [report(3, level) for level in LEVELS]
    assert "texts_stand_in_training" not in codes(score(ROWS, Scoring(), others))


def test_answers_all_alike_are_told_unless_the_labels_are() -> None:
    alike = [replace(row, predict=ROWS[0].label) for row in ROWS]
    assert "answers_alike" in codes(score(alike, Scoring(), TRAINING))
    same = [replace(ROWS[0], id=str(number)) for number in range(12)]
    assert "answers_alike" not in codes(score(same, Scoring(), TRAINING))
