import pytest

from evaluation.field_scores import field_scores
from evaluation.text_overlap import rouge
from riskva.errors import DataError
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport

TEXTS = ("墙面开裂，可能渗水", "空鼓脱落伤人", "地面起砂")


def _answer(risk: str, advice: str = "建议铲除后重做", level: RiskLevel = RiskLevel.MINOR) -> str:
    return DEFAULT_FORMAT.render(
        RiskReport(level, {"风险描述": risk, "纠正和预防建议": advice, "缺陷描述": "缺陷" + risk})
    )


def test_each_field_is_scored_alone() -> None:
    references = [_answer(text) for text in TEXTS]
    predictions = [_answer(text) for text in reversed(TEXTS)]
    scores = field_scores(predictions, references, DEFAULT_FORMAT)
    assert set(scores["fields"]) == {"风险描述", "纠正和预防建议", "缺陷描述"}
    expected = rouge(list(reversed(TEXTS)), TEXTS)
    assert {name: scores["fields"]["风险描述"][name] for name in expected} == expected
    assert scores["fields"]["纠正和预防建议"]["rouge-l"] == pytest.approx(100, abs=1e-6)
    assert scores["whole"]["rouge-1"] == rouge(predictions, references)["rouge-1"]


def test_the_order_of_fields_matters_to_the_whole_alone() -> None:
    reference = _answer(TEXTS[0])
    turned = "\n".join(reversed(reference.split("\n")))
    scores = field_scores([turned], [reference], DEFAULT_FORMAT)
    assert all(one["rouge-l"] == pytest.approx(100, abs=1e-6) for one in scores["fields"].values())
    assert scores["whole"]["rouge-l"] < 90


def test_an_answer_that_is_no_report_scores_nothing_in_every_field() -> None:
    reference = _answer(TEXTS[0])
    broken = reference.replace("轻微", "一般")
    scores = field_scores([broken], [reference], DEFAULT_FORMAT)
    assert {one["rouge-1"] for one in scores["fields"].values()} == {0.0}
    assert scores["whole"]["rouge-1"] > 80


def test_reasons_are_counted_most_frequent_first() -> None:
    good = _answer(TEXTS[0])
    broken = good.replace("轻微", "一般")
    scores = field_scores([broken, " ", broken, good], [good] * 4, DEFAULT_FORMAT)["format"]
    assert scores["valid_rate"] == 0.25
    assert scores["num_valid"] == 1
    assert list(scores["invalid_reasons"].values()) == [2, 1]
    assert list(scores["invalid_reasons"])[1] == "the answer is empty"
    assert next(iter(scores["invalid_reasons"])).startswith("unknown risk level '一般'")


def test_a_reference_that_is_no_report_counts_for_the_whole_alone() -> None:
    good = _answer(TEXTS[0])
    scores = field_scores([good, "裂缝"], [good, "裂缝"], DEFAULT_FORMAT)
    assert scores["num_unparsed_references"] == 1
    assert scores["fields"]["风险描述"]["rouge-1"] == pytest.approx(100, abs=1e-6)
    # 裂缝 is one word: it has no pairs of words, and rouge-chinese gives that 0
    assert scores["whole"]["rouge-2"] == pytest.approx(50, abs=1e-6)


def test_references_of_another_format_are_refused() -> None:
    with pytest.raises(DataError, match="answer_fields"):
        field_scores([_answer(TEXTS[0])], ["裂缝"], DEFAULT_FORMAT)
