"""What a model must beat: answers that took no look at the photo, scored like its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from evaluation.levels import majority_level
from evaluation.text_overlap import most_frequent
from riskva.report import ReportFormat, RiskLevel, RiskReport

MOST_COMPARED = 20_000
"""Most different training reports among which the nearest is looked for."""

_ROWS_AT_ONCE = 256


def constant_report(reports: Sequence[RiskReport], report_format: ReportFormat) -> RiskReport:
    """The best guess without a photo: the commonest level of `reports`, and of each field the commonest text."""
    level = RiskLevel(majority_level([int(report.level) for report in reports]))
    texts = {label: most_frequent(report.texts[label] for report in reports) for label in report_format.text_labels}
    return RiskReport(level, texts)


def nearest_reports(references: Sequence[RiskReport], training: Iterable[RiskReport]) -> list[RiskReport]:
    """For each reference the training report whose texts come nearest to it: the most that copying could reach.

    Nearness is the cosine of tf-idf vectors over characters and pairs of them (scikit-learn); levels play no part, so
    that the level is not given away. Of equally near reports the commonest counts. Where training has more than
    `MOST_COMPARED` different reports, the commonest of them are compared.
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    different = _commonest_first(training)
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), dtype=np.float32)
    candidates = vectors.fit_transform([_texts(report) for report in different]).T.tocsr()
    wanted = vectors.transform([_texts(report) for report in references])
    nearest: list[RiskReport] = []
    for start in range(0, len(references), _ROWS_AT_ONCE):
        likeness = (wanted[start : start + _ROWS_AT_ONCE] @ candidates).toarray()
        # Rounded, so that the last bits of a float do not choose among equals
        nearest += [different[int(best)] for best in likeness.round(5).argmax(axis=1)]
    return nearest


def _commonest_first(training: Iterable[RiskReport]) -> list[RiskReport]:
    counts = Counter((int(report.level), tuple(report.texts.items())) for report in training)
    ranked = sorted(counts, key=lambda one: (-counts[one], one))[:MOST_COMPARED]
    return [RiskReport(RiskLevel(level), dict(texts)) for level, texts in ranked]


def _texts(report: RiskReport) -> str:
    return "\n".join(report.texts.values())
