"""ROUGE of Chinese texts as an `evaluate` metric: `evaluate.load("evaluation/rouge_zh")`.

As a plain function: `from evaluation.text_overlap import rouge`.
"""

# `evaluate` copies this file and scans its imports with a regular expression: one module a line, absolute names.
from __future__ import annotations

from typing import Any

import datasets
import evaluate

from evaluation.text_overlap import rouge

_DESCRIPTION = "ROUGE-1/2/L F-scores as rouge-chinese gives them, in percent, mean over samples."
_INPUTS = """
Args:
    predictions: list of str, the answers.
    references: list of str, the expected texts, one for each answer.
    segmentation: str, "jieba" (its words; the default) or "characters" (all but white space).
Returns:
    dict with `rouge-1`, `rouge-2`, `rouge-l`, in percent.
"""


class RougeZh(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """`compute(predictions=[text], references=[text], segmentation="jieba")` -> `RougeScores`, in percent."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(self, predictions: list[str], references: list[str], segmentation: str = "jieba") -> dict[str, Any]:
        return {**rouge(predictions, references, segmentation)}
