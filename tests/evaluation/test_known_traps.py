"""Four answers that text scores or accuracy judge wrongly, and what RisKVA says of them, in numbers and on its page."""

from dataclasses import replace
from pathlib import Path

import pytest
from report_rows import MINOR, MODERATE, SEVERE, answering, expected, right_rows

from evaluation.evaluated import Evaluation
from evaluation.pages.report_page import write_report
from evaluation.predictions import Prediction
from evaluation.sample_scores import Mark, Scoring
from evaluation.scoring import score
from evaluation.verdict import Finding
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport

# 30 rows, ten of each level; training rows with the same spread
LEVELS = [MINOR, MODERATE, SEVERE] * 10
TRAINING = [expected(row) for row in right_rows([MINOR, MINOR, MODERATE, SEVERE] * 10)]


def _finding(evaluation: Evaluation, code: str) -> Finding:
    (found,) = [one for one in evaluation.findings if one.code == code]
    return found


def _page(evaluation: Evaluation, folder: Path) -> str:
    return write_report(evaluation, lambda row: (), folder, title="试验").read_text(encoding="utf-8")


def test_only_the_level_changed(tmp_path: Path) -> None:
    rows = right_rows(LEVELS)
    called_minor = [
        answering(row, replace(expected(row), level=MINOR)) if expected(row).level == SEVERE else row for row in rows
    ]
    evaluation = score(called_minor, Scoring(), TRAINING)
    # what peers would report: texts almost perfect, two thirds of the levels right
    assert evaluation.scores["rouge.whole.rouge-1"] > 97
    severe = [row for row, level in enumerate(LEVELS) if level == SEVERE]
    assert evaluation.scores["risk_level.severe_recall"] == 0
    assert evaluation.scores["risk_level.expected_cost"] == pytest.approx(10 / 3)
    assert all(evaluation.samples[row].marks == (Mark.UNDER_CALLED,) for row in severe)
    missed, misleading = _finding(evaluation, "severe_missed"), _finding(evaluation, "texts_mislead")
    assert missed.severity == "error"
    assert missed.rows == misleading.rows == tuple(severe)
    assert evaluation.findings[0].severity == "error"
    page = _page(evaluation, tmp_path)
    assert missed.zh in page
    assert misleading.zh in page


def test_negated_defect(tmp_path: Path) -> None:
    rows = right_rows(LEVELS)
    denied = []
    for row in rows:
        texts = expected(row).texts
        seen = texts["缺陷描述"].replace("存在细小", "未发现").replace("存在", "未见")
        denied.append(answering(row, replace(expected(row), texts={**texts, "缺陷描述": seen})))
    changed = tuple(index for index, (row, one) in enumerate(zip(rows, denied, strict=True)) if row != one)
    evaluation = score(denied, Scoring(), TRAINING)
    assert len(changed) == 10
    assert evaluation.scores["rouge.whole.rouge-1"] > 97
    assert evaluation.scores["risk_level.accuracy"] == 1
    assert evaluation.scores["kind.accuracy"] == pytest.approx(20 / 30)
    assert all(evaluation.samples[row].marks == (Mark.DENIED, Mark.WRONG_KIND) for row in changed)
    finding = _finding(evaluation, "denied")
    assert finding.severity == "error"
    assert set(finding.rows) == set(changed)
    assert finding.zh in _page(evaluation, tmp_path)


def test_fields_reordered_in_other_words(tmp_path: Path) -> None:
    rows = right_rows(LEVELS)
    others = [_reworded(row) for row in rows]
    evaluation = score(others, Scoring(), TRAINING)
    # what peers would report: hardly a third of the words
    assert evaluation.scores["rouge.缺陷描述.rouge-l"] < 60
    assert evaluation.scores["rouge.风险描述.rouge-l"] < 40
    assert evaluation.scores["format.valid_rate"] == 1
    assert evaluation.scores["risk_level.macro_f1"] == 1
    assert evaluation.scores["kind.accuracy"] == evaluation.scores["room.accuracy"] == 1
    assert all(not one.marks for one in evaluation.samples)
    assert evaluation.findings[0].code == "better_than_constant"
    finding = _finding(evaluation, "reworded")
    assert finding.severity == "info"
    assert finding.rows
    assert finding.zh in _page(evaluation, tmp_path)


REWORDED = {
    "裂缝": "这面客厅的墙上能看到开裂",
    "渗水": "卫生间天花板有漏水留下的印子",
    "饰面砖脱落": "外立面有瓷砖脱落",
    "栏杆松动": "在阳台，扶手松动",
    "空鼓": "厨房有一处敲击发空，属于空鼓",
    "霉斑": "主卧的墙发霉",
}


def _reworded(row: Prediction) -> Prediction:
    kind = Scoring().kinds.first(expected(row).texts["缺陷描述"])
    lines = (
        f"缺陷描述：{REWORDED[kind]}",
        "纠正和预防建议：请专业人员处理",
        f"风险等级：{expected(row).level.label}",
        "风险描述：不处理会越来越糟",
    )
    return replace(row, predict="\n".join(lines))


@pytest.mark.parametrize("level", RiskLevel)
def test_constant_majority_answer(level: RiskLevel, tmp_path: Path) -> None:
    # the skew of a real data set: 96 % 轻微
    rows = right_rows([level] * 96 + [SEVERE if level != SEVERE else MINOR] * 4)
    constant = DEFAULT_FORMAT.render(RiskReport(level, expected(rows[0]).texts))
    evaluation = score([replace(row, predict=constant) for row in rows], Scoring(), [expected(row) for row in rows])
    assert evaluation.scores["risk_level.accuracy"] == 0.96
    assert evaluation.scores["risk_level.macro_f1"] < 0.34
    finding = _finding(evaluation, "no_better_than_constant")
    assert finding.severity == "error"
    assert _finding(evaluation, "answers_alike").severity == "error"
    assert evaluation.findings[0].severity == "error"
    assert all(one.code != "better_than_constant" for one in evaluation.findings)
    assert finding.zh in _page(evaluation, tmp_path)
