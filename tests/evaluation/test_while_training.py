"""The scores that evaluations give while a model trains, on answers that are counted by hand."""

import pytest

from evaluation.text_overlap import rouge
from evaluation.while_training import scores_while_training
from riskva.errors import DataError
from riskva.report import RiskLevel, RiskReport

LABELS = ("风险描述", "缺陷描述")


def report(level: RiskLevel, *texts: str) -> RiskReport:
    return RiskReport(level, dict(zip(LABELS, texts, strict=True)))


def test_an_unparsed_answer_is_wrong_and_its_fields_score_0() -> None:
    references = [report(RiskLevel.MINOR, "墙面裂缝", "裂缝"), report(RiskLevel.SEVERE, "窗框渗水", "渗水")]
    scores = scores_while_training([references[0], None], references, LABELS)
    assert scores["risk_level_accuracy"] == 0.5
    assert scores["risk_level_macro_f1"] == pytest.approx(1 / 3)
    assert scores["risk_level_severe_recall"] == 0
    assert scores["format_valid_rate"] == 0.5
    assert scores["rouge-l_风险描述"] == rouge(["墙面裂缝", ""], ["墙面裂缝", "窗框渗水"])["rouge-l"]
    assert scores["rouge-l_缺陷描述"] == pytest.approx(50)


def test_recall_of_severe_is_left_out_where_there_is_none() -> None:
    reference = report(RiskLevel.MODERATE, "墙面裂缝", "裂缝")
    scores = scores_while_training([reference], [reference], LABELS)
    assert "risk_level_severe_recall" not in scores
    assert scores["risk_level_accuracy"] == scores["format_valid_rate"] == 1


def test_no_rows_are_no_score() -> None:
    with pytest.raises(DataError):
        scores_while_training([], [], LABELS)
