"""ROUGE and BLEU of Chinese texts as an `evaluate` metric: `evaluate.load("evaluation/rouge_zh")`."""

# `evaluate` copies this file and scans its imports with a regular expression: one module a line, absolute names.
from __future__ import annotations

from typing import Any

import datasets
import evaluate

from evaluation.text_overlap import bleu, rouge

_DESCRIPTION = "ROUGE-1/2/L (jieba, rouge-chinese) and character BLEU-4 (nltk, method3) in percent, mean over samples."
_INPUTS = """
Args:
    predictions: list of str, the answers.
    references: list of str, the expected texts, one for each answer.
Returns:
    dict with `rouge-1`, `rouge-2`, `rouge-l`, `bleu-4`, in percent.
"""


class RougeZh(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """`compute(predictions=[text], references=[text])` -> `rouge-1`, `rouge-2`, `rouge-l`, `bleu-4` in percent."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return {**rouge(predictions, references), "bleu-4": bleu(predictions, references)}
