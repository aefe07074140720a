from dataclasses import replace

import pytest

from evaluation.evaluated import Evaluation
from evaluation.predictions import Prediction
from evaluation.sample_scores import Scoring
from evaluation.scoring import score
from evaluation.table import display_width, render_table
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport


def _label(level: RiskLevel, text: str) -> str:
    return DEFAULT_FORMAT.render(RiskReport(level, dict.fromkeys(DEFAULT_FORMAT.text_labels, text)))


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    labels = [_label(RiskLevel.MINOR, "观感差"), _label(RiskLevel.MINOR, "渗水"), _label(RiskLevel.MODERATE, "脱落")]
    rows = [Prediction(str(row), "问", label, label) for row, label in enumerate(labels)]
    return score([*rows[:2], replace(rows[2], error="no photo")], Scoring())


def _line(text: str, start: str) -> str:
    return next(line for line in text.split("\n") if line.startswith(start))


@pytest.mark.parametrize(("text", "width"), [("", 0), ("abc", 3), ("风险", 4), ("：", 2), ("F1→", 3), ("e\u0301", 1)])
def test_display_width(text: str, width: int) -> None:
    assert display_width(text) == width


def test_every_score_stands_beside_its_interval_and_floors(evaluation: Evaluation) -> None:
    table = render_table(evaluation)
    low, high = evaluation.intervals["risk_level.accuracy"] or (0, 0)
    assert [one.kind for one in evaluation.baselines] == ["constant", "cheapest"]
    floors = [f"{one.scores['risk_level.accuracy']:.3f}" for one in evaluation.baselines]
    assert _line(table, "level accuracy").split()[2:] == ["0.667", f"{low:.3f}", "…", f"{high:.3f}", *floors]
    assert floors == ["0.667", "0.333"]
    for name in (*DEFAULT_FORMAT.text_labels, "whole"):
        cells = _line(table, name).split()[1:]
        assert cells[:3] == [f"{evaluation.scores[f'rouge.{name}.rouge-{kind}']:.1f}" for kind in "12l"]
        assert cells[-1] == f"{evaluation.baselines[0].scores[f'rouge.{name}.rouge-l']:.1f}"


def test_failures_form_findings_and_signature_are_told(evaluation: Evaluation) -> None:
    table = render_table(evaluation)
    assert table.startswith("3 rows scored\n1 of them failed")
    assert "2 of 3 answers are reports (66.7%)\n  1 × the answer is empty" in table
    assert f"error: {evaluation.findings[0].en}" in table
    assert table.split("\n\n")[-1].startswith("signature: ")
    assert "floors: from the labels of the scored rows themselves" in table


def test_what_is_unknown_is_not_a_zero(evaluation: Evaluation) -> None:
    table = render_table(evaluation)
    assert _line(table, "recall of 严重").split() == ["recall", "of", "严重", *"––––"]
    assert _line(table, "严重").split() == ["严重", "0.000", "–", "–", "0", "0", "0", "0", "0"]
    assert _line(table, "中等").split() == ["中等", "0.000", "0.000", "0.000", "1", "0", "0", "0", "1"]


def test_columns_are_aligned_by_what_the_eye_sees(evaluation: Evaluation) -> None:
    blocks = [block.split("\n") for block in render_table(evaluation).split("\n\n")]
    scores, per_level, texts = blocks[1][:-2], blocks[2][:-1], blocks[3]
    assert [line.split(":")[0] for line in blocks[1][-2:]] == ["constant", "cheapest"]
    assert [line.split()[0] for line in per_level] == ["level", "轻微", "中等", "严重"]
    for block in (scores, per_level, texts):
        assert len({display_width(line) for line in block}) == 1


def test_long_and_many_reasons_are_shortened(evaluation: Evaluation) -> None:
    reading = replace(evaluation.samples[0].reading, report=None)
    samples = [
        replace(evaluation.samples[0], reading=replace(reading, reason=f"{number} " + "长" * 100))
        for number in range(8)
    ]
    crowded = replace(evaluation, samples=samples, predictions=evaluation.predictions[:1] * 8)
    lines = render_table(crowded).split("\n\n")[0].split("\n")
    assert lines[-1] == "  … and 3 other reasons"
    assert all(line.endswith("长…") for line in lines[2:-1])
    assert len(lines) == 8
