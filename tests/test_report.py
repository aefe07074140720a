import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from riskva.errors import ReportError, UnknownLevelError
from riskva.labelled_text import Tolerance
from riskva.report import (
    DEFAULT_FORMAT,
    Reading,
    ReportField,
    ReportFormat,
    RiskLevel,
    RiskReport,
    Unparsed,
    default_question,
    normalise_text,
)

AWKWARD_TEXTS = (
    "墙面开裂",
    "风险等级: 严重",
    "**风险等级**: 严重",
    "风险等级：轻微；**缺陷描述**：无",
    ": 以冒号开头",
    "：全角冒号开头",
    "**",
    "** 星号 ** 与 * 单星",
    "宽０.３ｍｍ，全角 ＡＢＣ",
    "缺陷描述",
    "# 标题 - 列表 1. 编号",
    "trailing colon:",
    "\\n 反斜杠 \\1 (?P<x>)",
    "😀裂缝",
)
PIECES = (
    *(
        "**",
        "*",
        "＊＊",
        ":",
        "：",
        " ",
        "\n",
        "\r\n",
        "\u2028",
        "\u3000",
        "(",
        "\\",
        "【",
        "】",
        "# ",
        "- ",
        "1. ",
        "```json",
    ),
    *('{"', '": "', '"}', "\n```\n", "\n- ", "\n# ", "\n【", "\n**位置**: "),
    *(*DEFAULT_FORMAT.labels, "严重", "裂"),
)


def _report(text: str, level: RiskLevel = RiskLevel.MODERATE) -> RiskReport:
    return RiskReport(level, dict.fromkeys(DEFAULT_FORMAT.text_labels, text))


def _random_reports(num: int) -> Iterator[RiskReport]:
    draw = random.Random(7)
    while num:
        texts = {
            label: normalise_text("".join(draw.choices(PIECES, k=draw.randint(1, 12))))
            for label in DEFAULT_FORMAT.text_labels
        }
        if all(texts.values()):
            num -= 1
            yield RiskReport(draw.choice(list(RiskLevel)), texts)


def _format(*labels: str, level: str = "等级") -> ReportFormat:
    return ReportFormat(tuple(ReportField(label, f"c_{label}", is_level=label == level) for label in labels))


def _reason(text: str, report_format: ReportFormat = DEFAULT_FORMAT) -> str:
    parsed = report_format.parse(text)
    assert isinstance(parsed, Unparsed), parsed
    assert parsed.text == text
    return parsed.reason


def test_levels_are_ordered_by_gravity() -> None:
    assert RiskLevel.MINOR < RiskLevel.MODERATE < RiskLevel.SEVERE
    assert [level.label for level in sorted(RiskLevel)] == ["轻微", "中等", "严重"]
    assert [int(level) for level in RiskLevel] == [0, 1, 2]


@pytest.mark.parametrize(("text", "level"), [("轻微", 0), (" 中等\n", 1), ("\u3000严重 ", 2)])
def test_level_is_read_from_its_label_blanks_aside(text: str, level: int) -> None:
    assert RiskLevel.from_label(text) == level


@pytest.mark.parametrize("text", ["", "一般", "较严重", "B-轻微", "严重。", "2", "轻微 中等"])
def test_level_is_never_guessed(text: str) -> None:
    with pytest.raises(UnknownLevelError, match="expected one of 轻微, 中等, 严重"):
        RiskLevel.from_label(text)


def test_default_form_is_the_documented_one() -> None:
    report = RiskReport(RiskLevel.SEVERE, {"风险描述": "甲", "纠正和预防建议": "乙", "缺陷描述": "丙"})
    expected = "**风险描述**: 甲\n**风险等级**: 严重\n**纠正和预防建议**: 乙\n**缺陷描述**: 丙"
    assert DEFAULT_FORMAT.render(report) == expected


@pytest.mark.parametrize("level", list(RiskLevel))
@pytest.mark.parametrize("text", AWKWARD_TEXTS)
def test_parse_undoes_render(text: str, level: RiskLevel) -> None:
    report = _report(text, level)
    assert DEFAULT_FORMAT.parse(DEFAULT_FORMAT.render(report)) == report


def test_parse_undoes_render_for_random_texts() -> None:
    for report in _random_reports(500):
        assert DEFAULT_FORMAT.parse(DEFAULT_FORMAT.render(report)) == report


def test_line_breaks_in_a_text_become_one_blank() -> None:
    rendered = DEFAULT_FORMAT.render(_report("第一行\r\n**风险等级**: 轻微\n\n  第三行 "))
    assert rendered.count("\n") == 3
    assert DEFAULT_FORMAT.parse(rendered) == _report("第一行 **风险等级**: 轻微 第三行")


@pytest.mark.parametrize("text", ["", " ", "\n\u3000\t"])
def test_an_empty_text_is_not_rendered(text: str) -> None:
    with pytest.raises(ReportError, match="风险描述: the text is empty"):
        DEFAULT_FORMAT.render(_report(text))


def test_a_missing_text_is_not_rendered() -> None:
    with pytest.raises(ReportError, match="缺陷描述: the text is empty"):
        DEFAULT_FORMAT.render(RiskReport(RiskLevel.MINOR, {"风险描述": "甲", "纠正和预防建议": "乙"}))


def test_fields_are_read_in_any_order() -> None:
    lines = DEFAULT_FORMAT.render(_report("文")).split("\n")
    for _ in range(4):
        lines.append(lines.pop(0))
        assert DEFAULT_FORMAT.parse("\n".join(lines)) == _report("文")


@pytest.mark.parametrize("mark", ["{}: ", "{}：", "**{}**：", "**{}：**", "**{}:** ", "  **{}** : ", "\t{} :"])
def test_marks_may_vary(mark: str) -> None:
    values = {**dict.fromkeys(DEFAULT_FORMAT.text_labels, "文"), DEFAULT_FORMAT.level_label: "中等"}
    text = "\n".join(mark.format(label) + value for label, value in values.items())
    assert DEFAULT_FORMAT.parse(text) == _report("文")


def test_a_value_runs_over_lines_to_the_next_label() -> None:
    text = DEFAULT_FORMAT.render(_report("文")).replace("**缺陷描述**: 文", "**缺陷描述**: 一\n二\n\n三\n")
    parsed = DEFAULT_FORMAT.parse("\n" + text)
    assert isinstance(parsed, RiskReport)
    assert parsed.texts["缺陷描述"] == "一 二 三"


def test_a_field_that_stands_twice_is_no_report() -> None:
    rendered = DEFAULT_FORMAT.render(_report("文"))
    assert _reason(rendered + "\n风险等级：严重") == "a field stands twice"
    assert _reason(rendered + "\n" + rendered) == "a field stands twice"


def test_missing_and_empty_fields_are_named_together() -> None:
    assert _reason("**风险描述**: 甲\n**风险等级**: \n**缺陷描述**: 丙") == "missing or empty: 风险等级, 纠正和预防建议"
    assert _reason("").startswith("missing or empty: 风险描述, 风险等级")
    assert "风险描述" in _reason("这里提到风险描述: 但标签不在行首")


def test_text_before_the_first_field_is_no_report() -> None:
    assert _reason("好的，报告如下。\n" + DEFAULT_FORMAT.render(_report("文"))) == "text before the first field"


@pytest.mark.parametrize("word", ["一般", "严重。", "轻微|中等|严重", "不严重"])
def test_an_unknown_level_is_no_report(word: str) -> None:
    rendered = DEFAULT_FORMAT.render(_report("文"))
    assert _reason(rendered.replace("中等", word)).startswith(f"unknown risk level '{word}'")


def test_an_unknown_level_reads_the_same_wherever_its_field_stands() -> None:
    lines = DEFAULT_FORMAT.render(_report("文")).replace("中等", "一般").split("\n")
    assert _reason("\n".join(lines)) == _reason("\n".join([lines[0], *lines[2:], lines[1]]) + "\n\n")


def test_labels_may_begin_or_end_alike() -> None:
    report_format = _format("风险", "风险描述", "描述", "等级", "风险等级")
    report = RiskReport(RiskLevel.SEVERE, {"风险": "一", "风险描述": "二", "描述": "三", "风险等级": "四"})
    assert report_format.parse(report_format.render(report)) == report
    assert report_format.parse("描述:三\n风险描述:二\n风险等级:四\n等级:严重\n风险:一") == report


def test_labels_may_hold_any_other_sign() -> None:
    report_format = _format("位置(a+b)", "[等级]", "a|b", "two words", level="[等级]")
    report = RiskReport(RiskLevel.MINOR, {"位置(a+b)": "一", "a|b": "二", "two words": "三"})
    assert report_format.parse(report_format.render(report)) == report


def test_an_extra_field_with_a_default_is_one_line_more() -> None:
    extra = ReportField("位置信息", "data_位置", default="未注明")
    report_format = ReportFormat((*DEFAULT_FORMAT.fields, extra))
    texts = dict.fromkeys(report_format.text_labels, "文")
    report = RiskReport(RiskLevel.MINOR, texts)
    assert report_format.parse(report_format.render(report)) == report
    assert _reason(DEFAULT_FORMAT.render(_report("文")), report_format) == "missing or empty: 位置信息"


@pytest.mark.parametrize("label", ["", " ", " 风险", "风险 ", "\u3000风险", "a:b", "a：b", "**a", "a\nb", "a\rb"])
def test_a_label_that_could_not_be_read_back_is_refused(label: str) -> None:
    with pytest.raises(ReportError, match="answer_fields: label"):
        _format(label, "等级")


def test_labels_must_differ() -> None:
    with pytest.raises(ReportError, match="stands twice"):
        _format("风险", "风险", "等级")


@pytest.mark.parametrize(("labels", "found"), [(("风险",), 0), ((), 0)])
def test_a_format_needs_a_level(labels: tuple[str, ...], found: int) -> None:
    with pytest.raises(ReportError, match=f"is_level: true, found {found}"):
        _format(*labels)


def test_a_format_has_one_level_only() -> None:
    with pytest.raises(ReportError, match="found 2"):
        ReportFormat((ReportField("甲", "a", is_level=True), ReportField("乙", "b", is_level=True)))


def test_the_question_spells_out_the_form() -> None:
    report_format = _format("隐患", "等级")
    assert default_question(report_format).endswith("**隐患**: …\n**等级**: 轻微/中等/严重")


@pytest.mark.parametrize("extra", ["**位置信息**: 厨房", "**位置信息：** 厨房", "  **位置**：厨房"])
def test_a_field_of_another_format_is_no_part_of_a_value(extra: str) -> None:
    report = RiskReport(RiskLevel.MINOR, dict.fromkeys(DEFAULT_FORMAT.text_labels, "文字"))
    parsed = DEFAULT_FORMAT.parse(DEFAULT_FORMAT.render(report) + "\n" + extra)
    assert isinstance(parsed, Unparsed)
    assert "field that the format does not have: 位置" in parsed.reason


ANSWER_CASES = yaml.safe_load((Path(__file__).parent / "answer_cases.yaml").read_text(encoding="utf-8"))
CASE_TEXTS = {"风险描述": "墙面开裂", "纠正和预防建议": "修补", "缺陷描述": "裂缝"}


@pytest.mark.parametrize("case", ANSWER_CASES, ids=lambda case: case["name"])
def test_answers_are_read_as_the_table_says(case: dict[str, Any]) -> None:
    reading = DEFAULT_FORMAT.read_answer(case["answer"])
    assert (reading.report.level.label if reading.report else None) == case["level"]
    assert reading.texts == case.get("texts", CASE_TEXTS)
    assert reading.missing == tuple(case.get("missing", ()))
    assert reading.extra == tuple(case.get("extra", ()))
    assert reading.tolerated == tuple(case.get("tolerated", ()))
    if case["level"] is None:
        assert case["reason"] in (reading.reason or "")
    else:
        assert reading.reason is None
        assert reading.report == RiskReport(RiskLevel.from_label(case["level"]), case.get("texts", CASE_TEXTS))


def test_the_table_has_every_tolerance_and_no_name_twice() -> None:
    assert {code for case in ANSWER_CASES if case["level"] for code in case.get("tolerated", ())} == set(Tolerance)
    assert len({case["name"] for case in ANSWER_CASES}) == len(ANSWER_CASES)


def test_reading_undoes_render_and_tolerates_nothing() -> None:
    for report in _random_reports(500):
        assert DEFAULT_FORMAT.read_answer(DEFAULT_FORMAT.render(report)) == Reading(report, texts=report.texts)


def _disturbed(report: RiskReport, draw: random.Random) -> str:
    lines = DEFAULT_FORMAT.render(report).split("\n")
    draw.shuffle(lines)
    text = "\n".join(lines)
    for _ in range(draw.randint(0, 3)):
        place = draw.randrange(len(text))
        text = text[:place] + draw.choice(PIECES) + text[place:]
    return text


def test_what_parse_accepts_is_read_alike() -> None:
    draw = random.Random(11)
    texts = [_disturbed(report, draw) for report in _random_reports(3000)]
    parsed = {text: DEFAULT_FORMAT.parse(text) for text in texts}
    accepted = {text: report for text, report in parsed.items() if isinstance(report, RiskReport)}
    num_equal = 0
    for text, report in accepted.items():
        reading = DEFAULT_FORMAT.read_answer(text)
        assert reading.report is not None
        if {"text around", "code fence"} & set(reading.tolerated):
            # what stands behind the last field's paragraph: data keep it, answers leave it out
            assert reading.report.level == report.level
            assert all(report.texts[label].startswith(words) for label, words in reading.texts.items())
        else:
            assert reading.report == report
            num_equal += 1
    assert num_equal > 300


def test_no_tolerance_is_named_for_the_rendered_form_alone() -> None:
    draw = random.Random(13)
    for report in _random_reports(2000):
        text = _disturbed(report, draw)
        reading = DEFAULT_FORMAT.read_answer(text)
        assert (reading.report is None) == (reading.reason is not None)
        if reading.report is not None:
            assert (not reading.tolerated) == (text == DEFAULT_FORMAT.render(reading.report))


def test_data_keep_what_stands_behind_a_blank_line_and_answers_leave_it_out() -> None:
    text = DEFAULT_FORMAT.render(_report("文")) + "\n\n又一段"
    parsed, reading = DEFAULT_FORMAT.parse(text), DEFAULT_FORMAT.read_answer(text)
    assert isinstance(parsed, RiskReport)
    assert parsed.texts["缺陷描述"] == "文 又一段"
    assert reading.texts["缺陷描述"] == "文"
    assert reading.tolerated == ("text around",)


def test_data_are_no_json_and_no_fenced_text() -> None:
    assert _reason('{"风险描述": "甲", "风险等级": "严重"}').startswith("missing or empty: 风险描述, 风险等级")
    assert _reason("```\n" + DEFAULT_FORMAT.render(_report("文")) + "\n```") == "text before the first field"


N = 100_000
MONSTERS = (
    "*" * N,
    "**" * N + "风险描述**: 甲",
    "**风险等级**: " + "*" * N,
    "**风险等级**: " + "“" * N + "严重" + "”" * N,
    "**风险等级" + " " * N + "**: 严重",
    " " * N + "**风险等级**: 严重",
    " \n" * N,
    "**风险等级**: 轻微\n" * (N // 10),
    "**位置**: 厨房\n" * (N // 10),
    "裂缝，" * N,
    "：" * N,
    "# " * N,
    "1. " * N,
    "`" * N,
    "【" * N,
    "{" * N,
    "[" * N,
    '{"' * N,
    '{"a":' * N,
    '{"\\x' * N,
    '{"风险描述":' + "[" * N,
    '{"风险描述":' + "1" * N + "}",
    '{"风险描述": "甲"}' * (N // 10),
)


@pytest.mark.parametrize("text", MONSTERS, ids=lambda text: text[:12])
def test_no_answer_is_too_much(text: str) -> None:
    started = time.process_time()
    assert DEFAULT_FORMAT.read_answer(text).report is None
    assert isinstance(DEFAULT_FORMAT.parse(text), Unparsed)
    # the slowest takes 0.3 s on a slow core; in quadratic time each would take minutes
    assert time.process_time() - started < 5


def test_a_reason_is_short_whatever_the_answer() -> None:
    text = DEFAULT_FORMAT.render(_report("文")).replace("中等", "中等" * N)
    reason = DEFAULT_FORMAT.read_answer(text).reason
    assert reason is not None
    assert reason.startswith("unknown risk level '中等中等")
    assert len(reason) < 100


def test_half_a_character_in_json_cannot_break_a_file() -> None:
    reading = DEFAULT_FORMAT.read_answer('{"缺陷描述": "裂\\ud800缝", "\\udfff": ""}')
    assert reading.texts == {"缺陷描述": "裂?缝"}
    assert reading.extra == ("?",)


def test_labels_that_look_like_marks_are_read_back() -> None:
    report_format = _format(
        "1. 风险", "【位置】", "# 甲", "- 乙", "“丙”", "风险", "＊＊丁", "【等级】", level="【等级】"
    )
    report = RiskReport(RiskLevel.MINOR, {label: label for label in report_format.text_labels})
    assert report_format.parse(report_format.render(report)) == report
    assert report_format.read_answer(report_format.render(report)) == Reading(report, texts=report.texts)


def test_a_label_too_long_to_be_read_back_is_refused() -> None:
    report_format = _format("长" * 60, "等级")
    report = RiskReport(RiskLevel.MINOR, {"长" * 60: "文"})
    assert report_format.parse(report_format.render(report)) == report
    with pytest.raises(ReportError, match="over 60 characters"):
        _format("长" * 61, "等级")


def test_a_label_may_have_other_widths_and_blanks() -> None:
    report_format = _format("位置(a+b)", "two words", "等级")
    text = "**位置（ａ+ｂ）**: 一\n**Two words**: 二\n**two  words**: 三\n**等级**: 轻微"
    reading = report_format.read_answer(text)
    assert reading.report == RiskReport(RiskLevel.MINOR, {"位置(a+b)": "一", "two words": "三"})
    assert reading.extra == ("Two words",)
    assert reading.tolerated == ("label form", "extra field")
