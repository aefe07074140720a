"""What a mistaken level costs: calling a dangerous defect minor is worse than the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from riskva.errors import RecipeError, UnknownLevelError
from riskva.report import RiskLevel


@dataclass(frozen=True)
class LevelCosts:
    """`costs[expected][answered]`, in units of the recipe's own; what is not given is 0, as every right level is.

    Raises `RecipeError` for a level that is none, a negative cost, or a cost of a right answer.
    """

    costs: Mapping[str, Mapping[str, float]]

    def __post_init__(self) -> None:
        for expected, row in self.costs.items():
            for answered, cost in row.items():
                _check(expected, answered, cost)

    @cached_property
    def matrix(self) -> tuple[tuple[float, ...], ...]:
        """(3, 4): reference level by answered level; the last column is an answer without a level.

        Such an answer costs what the worst level would: nobody may gain by saying nothing.
        """
        table = [[0.0] * len(RiskLevel) for _ in RiskLevel]
        for expected, row in self.costs.items():
            for answered, cost in row.items():
                table[RiskLevel.from_label(expected)][RiskLevel.from_label(answered)] = float(cost)
        return tuple((*row, max(row)) for row in table)

    def of(self, expected: RiskLevel, answered: RiskLevel | None) -> float:
        """What it costs to answer `answered` (None: nothing that can be read) where `expected` is right."""
        return self.matrix[expected][-1 if answered is None else answered]


def _check(expected: str, answered: str, cost: float) -> None:
    try:
        is_right = RiskLevel.from_label(expected) == RiskLevel.from_label(answered)
    except UnknownLevelError as error:
        raise RecipeError(f"level_costs: {error}") from error
    if not 0 <= cost < float("inf"):
        raise RecipeError(f"level_costs: {expected} → {answered}: a cost is a number from 0 on, found {cost}")
    if is_right and cost:
        raise RecipeError(f"level_costs: {expected} → {answered}: a right level costs nothing, found {cost}")


DEFAULT_COSTS = LevelCosts(
    {"严重": {"轻微": 10, "中等": 4}, "中等": {"轻微": 3, "严重": 1}, "轻微": {"中等": 1, "严重": 2}}
)
"""Under-calls cost three to ten, over-calls one or two: a visit too many against a danger that is left alone."""
