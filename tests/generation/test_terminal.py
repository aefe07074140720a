import io
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from report_rows import MINOR, MODERATE, SEVERE, answering, report, right_rows

from evaluation.predictions import Prediction
from evaluation.table import display_width
from riskva.generation.review_list import ReviewRule
from riskva.generation.terminal import Screen, screen_of, shown
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport

RULE = ReviewRule(0.7, (SEVERE,))
LONG = "立即停用阳台，按 GB 50210-2018 第 12.5.4 条重新焊接锚固栏杆，并检查同一栋楼所有阳台的栏杆，" * 3


def _row(level: RiskLevel = SEVERE, **changes: Any) -> Prediction:
    (row,) = right_rows([level])
    return replace(row, **{"image": "images/00008.jpg", "level_probabilities": (0.03, 0.21, 0.76), **changes})


def _shown(row: Prediction, **options: Any) -> str:
    return shown(row, DEFAULT_FORMAT, RULE, **options)


def test_a_report_reads_from_the_level_to_the_reasons() -> None:
    assert _shown(_row()).splitlines() == [
        "images/00008.jpg",
        "  风险等级  严重  76.0%",
        "    轻微  █░░░░░░░░░░░░░░░░░░░    3.0%",
        "    中等  ████░░░░░░░░░░░░░░░░   21.0%",
        "    严重  ███████████████░░░░░   76.0%",
        "",
        "  风险描述  裂缝会影响美观，也会让水汽渗入。",
        "",
        "  纠正和预防建议  建议开槽后用柔性腻子填补并重新涂刷。",
        "",
        "  缺陷描述  客厅墙面存在细小裂缝。",
        "",
        "  check  a person looks at every report of 严重",
    ]


def test_a_report_that_nobody_need_look_at_says_nothing_of_it() -> None:
    sure = replace(_row(MINOR), level_probabilities=None, level_probability=0.91)
    text = _shown(sure)
    assert "轻微  91.0%" in text
    assert "check" not in text
    assert "█" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_no_line_is_wider_than_the_screen_and_no_text_is_lost(width: int) -> None:
    texts = dict.fromkeys(DEFAULT_FORMAT.text_labels, LONG)
    row = answering(_row(MODERATE), RiskReport(MODERATE, texts))
    text = shown(row, DEFAULT_FORMAT, RULE, screen=Screen(width))
    assert all(display_width(line) <= width for line in text.splitlines())
    assert re.sub(r"\s", "", text).count(re.sub(r"\s", "", LONG)) == 3
    # a standard's number is not torn apart, and no line begins with a comma
    assert text.count("50210-2018") == 9
    assert not re.search(r"^\s*[，。]", text, re.M)


def test_an_unbroken_text_is_cut_where_the_line_ends() -> None:
    row = answering(_row(), replace(report(0, SEVERE), texts=dict.fromkeys(DEFAULT_FORMAT.text_labels, "x" * 500)))
    assert all(display_width(line) <= 50 for line in _shown(row, screen=Screen(50)).splitlines())


def test_the_truth_stands_under_each_part() -> None:
    row = answering(_row(SEVERE), replace(report(0, MINOR), texts={**report(0, MINOR).texts, "缺陷描述": "墙面泛碱。"}))
    lines = _shown(row, compare_gt=True).splitlines()
    below = {line: following.strip() for line, following in pairwise(lines)}
    assert below["    严重  ███████████████░░░░░   76.0%"] == "truth  严重"
    assert below["  缺陷描述  墙面泛碱。"] == "truth  客厅墙面存在细小裂缝。"
    assert below["  风险描述  裂缝会影响美观，也会让水汽渗入。"] == "truth  the same"


def test_a_row_without_a_truth_says_so() -> None:
    assert "truth  none: the row has no answer of its own" in _shown(_row(label=""), compare_gt=True)
    assert "truth  none: missing or empty" in _shown(_row(label="裂缝"), compare_gt=True)


def test_an_answer_that_is_no_report_is_shown_as_it_stands() -> None:
    lines = _shown(_row(predict="墙面有裂缝。\n请现场复核。")).splitlines()
    assert lines[1:] == [
        "  no report; what the model wrote:",
        "    墙面有裂缝。",
        "    请现场复核。",
        "",
        "  check",
        "    the answer is no report: missing or empty: 风险描述, 风险等级, 纠正和预防建",
        "    议, 缺陷描述",
    ]
    assert "the answer is no report: cut off by max_new_tokens" in _shown(_row(finish_reason="length"))


def test_a_row_that_failed_says_why() -> None:
    text = _shown(_row(error="images/1.jpg: not an image", predict=""))
    assert text.splitlines()[1:] == ["", "  check  not answered: images/1.jpg: not an image"]


def test_a_terminal_obeys_nothing_that_a_model_wrote() -> None:
    hostile = "\x1b[2J\x07裂缝\u202e\u200b\x9b31m"
    broken = _row(predict=hostile, image=f"{hostile}.jpg", label=hostile)
    texts = {**report(0, SEVERE).texts, "缺陷描述": hostile}
    for row in (broken, answering(_row(image=f"{hostile}.jpg"), RiskReport(SEVERE, texts))):
        text = _shown(row, compare_gt=True)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u200b]", text)
        assert "裂缝" in text


def test_colours_change_nothing_but_colour() -> None:
    for row in (_row(), _row(predict="没有"), _row(error="unreadable")):
        plain, coloured = (_shown(row, compare_gt=True, screen=Screen(70, on)) for on in (False, True))
        assert "\x1b" not in plain
        assert coloured != plain
        assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert not screen_of(io.StringIO()).has_colours
    assert screen_of(_Terminal()).has_colours
    monkeypatch.setenv("NO_COLOR", "")  # by no-color.org only a value that is not empty counts
    assert screen_of(_Terminal()).has_colours
    monkeypatch.setenv("NO_COLOR", "1")
    assert not screen_of(_Terminal()).has_colours
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not screen_of(_Terminal()).has_colours


@pytest.mark.parametrize(("columns", "width"), [("30", 40), ("72", 72), ("400", 100)])
def test_the_width_is_the_terminals_within_reason(columns: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert screen_of(_Terminal()).width == width
    assert screen_of(io.StringIO()).width == 80
