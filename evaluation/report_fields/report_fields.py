"""Scores of the report's texts by field as an `evaluate` metric: `evaluate.load("evaluation/report_fields")`."""

# `evaluate` copies this file and scans its imports with a regular expression: one module a line, absolute names.
from __future__ import annotations

from typing import Any

import datasets
import evaluate

from evaluation.field_scores import field_scores
from riskva.report import DEFAULT_FORMAT, ReportFormat

_DESCRIPTION = "ROUGE of whole reports and of each field beside a constant answer's, and how many answers are reports."
_INPUTS = """
Args:
    predictions: list of str, the answers.
    references: list of str, the expected reports, one for each answer.
    report_format: riskva.report.ReportFormat, the fields of the report; the default format if not given.
Returns:
    dict with `whole`, `fields`, `format`, `num_unparsed_references`, see `evaluation.field_scores.FieldScores`.
"""


class ReportFields(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """`compute(predictions=[text], references=[text], report_format=…)` -> `evaluation.field_scores.FieldScores`."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(
        self, predictions: list[str], references: list[str], report_format: ReportFormat = DEFAULT_FORMAT
    ) -> dict[str, Any]:
        return {**field_scores(predictions, references, report_format)}
