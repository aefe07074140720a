"""What a model must beat: answers that took no look at the photo, scored like its own."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from evaluation.levels import majority_level
from evaluation.score_names import BaselineKind
from evaluation.text_overlap import most_frequent
from riskva.console import progress
from riskva.level_costs import LevelCosts
from riskva.report import ReportFormat, RiskLevel, RiskReport

MOST_COMPARED = 20_000
"""Most different training reports among which the nearest is looked for."""

NAMES: Mapping[BaselineKind, tuple[str, str]] = {
    "constant": ("固定答案", "one constant answer"),
    "cheapest": ("代价最低的固定等级", "the cheapest constant level"),
    "nearest": ("最近训练文本", "nearest training report"),
    "blanked": ("灰色照片", "grey photos"),
}
"""What the baselines are called."""

_ROWS_AT_ONCE = 256
_SEED = 42


@dataclass(frozen=True)
class Floors:
    """What floors are taken from: the training reports, or without any the references themselves."""

    reports: Sequence[RiskReport]
    are_training: bool
    report_format: ReportFormat
    costs: LevelCosts

    @cached_property
    def constant(self) -> RiskReport:
        """The best guess without a photo: the commonest level, and of each field the commonest text."""
        level = RiskLevel(majority_level([int(report.level) for report in self.reports]))
        labels = self.report_format.text_labels
        return RiskReport(level, {label: most_frequent(one.texts[label] for one in self.reports) for label in labels})

    @cached_property
    def cheapest(self) -> RiskReport:
        """The constant report with the level that costs least if it is always answered; the lower one of equals."""
        counts = Counter(report.level for report in self.reports)

        def cost(answered: RiskLevel) -> float:
            return sum(count * self.costs.of(expected, answered) for expected, count in counts.items())

        return RiskReport(min(RiskLevel, key=lambda level: (cost(level), level)), self.constant.texts)

    def answers(self, references: Sequence[RiskReport | None], kind: BaselineKind) -> Sequence[str]:
        """What the baseline of that kind answers to each row."""
        render = self.report_format.render
        if kind == "nearest":
            nearest = iter(nearest_reports([one for one in references if one is not None], self.reports))
            return [render(self.constant if one is None else next(nearest)) for one in references]
        return [render(self.constant if kind == "constant" else self.cheapest)] * len(references)

    def in_words(self) -> str:
        """Where floors come from, for a signature."""
        if not self.are_training:
            return "from the labels of the scored rows themselves"
        num_different = len(_different(self.reports))
        sampled = f", nearest among {MOST_COMPARED} of {num_different} different ones"
        return f"from {len(self.reports)} training reports" + (sampled if num_different > MOST_COMPARED else "")


def nearest_reports(references: Sequence[RiskReport], training: Iterable[RiskReport]) -> list[RiskReport]:
    """For each reference the training report whose texts come nearest to it: the most that copying could reach.

    Nearness is the cosine of tf-idf vectors over characters and pairs of them (scikit-learn); levels play no part, so
    that the level is not given away. Of equally near reports the commonest counts. Where training has more than
    `MOST_COMPARED` different reports, that many of them are drawn, always the same ones.
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    candidates = _candidates(training)
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), dtype=np.float32)
    known = vectors.fit_transform([_texts(report) for report in candidates]).T.tocsr()
    wanted = vectors.transform([_texts(report) for report in references])
    starts = range(0, len(references), _ROWS_AT_ONCE)
    nearest: list[RiskReport] = []
    for start in progress(starts, len(starts), "looking for the nearest training reports", "block"):
        likeness = (wanted[start : start + _ROWS_AT_ONCE] @ known).toarray()
        # Rounded, so that the last bits of a float do not choose among equals
        nearest += [candidates[int(best)] for best in likeness.round(5).argmax(axis=1)]
    return nearest


_Key = tuple[int, tuple[tuple[str, str], ...]]


def _different(reports: Iterable[RiskReport]) -> Counter[_Key]:
    return Counter((int(report.level), tuple(report.texts.items())) for report in reports)


def _candidates(training: Iterable[RiskReport]) -> list[RiskReport]:
    """The different reports, the commonest first; a draw of them that does not look at what they say, if too many."""
    counts = _different(training)
    ranked = sorted(counts, key=lambda one: (-counts[one], one))
    if len(ranked) > MOST_COMPARED:
        drawn = random.Random(_SEED).sample(range(len(ranked)), MOST_COMPARED)
        ranked = [ranked[place] for place in sorted(drawn)]
    return [RiskReport(RiskLevel(level), dict(texts)) for level, texts in ranked]


def _texts(report: RiskReport) -> str:
    return "\n".join(report.texts.values())
