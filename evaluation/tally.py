"""Rows as numbers whose sums make every score: what intervals need, since a resample is only other weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.levels import NUM_CELLS, cell_of, level_statistics
from evaluation.sample_scores import OVERLAPS, PREFIXES, WHOLE, SampleScore
from evaluation.score_names import Flat
from riskva.level_costs import LevelCosts

Numbers = NDArray[np.float64]

Over = Literal["all", "reference", "kind", "room"]
"""The rows that a mean is taken over: every row, those whose label is a report, those whose label names one."""


@dataclass(frozen=True)
class Mean:
    """A score that is a mean over rows: what each row adds to it, and which rows count."""

    name: str
    over: Over
    value: Callable[[SampleScore], float]


@dataclass(frozen=True)
class Tally:
    """`terms` (N, K): for each sample its cell of the confusion, which means it counts in, and what it adds to each."""

    terms: Numbers
    means: tuple[Mean, ...]
    costs: LevelCosts

    def statistics(self, sums: Numbers) -> Mapping[str, Numbers]:
        """Flat scores from sums over rows, (..., K) -> name: (...); NaN where a score cannot be told."""
        levels = level_statistics(sums[..., :NUM_CELLS], self.costs.matrix)
        counts = dict(zip(_COUNTED, np.moveaxis(sums[..., NUM_CELLS:], -1, 0), strict=False))
        added = np.moveaxis(sums[..., NUM_CELLS + len(_COUNTED) :], -1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = {mean.name: total / counts[mean.over] for mean, total in zip(self.means, added, strict=True)}
        return {**{f"risk_level.{name}": value for name, value in levels.items()}, **means}

    def scores(self) -> Flat:
        """The scores of all rows together; the order of rows does not change their last digit."""
        found = self.statistics(np.sort(self.terms, axis=0).sum(axis=0))
        return {name: None if np.isnan(value) else float(value) for name, value in found.items()}


def tally(samples: Iterable[SampleScore], text_labels: Sequence[str], costs: LevelCosts) -> Tally:
    """The tally of `samples`, whose reports have these text fields; each sample is looked at once and let go."""
    means = tuple(_means(text_labels))
    numbers = np.fromiter(chain.from_iterable(_terms(one, means) for one in samples), dtype=np.float64)
    return Tally(numbers.reshape(-1, NUM_CELLS + len(_COUNTED) + len(means)), means, costs)


def _terms(sample: SampleScore, means: Sequence[Mean]) -> Iterator[float]:
    # All zeros for a sample whose label is no report, so that it counts in no score of levels
    cell = None if sample.expected is None else cell_of(sample.answered_level, sample.expected.level)
    yield from (float(place == cell) for place in range(NUM_CELLS))
    yield from (float(counts(sample)) for counts in _COUNTED.values())
    yield from (float(mean.value(sample)) for mean in means)


_COUNTED: Mapping[Over, Callable[[SampleScore], float]] = {
    "all": lambda one: 1,
    "reference": lambda one: one.expected is not None,
    "kind": lambda one: one.kind is not None,
    "room": lambda one: one.room is not None,
}


def _means(text_labels: Sequence[str]) -> Iterator[Mean]:
    yield Mean("format.valid_rate", "all", lambda one: one.reading.report is not None)
    yield Mean("format.exact_rate", "all", lambda one: one.reading.report is not None and not one.reading.tolerated)
    yield Mean("kind.accuracy", "kind", lambda one: one.kind is not None and one.kind.is_right)
    yield Mean("room.accuracy", "room", lambda one: one.room is not None and one.room.is_right)
    for segmentation, prefix in PREFIXES.items():
        for label in (*text_labels, WHOLE):
            for place, name in enumerate(OVERLAPS):
                over: Over = "all" if label == WHOLE else "reference"
                yield Mean(f"{prefix}.{label}.{name}", over, _overlap_of(segmentation, label, place))
    yield Mean("bleu", "all", lambda one: one.bleu)


def _overlap_of(segmentation: str, label: str, place: int) -> Callable[[SampleScore], float]:
    def value(one: SampleScore) -> float:
        found = one.overlaps[segmentation].get(label)
        return found[place] if found else 0.0

    return value
