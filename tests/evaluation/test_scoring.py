import json
from dataclasses import replace
from pathlib import Path

import jieba
import pytest
from rouge_chinese import Rouge

from evaluation.metrics import Metrics, metrics_of
from evaluation.predictions import Prediction, read_predictions
from evaluation.sample_scores import Scoring, write_sample_scores
from evaluation.scoring import score
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


def _metrics(rows: list[Prediction]) -> Metrics:
    return metrics_of(score(rows, Scoring()))


def test_metrics_have_the_documented_form() -> None:
    metrics = _metrics(_rows())
    assert list(metrics) == list(Metrics.__annotations__)
    assert json.loads(json.dumps(metrics, ensure_ascii=False)) == metrics
    assert list(metrics["rouge"]) == ["whole", "风险描述", "纠正和预防建议", "缺陷描述"]
    for scores in metrics["rouge"].values():
        assert set(scores) == {"rouge-1", "rouge-2", "rouge-l", "floor"}
    assert {"accuracy", "macro_f1", "floor_accuracy", "floor_macro_f1", "per_level", "confusion"} <= set(
        metrics["risk_level"]
    )
    assert {"valid_rate", "exact_rate", "num_valid", "invalid_reasons"} <= set(metrics["format"])
    assert {"segmenter", "data", "fields", "averaging", "floors", "intervals"} <= set(metrics["signature"])


def test_perfect_answers_score_full_marks() -> None:
    metrics = _metrics(_rows())
    assert metrics["risk_level"]["accuracy"] == metrics["risk_level"]["macro_f1"] == 1.0
    assert (metrics["format"]["valid_rate"], metrics["format"]["exact_rate"]) == (1.0, 1.0)
    assert metrics["kind"] == {"accuracy": 1.0, "num_named": 4, "num_denied": 0}
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
    assert _metrics(_rows(answers))["rouge"]["whole"]["rouge-l"] == pytest.approx(expected, abs=5e-5)


def test_a_severe_defect_called_minor_shows_where_rouge_does_not() -> None:
    answers = (*LABELS[:3], LABELS[3].replace("严重", "轻微"))
    metrics = _metrics(_rows(answers))
    assert metrics["rouge"]["whole"]["rouge-1"] > 95
    assert metrics["risk_level"]["severe_recall"] == 0.0
    assert metrics["risk_level"]["under_call_rate"] == 0.5
    assert metrics["risk_level"]["confusion"]["严重"]["轻微"] == 1


def test_a_constant_answer_scores_its_floors() -> None:
    labels = (LABELS[0], LABELS[0], LABELS[1], LABELS[3])
    metrics = _metrics(_rows((LABELS[0],) * 4, labels))
    levels = metrics["risk_level"]
    assert (levels["accuracy"], levels["macro_f1"]) == (levels["floor_accuracy"], levels["floor_macro_f1"])
    assert metrics["bleu"] == metrics["floor_bleu"]
    for scores in metrics["rouge"].values():
        assert {name: value for name, value in scores.items() if name != "floor"} == scores["floor"]


def test_floors_come_from_the_training_rows() -> None:
    training = [_report(LABELS[3])] * 2 + [_report(LABELS[0])]
    metrics = metrics_of(score(_rows(), Scoring(), training))
    levels, constant = metrics["risk_level"], metrics["baselines"]["constant"]
    # always 严重: right in one of four rows, though 轻微 would be right in two
    assert (levels["floor_level"], levels["floor_accuracy"]) == ("严重", 0.25)
    assert constant["risk_level.accuracy"] == 0.25
    # rows 0 and 3 stand in training and are copied; rows 1 and 2 have the nearest of what there is
    nearest = metrics["baselines"]["nearest"]
    assert nearest["risk_level.severe_recall"] == 1
    assert 0.5 <= nearest["risk_level.accuracy"] < 1
    assert metrics["signature"]["floors"] == "from 3 training reports"


def _report(label: str) -> RiskReport:
    parsed = DEFAULT_FORMAT.parse(label)
    assert isinstance(parsed, RiskReport)
    return parsed


def test_grey_photos_are_a_baseline() -> None:
    rows = _rows()
    blanked = [replace(row, predict=LABELS[0]) for row in rows]
    seen, unseen = (score(rows, Scoring(), blanked=one) for one in (blanked, rows))
    assert seen.baselines[-1].kind == "blanked"
    assert seen.baselines[-1].scores["risk_level.accuracy"] == 0.5
    # as good on grey photos: it does not look
    assert "sees_nothing" in {one.code for one in score(rows * 10, Scoring(), blanked=rows * 10).findings}
    assert unseen.baselines[-1].scores == unseen.scores


def test_intervals_widen_with_groups() -> None:
    answers = tuple(LABELS[3] if row % 20 < 8 else LABELS[0] for row in range(80))
    rows = _rows(answers, (LABELS[0],) * 80)
    grouped = [replace(row, group=f"house {number // 20}{number % 20 < 8}") for number, row in enumerate(rows)]
    alone, together = score(rows, Scoring()), score(grouped, Scoring())
    assert (alone.num_groups, together.num_groups) == (None, 8)
    low, high = alone.intervals["risk_level.accuracy"] or (0, 0)
    wider_low, wider_high = together.intervals["risk_level.accuracy"] or (0, 0)
    assert wider_high - wider_low > 1.5 * (high - low)
    assert low < 0.6 < high


def test_the_fingerprint_is_of_rows_and_labels_alone() -> None:
    rows = _rows()
    data = metrics_of(score(rows, Scoring()))["signature"]["data"]
    with_break = [replace(row, label=row.label + "\n") for row in rows]
    others = ([replace(row, predict="无") for row in rows], rows[::-1], with_break)
    assert all(_metrics(list(one))["signature"]["data"] == data for one in others)
    assert _metrics(rows[:3])["signature"]["data"] != data
    assert _metrics([replace(rows[0], id="other"), *rows[1:]])["signature"]["data"] != data
    assert _metrics([replace(rows[0], label=LABELS[1]), *rows[1:]])["signature"]["data"] != data


def test_scores_of_each_row_are_written(tmp_path: Path) -> None:
    rows = _rows((LABELS[0], LABELS[1].replace("轻微", "严重"), "", LABELS[3]))
    evaluation = score(rows, Scoring())
    write_sample_scores(evaluation.samples, tmp_path / "scores.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == ["p0", "p1", "p2", "p3"]
    assert [line["marks"] for line in lines] == [[], ["over-called"], ["unparsed"], []]
    assert [line["cost"] for line in lines] == [0, 2, 3, 0]
    for name in ("rouge-1", "rouge-2", "rouge-l"):
        mean = sum(line["rouge"]["缺陷描述"][name] for line in lines) / 4
        assert mean == pytest.approx(evaluation.scores[f"rouge.缺陷描述.{name}"], abs=1e-9)


def test_row_order_changes_nothing() -> None:
    rows = _rows((LABELS[2], "", LABELS[1].replace("轻微", "一般"), LABELS[3]))
    assert _metrics(rows) == _metrics(rows[::-1])


def test_a_failed_row_is_kept_as_an_empty_answer() -> None:
    rows = _rows()
    failed = [replace(rows[0], error="images/1.jpg: truncated"), *rows[1:]]
    metrics = _metrics(failed)
    assert (metrics["num_samples"], metrics["num_failed"]) == (4, 1)
    assert metrics["risk_level"]["accuracy"] == 0.75
    assert metrics["risk_level"]["num_unparsed"] == 1
    assert metrics["format"]["invalid_reasons"] == {"the answer is empty": 1}
    assert metrics["rouge"]["whole"]["rouge-1"] == pytest.approx(75, abs=1e-6)
    assert metrics["bleu"] == pytest.approx(75)


def test_a_failed_row_without_a_label_is_counted_and_scores_nothing() -> None:
    metrics = _metrics([*_rows(), Prediction("row 4", "", "", "", error="test.jsonl:5: no such image")])
    assert (metrics["num_samples"], metrics["num_failed"], metrics["num_unparsed_references"]) == (5, 1, 1)
    assert metrics["format"]["valid_rate"] == 0.8
    assert metrics["rouge"]["whole"]["rouge-1"] == pytest.approx(80, abs=1e-6)
    assert metrics["risk_level"]["accuracy"] == 1.0


def test_empty_answers_score_nothing() -> None:
    metrics = _metrics(_rows(("",) * 4))
    assert metrics["risk_level"]["accuracy"] == metrics["risk_level"]["macro_f1"] == metrics["bleu"] == 0.0
    assert {one["rouge-l"] for one in metrics["rouge"].values()} == {0.0}
    assert metrics["format"]["valid_rate"] == 0.0


def test_one_level_only_has_no_severe_recall() -> None:
    metrics = _metrics(_rows(LABELS[:2], LABELS[:2]))
    assert metrics["risk_level"]["severe_recall"] is None
    assert metrics["risk_level"]["floor_accuracy"] == 1.0


def test_some_unparsed_references_count_for_whole_texts_alone() -> None:
    labels = ("裂缝 明显", *LABELS[1:])
    metrics = _metrics(_rows(labels, labels))
    assert metrics["num_unparsed_references"] == 1
    assert sum(one["support"] for one in metrics["risk_level"]["per_level"].values()) == 3
    assert metrics["risk_level"]["accuracy"] == 1.0
    assert metrics["format"]["num_valid"] == 3
    assert metrics["rouge"]["whole"]["rouge-1"] == pytest.approx(100, abs=1e-6)


def test_references_of_another_format_name_ids_and_remedy() -> None:
    other = ReportFormat((ReportField("隐患", "a"), ReportField("等级", "b", is_level=True)))
    with pytest.raises(DataError, match=r"none of the 4 labels .* set answer_fields") as caught:
        score(_rows(), Scoring(other))
    assert "id p0: missing or empty: 隐患, 等级" in str(caught.value)


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="no predictions to score"):
        score([], Scoring())


def test_llama_factorys_file_is_scored(tmp_path: Path) -> None:
    path = tmp_path / "generated_predictions.jsonl"
    rows = [
        {"prompt": "user\n", "predict": text, "label": label + "\n"} for text, label in zip(LABELS, LABELS, strict=True)
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    metrics = _metrics(read_predictions(path))
    assert metrics["num_samples"] == 4
    assert metrics["risk_level"]["accuracy"] == 1.0


def test_scoring_needs_no_writable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "a_file"
    blocked.write_text("", encoding="utf-8")
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(blocked / "metrics"))
    assert _metrics(_rows())["num_samples"] == 4


def test_answers_that_were_cut_off_count_as_no_reports_and_floors_do_not() -> None:
    rows = [replace(row, finish_reason="length" if place == 3 else "stop") for place, row in enumerate(_rows())]
    evaluation = score(rows, Scoring())
    metrics = metrics_of(evaluation)
    assert metrics["format"]["invalid_reasons"] == {"cut off by max_new_tokens": 1}
    assert metrics["format"]["valid_rate"] == 0.75
    assert metrics["risk_level"]["num_unparsed"] == 1
    assert metrics["risk_level"]["severe_recall"] == 0.0
    # the text is compared as it stands, as LLaMA-Factory does; its fields are no report's and score 0
    assert metrics["rouge"]["whole"]["rouge-l"] == pytest.approx(100, abs=1e-6)
    assert metrics["rouge"]["缺陷描述"]["rouge-l"] == pytest.approx(75, abs=1e-6)
    (unparsed,) = [one for one in evaluation.findings if one.code == "unparsed"]
    assert "1 of them hit max_new_tokens" in unparsed.en
    assert "其中 1 个写到 max_new_tokens" in unparsed.zh
    # a constant report is whole, whatever became of the model's answers
    every = score([replace(row, finish_reason="length") for row in _rows()], Scoring())
    assert every.baselines[0].scores["format.valid_rate"] == 1.0
