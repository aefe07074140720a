import pytest

from evaluation.field_scores import format_validity, naming_scores, report_fields
from evaluation.naming import Named
from riskva.errors import DataError, RecipeError
from riskva.report import DEFAULT_FORMAT, ReportField, ReportFormat, RiskLevel, RiskReport
from riskva.vocabulary import UNKNOWN


def _answer(defect: str, risk: str = "影响使用", level: RiskLevel = RiskLevel.MINOR) -> str:
    texts = {"风险描述": risk, "纠正和预防建议": "铲除后重做", "缺陷描述": defect}
    return DEFAULT_FORMAT.render(RiskReport(level, texts))


GOOD = _answer("厨房墙面存在裂缝")


def test_the_form_is_counted() -> None:
    wrong_level = GOOD.replace("轻微", "一般")
    extra = GOOD + "\n**位置**: 厨房\n**位置**: 客厅"
    answers = [GOOD, GOOD.replace(":", "："), extra, wrong_level, wrong_level, " ", "**缺陷描述**: 裂缝"]
    validity = format_validity([DEFAULT_FORMAT.read_answer(text) for text in answers])
    assert validity["num_valid"] == 3
    assert validity["valid_rate"] == 3 / 7
    assert validity["exact_rate"] == 1 / 7
    assert list(validity["invalid_reasons"].items()) == [
        ("unknown risk level '一般': expected one of 轻微, 中等, 严重", 2),
        ("missing or empty: 风险描述, 风险等级, 纠正和预防建议", 1),
        ("the answer is empty", 1),
    ]
    assert validity["missing"] == {"纠正和预防建议": 2, "风险描述": 2, "风险等级": 2, "缺陷描述": 1}
    assert validity["extra"] == {"位置": 1}
    assert validity["tolerated"] == {"extra field": 1, "full-width colon": 1}


def test_nothing_to_judge_is_an_error() -> None:
    with pytest.raises(DataError, match="no answers"):
        format_validity([])


def test_namings_are_counted() -> None:
    right = Named("裂缝", "裂缝", is_denied=False)
    denied = Named("裂缝", UNKNOWN, is_denied=True)
    assert naming_scores([right, denied, None, right]) == {"accuracy": 2 / 3, "num_named": 3, "num_denied": 1}
    assert naming_scores([None]) == {"accuracy": None, "num_named": 0, "num_denied": 0}
    assert naming_scores([]) == {"accuracy": None, "num_named": 0, "num_denied": 0}


def test_kinds_and_rooms_are_named() -> None:
    answers = [GOOD, _answer("厨房墙面未发现裂缝"), _answer("客厅墙面开裂"), "墙面存在裂缝"]
    scores = report_fields(answers, [GOOD] * 4)
    assert scores["kind"] == {"accuracy": 0.5, "num_named": 4, "num_denied": 1}
    assert scores["room"] == {"accuracy": 0.5, "num_named": 4, "num_denied": 0}
    assert scores["format"]["num_valid"] == 3
    assert scores["num_unparsed_references"] == 0


def test_a_kind_is_looked_for_where_the_defect_is_described() -> None:
    reference = _answer("厨房墙面存在裂缝", risk="可能渗水")
    scores = report_fields([_answer("墙面正常", risk="可能出现裂缝"), reference], [reference, reference])
    assert scores["kind"]["accuracy"] == 0.5
    assert report_fields([_answer("裂缝")], [_answer("施工质量一般", risk="可能渗水")])["kind"]["accuracy"] is None


def test_a_room_may_stand_in_any_text_and_the_description_goes_first() -> None:
    elsewhere = _answer("墙面存在裂缝", risk="客厅使用受影响")
    assert report_fields([_answer("客厅墙面裂缝")], [elsewhere])["room"]["accuracy"] == 1
    assert report_fields([elsewhere], [_answer("厨房墙面裂缝", risk="客厅受影响")])["room"]["accuracy"] == 0


def test_a_denial_in_one_text_ends_before_the_next() -> None:
    reference = _answer("墙面裂缝，未见", risk="客厅受影响")
    assert report_fields([reference], [reference])["room"] == {"accuracy": 1, "num_named": 1, "num_denied": 0}


def test_words_may_be_replaced() -> None:
    options = {"kinds": {"破损": ["烂了"]}, "rooms": {"厕所": ["茅房"]}}
    scores = report_fields([_answer("茅房墙面烂了")], [_answer("茅房地面烂了")], **options)
    assert scores["kind"] == scores["room"] == {"accuracy": 1, "num_named": 1, "num_denied": 0}
    assert report_fields([GOOD], [GOOD], **options)["kind"]["accuracy"] is None
    with pytest.raises(RecipeError, match="stands for both"):
        report_fields([GOOD], [GOOD], kinds={"甲": ["裂"], "乙": ["裂"]})


def test_another_format_describes_the_defect_in_its_last_text() -> None:
    report_format = ReportFormat(
        (ReportField("建议", "a"), ReportField("隐患", "b"), ReportField("等级", "c", is_level=True))
    )
    text = report_format.render(RiskReport(RiskLevel.MINOR, {"建议": "防渗水", "隐患": "墙面裂缝"}))
    other = report_format.render(RiskReport(RiskLevel.MINOR, {"建议": "防渗水", "隐患": "墙面空鼓"}))
    assert report_fields([text, other], [text, text], report_format)["kind"]["accuracy"] == 0.5


def test_a_format_without_texts_names_nothing() -> None:
    report_format = ReportFormat((ReportField("等级", "c", is_level=True),))
    scores = report_fields(["等级：轻微"], ["**等级**: 轻微"], report_format)
    assert scores["format"]["valid_rate"] == 1
    assert scores["kind"]["accuracy"] is None


def test_a_reference_that_is_no_report_counts_for_the_form_alone() -> None:
    scores = report_fields([GOOD, GOOD], [GOOD, "裂缝"])
    assert scores["num_unparsed_references"] == 1
    assert scores["kind"]["num_named"] == 1
    assert scores["format"]["num_valid"] == 2


def test_references_of_another_format_are_refused() -> None:
    with pytest.raises(DataError, match="report_format"):
        report_fields([GOOD], ["裂缝"])
    with pytest.raises(DataError, match="report_format"):
        report_fields([], [])


def test_a_row_needs_both() -> None:
    with pytest.raises(DataError, match=r"1 prediction\(s\) for 2 reference\(s\)"):
        report_fields([GOOD], [GOOD, GOOD])
