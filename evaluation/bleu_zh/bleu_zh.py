"""BLEU of Chinese texts as an `evaluate` metric: `evaluate.load("evaluation/bleu_zh")`.

As a plain function: `from evaluation.text_overlap import bleu`.
"""

# `evaluate` copies this file and scans its imports with a regular expression: one module a line, absolute names.
from __future__ import annotations

import datasets
import evaluate

from evaluation.text_overlap import bleu

_DESCRIPTION = (
    "Sentence BLEU-4 over characters as nltk gives it with smoothing method 3, in percent, mean over samples."
)
_INPUTS = """
Args:
    predictions: list of str, the answers.
    references: list of str, the expected texts, one for each answer.
Returns:
    dict with `bleu-4`, in percent.
"""


class BleuZh(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """`compute(predictions=[text], references=[text])` -> `bleu-4` in percent."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {"bleu-4": bleu(predictions, references)}
