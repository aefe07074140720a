import json
from dataclasses import replace
from pathlib import Path

import jieba
import pytest
from rouge_chinese import Rouge

from evaluation import Metrics, Prediction, read_predictions, score
from riskva.errors import DataError
from riskva.report import DEFAULT_FORMAT, ReportField, ReportFormat, RiskLevel, RiskReport

CASES = (
    (RiskLevel.MINOR, "细小裂缝，雨水下渗", "灌缝封闭并定期观察", "顶棚存在细小裂缝"),
    (RiskLevel.MINOR, "观感差", "重新打胶", "窗框打胶缺失"),
    (RiskLevel.MODERATE, "面层易松动脱落", "沿缝开槽后灌缝修补", "地面存在明显裂缝"),
    (RiskLevel.SEVERE, "可能坠落伤人", "立即围护并拆除重做", "外墙饰面砖大面积脱落"),
)
LABELS = tuple(
    DEFAULT_FORMAT.render(RiskReport(level, {"风险描述": risk, "纠正和预防建议": advice, "缺陷描述": defect}))
    for level, risk, advice, defect in CASES
)


def _rows(answers: tuple[str, ...] = LABELS, labels: tuple[str, ...] = LABELS) -> list[Prediction]:
    pairs = enumerate(zip(answers, labels, strict=True))
    return [Prediction(f"p{row}", "问", answer, label) for row, (answer, label) in pairs]


def test_metrics_have_the_documented_form() -> None:
    metrics = score(_rows(), DEFAULT_FORMAT)
    assert list(metrics) == list(Metrics.__annotations__)
    assert json.loads(json.dumps(metrics, ensure_ascii=False)) == metrics
    assert list(metrics["rouge"]) == ["whole", "风险描述", "纠正和预防建议", "缺陷描述"]
    for scores in metrics["rouge"].values():
        assert set(scores) == {"rouge-1", "rouge-2", "rouge-l", "floor"}
    assert {"accuracy", "macro_f1", "floor_accuracy", "floor_macro_f1", "per_level", "confusion"} <= set(
        metrics["risk_level"]
    )
    assert set(metrics["format"]) == {"valid_rate", "num_valid", "invalid_reasons"}


def test_perfect_answers_score_full_marks() -> None:
    metrics = score(_rows(), DEFAULT_FORMAT)
    assert metrics["risk_level"]["accuracy"] == metrics["risk_level"]["macro_f1"] == 1.0
    assert metrics["format"] == {"valid_rate": 1.0, "num_valid": 4, "invalid_reasons": {}}
    assert all(one["rouge-1"] == pytest.approx(100, abs=1e-6) for one in metrics["rouge"].values())
    assert metrics["bleu"] == pytest.approx(100)
    assert metrics["num_failed"] == metrics["num_unparsed_references"] == 0


def test_whole_text_rouge_is_llama_factorys() -> None:
    answers = (LABELS[1], LABELS[0].replace("裂缝", "渗水"), "", "裂缝")
    singles = [
        Rouge().get_scores(" ".join(jieba.cut(answer)), " ".join(jieba.cut(label)))[0]["rouge-l"]["f"]
        if answer
        else 0.0
        for answer, label in zip(answers, LABELS, strict=True)
    ]
    # LLaMA-Factory rounds each sample to 4 decimals before the mean
    expected = sum(round(100 * one, 4) for one in singles) / len(singles)
    assert score(_rows(answers), DEFAULT_FORMAT)["rouge"]["whole"]["rouge-l"] == pytest.approx(expected, abs=5e-5)


def test_a_severe_defect_called_minor_shows_where_rouge_does_not() -> None:
    answers = (*LABELS[:3], LABELS[3].replace("严重", "轻微"))
    metrics = score(_rows(answers), DEFAULT_FORMAT)
    assert metrics["rouge"]["whole"]["rouge-1"] > 95
    assert metrics["risk_level"]["severe_recall"] == 0.0
    assert metrics["risk_level"]["under_call_rate"] == 0.5
    assert metrics["risk_level"]["confusion"]["严重"]["轻微"] == 1


def test_a_constant_answer_scores_its_floors() -> None:
    labels = (LABELS[0], LABELS[0], LABELS[1], LABELS[3])
    metrics = score(_rows((LABELS[0],) * 4, labels), DEFAULT_FORMAT)
    levels = metrics["risk_level"]
    assert (levels["accuracy"], levels["macro_f1"]) == (levels["floor_accuracy"], levels["floor_macro_f1"])
    assert metrics["bleu"] == metrics["floor_bleu"]
    for scores in metrics["rouge"].values():
        assert {name: value for name, value in scores.items() if name != "floor"} == scores["floor"]


def test_row_order_changes_nothing() -> None:
    rows = _rows((LABELS[2], "", LABELS[1].replace("轻微", "一般"), LABELS[3]))
    assert score(rows, DEFAULT_FORMAT) == score(rows[::-1], DEFAULT_FORMAT)


def test_a_failed_row_is_kept_as_an_empty_answer() -> None:
    rows = _rows()
    failed = [replace(rows[0], error="images/1.jpg: truncated"), *rows[1:]]
    metrics = score(failed, DEFAULT_FORMAT)
    assert (metrics["num_samples"], metrics["num_failed"]) == (4, 1)
    assert metrics["risk_level"]["accuracy"] == 0.75
    assert metrics["risk_level"]["num_unparsed"] == 1
    assert metrics["format"]["invalid_reasons"] == {"the answer is empty": 1}
    assert metrics["rouge"]["whole"]["rouge-1"] == pytest.approx(75, abs=1e-6)
    assert metrics["bleu"] == pytest.approx(75)


def test_a_failed_row_without_a_label_is_counted_and_scores_nothing() -> None:
    metrics = score([*_rows(), Prediction("row 4", "", "", "", error="test.jsonl:5: no such image")], DEFAULT_FORMAT)
    assert (metrics["num_samples"], metrics["num_failed"], metrics["num_unparsed_references"]) == (5, 1, 1)
    assert metrics["format"]["valid_rate"] == 0.8
    assert metrics["rouge"]["whole"]["rouge-1"] == pytest.approx(80, abs=1e-6)
    assert metrics["risk_level"]["accuracy"] == 1.0


def test_empty_answers_score_nothing() -> None:
    metrics = score(_rows(("",) * 4), DEFAULT_FORMAT)
    assert metrics["risk_level"]["accuracy"] == metrics["risk_level"]["macro_f1"] == metrics["bleu"] == 0.0
    assert {one["rouge-l"] for one in metrics["rouge"].values()} == {0.0}
    assert metrics["format"]["valid_rate"] == 0.0


def test_one_level_only_has_no_severe_recall() -> None:
    metrics = score(_rows(LABELS[:2], LABELS[:2]), DEFAULT_FORMAT)
    assert metrics["risk_level"]["severe_recall"] is None
    assert metrics["risk_level"]["floor_accuracy"] == 1.0


def test_some_unparsed_references_count_for_whole_texts_alone() -> None:
    labels = ("裂缝 明显", *LABELS[1:])
    metrics = score(_rows(labels, labels), DEFAULT_FORMAT)
    assert metrics["num_unparsed_references"] == 1
    assert sum(one["support"] for one in metrics["risk_level"]["per_level"].values()) == 3
    assert metrics["risk_level"]["accuracy"] == 1.0
    assert metrics["format"]["num_valid"] == 3
    assert metrics["rouge"]["whole"]["rouge-1"] == pytest.approx(100, abs=1e-6)


def test_references_of_another_format_name_ids_and_remedy() -> None:
    other = ReportFormat((ReportField("隐患", "a"), ReportField("等级", "b", is_level=True)))
    with pytest.raises(DataError, match=r"none of the 4 labels .* set answer_fields") as caught:
        score(_rows(), other)
    assert "id p0: missing or empty: 隐患, 等级" in str(caught.value)


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="no predictions to score"):
        score([], DEFAULT_FORMAT)


def test_llama_factorys_file_is_scored(tmp_path: Path) -> None:
    path = tmp_path / "generated_predictions.jsonl"
    rows = [
        {"prompt": "user\n", "predict": text, "label": label + "\n"} for text, label in zip(LABELS, LABELS, strict=True)
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    metrics = score(read_predictions(path), DEFAULT_FORMAT)
    assert metrics["num_samples"] == 4
    assert metrics["risk_level"]["accuracy"] == 1.0


def test_scoring_needs_no_writable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "a_file"
    blocked.write_text("", encoding="utf-8")
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(blocked / "metrics"))
    assert score(_rows(), DEFAULT_FORMAT)["num_samples"] == 4
