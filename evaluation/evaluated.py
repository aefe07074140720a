"""A run that has been scored: its rows, its numbers beside floors and intervals, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.levels import LevelScores
from evaluation.predictions import Prediction
from evaluation.sample_scores import SampleScore, Scoring
from evaluation.score_names import BaselineKind, Flat, Interval
from evaluation.verdict import Finding


@dataclass(frozen=True)
class Baseline:
    """What is scored beside a model: `scores` by flat name, and in words what answered.

    `constant` gives one report for every photo, with the commonest level; `cheapest` is the same with the level whose
    mistakes cost least on the training rows, where that is another. `nearest` is the training report that comes nearest
    to the truth: chosen knowing it, and so no floor but the most that copying could reach. `blanked` is the model
    itself on grey photos.
    """

    kind: BaselineKind
    zh: str
    en: str
    scores: Flat


@dataclass(frozen=True)
class Evaluation:
    """The answers of one run, scored; `samples` run parallel to `predictions`.

    `scores` and `intervals` (95 %, None where none can be told) go by the names of `evaluation.score_names`.
    `baselines` are never empty: the constant one is always there, and first. `num_groups` is None where rows are taken
    to be independent. `leads` are 95 % intervals of this run's score less the constant baseline's, from the same
    resamples. `signature` says how the numbers came about; only equal ones may be compared.
    """

    scoring: Scoring
    predictions: Sequence[Prediction]
    samples: Sequence[SampleScore]
    levels: LevelScores
    scores: Flat
    intervals: Mapping[str, Interval | None]
    baselines: tuple[Baseline, ...]
    num_groups: int | None
    signature: Mapping[str, str]
    findings: tuple[Finding, ...]
    leads: Mapping[str, Interval | None] = field(default_factory=dict)
