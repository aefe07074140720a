"""ROUGE of Chinese texts as an `evaluate` metric: `evaluate.load("evaluation/rouge_zh")`.

As plain functions: `from evaluation.text_overlap import rouge`, `from evaluation.field_scores import rouge_by_field`.
"""

# `evaluate` copies this file and scans its imports with a regular expression: one module a line, absolute names.
from __future__ import annotations

from typing import Any

import datasets
import evaluate

from evaluation.field_scores import rouge_by_field
from evaluation.text_overlap import rouge
from riskva.report import ReportFormat

_DESCRIPTION = "ROUGE-1/2/L F-scores as rouge-chinese gives them, in percent, mean over samples."
_INPUTS = """
Args:
    predictions: list of str, the answers.
    references: list of str, the expected texts, one for each answer.
    segmentation: str, "jieba" (its words; the default) or "characters" (all but white space).
    report_format: riskva.report.ReportFormat, to have each field of reports scored as well; None (default) does not.
Returns:
    dict with `rouge-1`, `rouge-2`, `rouge-l` of whole texts in percent; with a format also `fields`, that by label.
"""


class RougeZh(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """`compute(predictions=[text], references=[text], segmentation="jieba", report_format=None)` -> percent."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        segmentation: str = "jieba",
        report_format: ReportFormat | None = None,
    ) -> dict[str, Any]:
        scores: dict[str, Any] = {**rouge(predictions, references, segmentation)}
        if report_format is not None:
            scores["fields"] = rouge_by_field(predictions, references, report_format, segmentation)
        return scores
