"""What a mistaken level costs: calling a dangerous defect minor is worse than the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

from riskva.errors import RecipeError, UnknownLevelError
from riskva.report import RiskLevel

MOST = 1_000_000
"""The largest cost: what matters is only how costs compare."""


@dataclass(frozen=True)
class LevelCosts:
    """`costs[expected][answered]`, in units of the recipe's own; a right level costs nothing.

    Raises `RecipeError` for a level that is none, a negative cost, a cost of a right answer, and where one of the six
    mistakes has no cost: a forgotten one would be free.
    """

    costs: Mapping[str, Mapping[str, float]]

    def __post_init__(self) -> None:
        for expected, row in self.costs.items():
            for answered, cost in row.items():
                _check(expected, answered, cost)
        level = RiskLevel.from_label
        given = {(level(expected), level(answered)) for expected, row in self.costs.items() for answered in row}
        missing = [f"{one.label} → {two.label}" for one, two in permutations(RiskLevel, 2) if (one, two) not in given]
        if missing:
            raise RecipeError(f"level_costs: no cost for {', '.join(missing)}; give all six mistakes one")

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
    if not 0 <= cost <= MOST:
        raise RecipeError(f"level_costs: {expected} → {answered}: a cost is a number from 0 to {MOST:,}, found {cost}")
    if is_right and cost:
        raise RecipeError(f"level_costs: {expected} → {answered}: a right level costs nothing, found {cost}")


DEFAULT_COSTS = LevelCosts(
    {"严重": {"轻微": 10, "中等": 4}, "中等": {"轻微": 3, "严重": 1}, "轻微": {"中等": 1, "严重": 2}}
)
"""Under-calls cost three to ten, over-calls one or two: a visit too many against a danger that is left alone."""
