"""The form of reports and what they name as an `evaluate` metric: `evaluate.load("evaluation/report_fields")`.

As a plain function: `from evaluation.field_scores import report_fields`.
"""

# `evaluate` copies this file and scans its imports with a regular expression: one module a line, absolute names.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate

from evaluation.field_scores import report_fields
from riskva.report import DEFAULT_FORMAT, ReportFormat

_DESCRIPTION = (
    "How many answers are reports of the right form, and how many name the right kind of defect and the right room."
)
_INPUTS = """
Args:
    predictions: list of str, the answers.
    references: list of str, the expected reports, one for each answer.
    report_format: riskva.report.ReportFormat, the fields of the report; the default format if not given.
    kinds: words by kind of defect; riskva.vocabulary.KINDS if not given.
    rooms: words by room; riskva.vocabulary.ROOMS if not given.
Returns:
    dict with `format`, `kind`, `room` and `num_unparsed_references`, see `evaluation.field_scores.FieldScores`.
"""


class ReportFields(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """`compute(predictions=[text], references=[text], report_format=…)` -> `evaluation.field_scores.FieldScores`."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        report_format: ReportFormat = DEFAULT_FORMAT,
        kinds: Mapping[str, Sequence[str]] | None = None,
        rooms: Mapping[str, Sequence[str]] | None = None,
    ) -> dict[str, Any]:
        return {**report_fields(predictions, references, report_format, kinds, rooms)}
