"""Intervals of an evaluation's scores: which rows belong together, and which scores are shares of how many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evaluation.bootstrap import intervals, paired_intervals
from evaluation.sample_scores import SampleScore
from evaluation.score_names import Interval
from evaluation.tally import Tally
from riskva.report import RiskLevel

NUM_RESAMPLES = 2000

SEED = 42


@dataclass(frozen=True)
class Resampling:
    """How the rows of an evaluation are drawn anew.

    `groups` (N,) names what each row is drawn together with, None where rows are taken to be independent.
    `num_units` counts, for each score that is a share, the groups (or rows) with a row that it is a share of.
    """

    groups: tuple[str, ...] | None
    num_units: Mapping[str, int]

    @classmethod
    def of(cls, samples: Sequence[SampleScore]) -> Resampling:
        """The resampling of these rows; a row that names no group, where others do, stands alone."""
        names = [f"row {one.id}" if one.group is None else f"group {one.group}" for one in samples]
        units = {
            name: len({unit for unit, one in zip(names, samples, strict=True) if counts(one)})
            for name, counts in SHARE_OF.items()
        }
        return cls(None if all(one.group is None for one in samples) else tuple(names), units)

    def intervals(self, counted: Tally) -> Mapping[str, Interval | None]:
        """95 % intervals of the scores of a tally."""
        return intervals(
            counted.terms,
            self.groups,
            counted.statistics,
            num_resamples=NUM_RESAMPLES,
            seed=SEED,
            share_units=self.num_units,
        )

    def leads(self, first: Tally, second: Tally) -> Mapping[str, Interval | None]:
        """95 % intervals of the second's scores less the first's, both from the same draws of rows."""
        return paired_intervals(
            first.terms,
            second.terms,
            self.groups,
            second.statistics,
            num_resamples=NUM_RESAMPLES,
            seed=SEED,
            share_units=self.num_units,
        )

    def in_words(self) -> str:
        """How intervals came about, for a signature."""
        units = f"{len(set(self.groups))} groups" if self.groups else "rows"
        return f"95 %, bootstrap over {units}, {NUM_RESAMPLES} resamples, seed {SEED}"


def _is_known(one: SampleScore) -> bool:
    return one.expected is not None


SHARE_OF: Mapping[str, Callable[[SampleScore], bool]] = {
    "risk_level.accuracy": _is_known,
    "risk_level.severe_recall": lambda one: _is_known(one) and one.expected.level == RiskLevel.SEVERE,  # type: ignore[union-attr]
    "risk_level.under_call_rate": lambda one: _is_known(one) and one.expected.level > RiskLevel.MINOR,  # type: ignore[union-attr]
    "risk_level.over_call_rate": lambda one: _is_known(one) and one.expected.level < RiskLevel.SEVERE,  # type: ignore[union-attr]
    "format.valid_rate": lambda one: True,
    "format.exact_rate": lambda one: True,
    "kind.accuracy": lambda one: one.kind is not None,
    "room.accuracy": lambda one: one.room is not None,
}
"""Scores that are shares, and the rows that each is a share of."""
