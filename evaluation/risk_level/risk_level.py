"""Scores of the risk level as an `evaluate` metric: `evaluate.load("evaluation/risk_level")`.

As a plain function: `from evaluation.levels import level_scores`.
"""

# `evaluate` copies this file and scans its imports with a regular expression: one module a line, absolute names.
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from evaluation.levels import level_scores
from riskva.level_costs import DEFAULT_COSTS, LevelCosts

_DESCRIPTION = "Accuracy, macro-F1, costs, kappa, per-level scores and confusion of the risk level, beside floors."
_INPUTS = """
Args:
    predictions: list of int (0 轻微, 1 中等, 2 严重) or None where no level could be read.
    references: list of int, one for each prediction.
    costs: riskva.level_costs.LevelCosts, what a mistaken level costs; the default costs if not given.
    probabilities: list of the model's belief in each of the three levels, or None; one for each prediction.
Returns:
    dict, see `evaluation.levels.LevelScores`.
"""


class RiskLevelMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """`compute(predictions=[0, None], references=[0, 2], costs=…)` -> `evaluation.levels.LevelScores`."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(
        self,
        predictions: list[int | None],
        references: list[int],
        costs: LevelCosts = DEFAULT_COSTS,
        probabilities: Sequence[Sequence[float] | None] | None = None,
    ) -> dict[str, Any]:
        return {**level_scores(predictions, references, costs, probabilities=probabilities)}
