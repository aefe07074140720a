from collections.abc import Iterator
from pathlib import Path
from typing import Any

import evaluate
import pytest
from report_rows import HUNDRED

import evaluation
from evaluation.bleu_zh.bleu_zh import BleuZh
from evaluation.field_scores import report_fields
from evaluation.levels import level_scores
from evaluation.report_fields.report_fields import ReportFields
from evaluation.risk_level.risk_level import RiskLevelMetric
from evaluation.rouge_zh.rouge_zh import RougeZh
from evaluation.text_overlap import bleu, rouge
from riskva.level_costs import LevelCosts
from riskva.report import DEFAULT_FORMAT, ReportField, ReportFormat, RiskLevel, RiskReport

HOME = Path(evaluation.__file__).parent
ANSWERS = ["墙面开裂", ""]
EXPECTED = ["墙面渗水", "地面起砂"]
REPORT = DEFAULT_FORMAT.render(RiskReport(RiskLevel.SEVERE, dict.fromkeys(DEFAULT_FORMAT.text_labels, "裂缝")))


@pytest.fixture(scope="module", autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # once for the module: Python finds the copied metrics in the first such folder only
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", str(folder / "modules"))
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", str(folder / "metrics"))
        yield


@pytest.fixture(params=["loaded", "direct"])
def metric(request: pytest.FixtureRequest) -> Any:
    classes = {"rouge_zh": RougeZh, "bleu_zh": BleuZh, "risk_level": RiskLevelMetric, "report_fields": ReportFields}

    def make(name: str) -> evaluate.Metric:
        return evaluate.load(str(HOME / name)) if request.param == "loaded" else classes[name]()

    return make


def test_rouge_zh(metric: Any) -> None:
    assert metric("rouge_zh").compute(predictions=ANSWERS, references=EXPECTED) == rouge(ANSWERS, EXPECTED)


def test_rouge_zh_over_characters(metric: Any) -> None:
    scores = metric("rouge_zh").compute(predictions=ANSWERS, references=EXPECTED, segmentation="characters")
    assert scores == rouge(ANSWERS, EXPECTED, "characters")
    assert scores != rouge(ANSWERS, EXPECTED)


def test_rouge_zh_by_field(metric: Any) -> None:
    other = REPORT.replace("裂缝", "渗水", 1)
    scores = metric("rouge_zh").compute(
        predictions=[other, "no report"], references=[REPORT] * 2, report_format=DEFAULT_FORMAT
    )
    assert scores["rouge-1"] == rouge([other, "no report"], [REPORT] * 2)["rouge-1"]
    assert {label: round(one["rouge-l"], 3) for label, one in scores["fields"].items()} == {
        "风险描述": 0,
        "纠正和预防建议": 50,
        "缺陷描述": 50,
    }


def test_bleu_zh(metric: Any) -> None:
    scores = metric("bleu_zh").compute(predictions=ANSWERS, references=EXPECTED)
    assert scores == {"bleu-4": bleu(ANSWERS, EXPECTED)}


def test_risk_level_with_unparsed_answers(metric: Any) -> None:
    scores = metric("risk_level").compute(predictions=[None, 2, 0], references=[1, 2, 2])
    assert scores == level_scores([None, 2, 0], [1, 2, 2])


def test_risk_level_with_costs_and_probabilities(metric: Any) -> None:
    options: dict[str, Any] = {
        "costs": LevelCosts(HUNDRED),
        "probabilities": [[0.2, 0.3, 0.5], None, [0.9, 0.1, 0.0]],
    }
    scores = metric("risk_level").compute(predictions=[None, 2, 0], references=[1, 2, 2], **options)
    assert scores == level_scores([None, 2, 0], [1, 2, 2], **options)
    assert scores["expected_cost"] == pytest.approx((3 + 100) / 3)


def test_risk_level_adds_batches_up(metric: Any) -> None:
    module = metric("risk_level")
    module.add_batch(predictions=[None, 2], references=[1, 2])
    module.add(prediction=0, reference=2)
    assert module.compute() == level_scores([None, 2, 0], [1, 2, 2])


def test_report_fields_in_the_default_format(metric: Any) -> None:
    scores = metric("report_fields").compute(predictions=["", REPORT], references=[REPORT, REPORT])
    assert scores == report_fields(["", REPORT], [REPORT, REPORT])


def test_report_fields_in_another_format(metric: Any) -> None:
    report_format = ReportFormat((ReportField("隐患", "a"), ReportField("等级", "b", is_level=True)))
    text = report_format.render(RiskReport(RiskLevel.MINOR, {"隐患": "裂缝"}))
    scores = metric("report_fields").compute(predictions=[text], references=[text], report_format=report_format)
    assert scores == report_fields([text], [text], report_format)
    assert scores["format"]["num_valid"] == 1
