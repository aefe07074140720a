"""Runs on the same rows, set against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evaluation.evaluated import Evaluation
from evaluation.score_names import Interval


@dataclass(frozen=True)
class Difference:
    """A score of a run less the first run's, and its 95 % interval by a paired bootstrap; None: cannot be told."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Rival:
    """A run against the first one.

    `differences` go by flat score names. `num_only_first` and `num_only_this` rows have their level right in one run
    alone; `p_value` is McNemar's, exact and two-sided. `wins` and `losses` are numbers of rows that this run answers
    better or worse (by the level's cost, then the level, the kind and the texts), the furthest apart first.
    """

    name: str
    differences: Mapping[str, Difference | None]
    num_only_first: int
    num_only_this: int
    p_value: float
    wins: tuple[int, ...]
    losses: tuple[int, ...]


@dataclass(frozen=True)
class Comparison:
    """Two runs or more, by name, on the same rows in the same order; every later one is a rival of the first."""

    runs: Mapping[str, Evaluation]
    rivals: tuple[Rival, ...]
