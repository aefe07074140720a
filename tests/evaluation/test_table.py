from dataclasses import replace

import pytest

from evaluation.predictions import Prediction
from evaluation.scoring import Metrics, score
from evaluation.table import display_width, render_table
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport


def _label(level: RiskLevel, text: str) -> str:
    return DEFAULT_FORMAT.render(RiskReport(level, dict.fromkeys(DEFAULT_FORMAT.text_labels, text)))


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    labels = [_label(RiskLevel.MINOR, "观感差"), _label(RiskLevel.MINOR, "渗水"), _label(RiskLevel.MODERATE, "脱落")]
    rows = [Prediction(str(row), "问", label, label) for row, label in enumerate(labels)]
    return score([*rows[:2], replace(rows[2], error="no photo")], DEFAULT_FORMAT)


def _line(text: str, start: str) -> str:
    return next(line for line in text.split("\n") if line.startswith(start))


@pytest.mark.parametrize(("text", "width"), [("", 0), ("abc", 3), ("风险", 4), ("：", 2), ("F1→", 3), ("e\u0301", 1)])
def test_display_width(text: str, width: int) -> None:
    assert display_width(text) == width


def test_every_headline_stands_beside_its_floor(metrics: Metrics) -> None:
    table = render_table(metrics)
    assert _line(table, "risk level").endswith("floor (always 轻微)")
    assert _line(table, "accuracy").split() == ["accuracy", "0.667", "0.667"]
    assert _line(table, "macro-F1").split() == ["macro-F1", "0.333", "0.267"]
    for name, scores in metrics["rouge"].items():
        cells = _line(table, name).split()[1:]
        assert cells[::2] == [f"{scores[kind]:.1f}" for kind in ("rouge-1", "rouge-2", "rouge-l")]
        assert cells[1::2] == [f"{scores['floor'][kind]:.1f}" for kind in ("rouge-1", "rouge-2", "rouge-l")]
    assert f"{metrics['bleu']:.1f}, floor {metrics['floor_bleu']:.1f}" in _line(table, "BLEU-4 of whole")


def test_failures_form_and_signature_are_told(metrics: Metrics) -> None:
    table = render_table(metrics)
    assert table.startswith("3 rows scored\n1 of them failed")
    assert "2 of 3 answers are reports (66.7%)\n  1 × the answer is empty" in table
    assert "segmenter: jieba" in table


def test_what_is_unknown_is_not_a_zero(metrics: Metrics) -> None:
    table = render_table(metrics)
    assert _line(table, "recall of 严重").split() == ["recall", "of", "严重", "–"]
    assert _line(table, "严重").split() == ["严重", "0.000", "–", "–", "0", "0", "0", "0", "0"]
    assert _line(table, "中等").split() == ["中等", "0.000", "0.000", "0.000", "1", "0", "0", "0", "1"]


def test_columns_are_aligned_by_what_the_eye_sees(metrics: Metrics) -> None:
    blocks = [block.split("\n") for block in render_table(metrics).split("\n\n")]
    per_level, texts = blocks[2], blocks[3][:-1]
    assert [line.split()[0] for line in per_level] == ["level", "轻微", "中等", "严重"]
    assert len({display_width(line) for line in per_level}) == 1
    assert len({display_width(line) for line in texts}) == 1


def test_long_and_many_reasons_are_shortened(metrics: Metrics) -> None:
    reasons = {f"{number} " + "长" * 100: 1 for number in range(8)}
    crowded: Metrics = {**metrics, "format": {"valid_rate": 0.0, "num_valid": 0, "invalid_reasons": reasons}}
    lines = render_table(crowded).split("\n\n")[0].split("\n")
    assert lines[-1] == "  … and 3 other reasons"
    assert all(line.endswith("长…") for line in lines[3:-1])
    assert len(lines) == 9
