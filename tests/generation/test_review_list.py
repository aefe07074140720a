import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_rows import MINOR, MODERATE, SEVERE, right_rows

from evaluation.predictions import Prediction
from riskva.generation.review_list import ReviewRule, write_review_list
from riskva.report import DEFAULT_FORMAT, ReportField, ReportFormat, RiskLevel, RiskReport
from riskva.tables.records import BadRow
from riskva.tables.table import TableLayout, open_tables

RULE = ReviewRule(0.7, (SEVERE,))


def _row(level: RiskLevel = MINOR, confidence: float | None = 0.9, name: str = "p", **changes: Any) -> Prediction:
    (row,) = right_rows([level])
    return replace(row, id=name, level=level.label, level_probability=confidence, **changes)


def _codes(row: Prediction, rule: ReviewRule = RULE) -> list[str]:
    return [one.code for one in rule.reasons(row, row.reading(DEFAULT_FORMAT))]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("row", "codes"),
    [
        (_row(), []),
        (_row(confidence=0.7), []),
        (_row(confidence=0.6999), ["unsure"]),
        (_row(SEVERE), ["always"]),
        (_row(SEVERE, 0.2), ["always", "unsure"]),
        (_row(confidence=None), ["no_confidence"]),
        (_row(predict="墙面有裂缝。"), ["no_report"]),
        (_row(finish_reason="length"), ["no_report"]),
        (_row(predict="", error="images/1.jpg: not an image"), ["error"]),
    ],
)
def test_why_a_person_looks(row: Prediction, codes: list[str]) -> None:
    assert _codes(row) == codes
    assert RULE.needs_review(row, row.reading(DEFAULT_FORMAT)) == bool(codes)


def test_the_confidence_is_that_of_the_answered_level_where_only_probabilities_are_known() -> None:
    # the likeliest level is another: what counts is the one that the report says
    assert _codes(_row(MODERATE, None, level_probabilities=(0.75, 0.25, 0.0))) == ["other_level", "unsure"]
    assert _codes(_row(MODERATE, None, level_probabilities=(0.1, 0.8, 0.1))) == []


def test_a_level_that_is_not_the_likeliest_is_looked_at_whatever_the_rule() -> None:
    row = _row(SEVERE, None, level_probabilities=(0.03, 0.77, 0.2))
    (reason,) = ReviewRule().reasons(row, row.reading(DEFAULT_FORMAT))
    assert reason.code == "other_level"
    assert reason.text.startswith("中等 is likelier than 严重")


def test_without_a_rule_only_answers_that_are_no_reports_are_looked_at() -> None:
    rule = ReviewRule()
    assert [_codes(row, rule) for row in (_row(SEVERE, 0.1), _row(confidence=None))] == [[], []]
    assert _codes(_row(predict=""), rule) == ["no_report"]


@pytest.mark.parametrize(
    ("confidence", "told"),
    [
        (0.62, "confidence 0.62 is below 0.7"),
        (0.6999, "confidence 0.6999 is below 0.7"),
        (0.69999999, "confidence 0.69999999 is below 0.7"),
    ],
)
def test_reasons_are_told_in_words_that_are_true(confidence: float, told: str) -> None:
    row = _row(confidence=confidence)
    (reason,) = RULE.reasons(row, row.reading(DEFAULT_FORMAT))
    assert reason.text == told


def test_the_reason_names_what_is_wrong() -> None:
    cut, failed = _row(finish_reason="length"), _row(error="images/1.jpg: not an image")
    texts = [RULE.reasons(row, row.reading(DEFAULT_FORMAT))[0].text for row in (cut, failed)]
    assert texts == ["the answer is no report: cut off by max_new_tokens", "not answered: images/1.jpg: not an image"]


def test_the_most_pressing_come_first(tmp_path: Path) -> None:
    rows = [
        _row(MINOR, 0.5, "minor less sure"),
        _row(MINOR, 0.99, "sure"),
        _row(SEVERE, 0.9, "severe"),
        _row(MODERATE, 0.3, "moderate least sure"),
        _row(SEVERE, 0.4, "severe unsure"),
        _row(MINOR, None, "unknown"),
        _row(predict="没有", name="no report"),
        _row(error="unreadable", name="failed"),
    ]
    path = tmp_path / "review.jsonl"
    assert write_review_list(rows, DEFAULT_FORMAT, RULE, path) == 7
    assert [line["id"] for line in _lines(path)] == [
        "failed",
        "no report",
        "severe unsure",
        "severe",
        "unknown",
        "moderate least sure",
        "minor less sure",
    ]


def test_a_line_has_all_that_a_person_needs(tmp_path: Path) -> None:
    row = _row(SEVERE, None, image="images/1.jpg", group="g0001", level_probabilities=(0.1, 0.3, 0.6))
    write_review_list([row], DEFAULT_FORMAT, RULE, tmp_path / "review.jsonl")
    (line,) = _lines(tmp_path / "review.jsonl")
    assert (line["image"], line["group"], line["level"], line["level_probability"]) == (
        "images/1.jpg",
        "g0001",
        "严重",
        0.6,
    )
    assert line["level_probabilities"] == {"轻微": 0.1, "中等": 0.3, "严重": 0.6}
    assert line["reasons"] == [
        {"code": "always", "text": "a person looks at every report of 严重"},
        {"code": "unsure", "text": "confidence 0.60 is below 0.7"},
    ]
    assert line["predict"] == row.predict
    assert line["data_风险等级"] == "严重"


def test_nothing_to_look_at_is_an_empty_list(tmp_path: Path) -> None:
    assert write_review_list([_row()], DEFAULT_FORMAT, RULE, tmp_path / "review.jsonl") == 0
    assert (tmp_path / "review.jsonl").read_text() == ""


def test_a_mended_list_is_a_table_to_prepare(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(b"")
    wrong = _row(SEVERE, 0.9, "wrong", image="images/0.jpg", level_probabilities=(0.05, 0.05, 0.9))
    cut = _row(MINOR, None, "cut", image="images/1.jpg", finish_reason="length")
    failed = _row(error="unreadable", predict="", name="failed", image="images/2.jpg")
    path = tmp_path / "review.jsonl"
    write_review_list([wrong, cut, failed], DEFAULT_FORMAT, RULE, path)
    mended = [line | {"data_风险等级": "中等"} if line["id"] == "wrong" else line for line in _lines(path)]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in mended), encoding="utf-8")

    rows = {row.id: row for row in open_tables([path], TableLayout(DEFAULT_FORMAT)).rows()}
    mended_row = rows["wrong"]
    assert not isinstance(mended_row, BadRow)
    assert mended_row.report == replace(_read(wrong), level=MODERATE)
    assert mended_row.photo is not None
    # what nobody has mended yet is not taken
    assert [rows[name].reason for name in ("cut", "failed")] == ["empty_field"] * 2  # type: ignore[union-attr]


def _read(row: Prediction) -> RiskReport:
    report = row.reading(DEFAULT_FORMAT).report
    assert report is not None
    return report


def test_a_formats_own_column_wins(tmp_path: Path) -> None:
    own = ReportFormat((ReportField("等级", "level", is_level=True), ReportField("缺陷", "predict")))
    row = Prediction("a", "问", own.render(RiskReport(SEVERE, {"缺陷": "裂缝"})), "")
    write_review_list([row], own, RULE, tmp_path / "review.jsonl")
    (line,) = _lines(tmp_path / "review.jsonl")
    assert (line["level"], line["predict"]) == ("严重", "裂缝")
