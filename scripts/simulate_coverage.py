"""How often 95 % intervals hold the truth: draws data whose scores are known, many times. Prints percentages.

    python scripts/simulate_coverage.py --simulations 1500

Rows are drawn alone, or in groups of one to eight of which six in ten rows are like their group's first; with levels as
even as 5:3:2, and as skewed as 16:3:1. tests/evaluation/test_bootstrap.py asks two of the settings for 93 to 97 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import intervals
from evaluation.levels import NUM_CELLS, level_statistics
from riskva.console import progress
from riskva.level_costs import DEFAULT_COSTS

Array = NDArray[np.float64]

SHARES = {"even": np.array([0.5, 0.3, 0.2]), "skewed": np.array([0.8, 0.15, 0.05])}
"""Of each level, among the references."""

ANSWERED = np.array([[0.85, 0.10, 0.03, 0.02], [0.20, 0.65, 0.13, 0.02], [0.08, 0.20, 0.70, 0.02]])
"""For each reference level how often each level, or none, is answered."""

SIZES = (40, 100, 300)
NAMES = ("accuracy", "macro_f1", "severe_recall", "expected_cost", "rouge")
NUM_RESAMPLES = 800


@dataclass(frozen=True)
class Setting:
    """`num_groups` groups of one to `largest` rows; one row each makes independent rows."""

    num_groups: int
    largest: int = 1
    shares: str = "even"

    def simulated(self, draw: np.random.Generator) -> Array:
        """(G, 13): sums of each group: cells of the confusion, and a text score in percent."""
        shape = (self.num_groups, self.largest)
        (cell, value), (first, first_value) = self._rows(draw, shape), self._rows(draw, (self.num_groups, 1))
        is_copy = draw.random(cell.shape) < (0.6 if self.largest > 1 else 0)
        cell, value = np.where(is_copy, first, cell), np.where(is_copy, first_value, value)
        is_there = np.arange(self.largest) < draw.integers(1, self.largest + 1, size=(self.num_groups, 1))
        counts = (np.eye(NUM_CELLS)[cell] * is_there[..., None]).sum(axis=1)
        return np.column_stack([counts, (value * is_there).sum(axis=1)])

    def truth(self) -> Mapping[str, Array]:
        """What the scores of endlessly many rows would be."""
        frequency = SHARES[self.shares][:, None] * ANSWERED
        return scores(np.append(frequency.ravel(), 40 + 8 * np.trace(frequency)))

    def coverage(self, num_simulations: int, seed: int) -> dict[str, float]:
        """The share of simulations, 0 to 1, in which each score's interval holds the truth, where there is one."""
        draw, truth = np.random.default_rng(seed), self.truth()
        hits: dict[str, list[bool]] = {name: [] for name in NAMES}
        for number in range(num_simulations):
            terms = self.simulated(draw)
            with_severe = int((terms[:, NUM_CELLS * 2 // 3 : NUM_CELLS].sum(axis=1) > 0).sum())
            units = {"accuracy": self.num_groups, "severe_recall": with_severe}
            found = intervals(terms, None, scores, num_resamples=NUM_RESAMPLES, seed=number, share_units=units)
            for name in NAMES:
                if (span := found[name]) is not None:
                    hits[name].append(bool(span[0] <= truth[name] <= span[1]))
        return {name: float(np.mean(one)) for name, one in hits.items()}

    def _rows(self, draw: np.random.Generator, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], Array]:
        references = (draw.random((*shape, 1)) > np.cumsum(SHARES[self.shares])[:-1]).sum(axis=-1)
        answers = (draw.random((*shape, 1)) > np.cumsum(ANSWERED, axis=1)[references][..., :-1]).sum(axis=-1)
        return references * 4 + answers, 100 * draw.beta(2, 3, size=shape) + 8 * (answers == references)


def scores(sums: Array) -> Mapping[str, Array]:
    """Scores of sums over rows, (..., 13)."""
    counts = sums[..., :NUM_CELLS]
    return {**level_statistics(counts, DEFAULT_COSTS.matrix), "rouge": sums[..., NUM_CELLS] / counts.sum(axis=-1)}


def settings() -> Iterator[tuple[str, Setting]]:
    """Every setting, with what it is called."""
    for shares in SHARES:
        for largest, what in ((1, "rows"), (8, "groups")):
            yield from ((f"{shares}, {size} {what}", Setting(size, largest, shares)) for size in SIZES)


def main() -> None:
    """Simulate every setting."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=1500)
    asked = parser.parse_args()
    every = list(settings())
    print(f"{'':20}" + "".join(f"{name:>15}" for name in NAMES))
    for name, setting in progress(every, len(every), "coverage", "setting"):
        found = setting.coverage(asked.simulations, seed=11)
        print(f"{name:20}" + "".join(f"{100 * found[one]:15.1f}" for one in NAMES), flush=True)


if __name__ == "__main__":
    main()
