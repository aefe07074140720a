"""Whether a report on a drawn photo names the right kind of defect: read off the words of its 缺陷描述."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from drawn_defects.catalogue import kinds_named
from evaluation.field_scores import read_answer
from evaluation.predictions import Prediction
from evaluation.side_by_side import ScoreLine
from riskva.report import DEFAULT_FORMAT, Unparsed

KIND_FIELD = "缺陷描述"
KIND_LINE = "kind named rightly"


def kinds_in(report: str) -> frozenset[str]:
    """The kinds that the 缺陷描述 of a report names; none when the text is no report."""
    parsed = read_answer(report, DEFAULT_FORMAT)
    return frozenset() if isinstance(parsed, Unparsed) else kinds_named(parsed.texts[KIND_FIELD])


def kind_is_right(row: Prediction) -> bool:
    """Whether the answer names the true kind, and no other."""
    return kinds_in(row.answer) == kinds_in(row.label) != frozenset()


def kind_line(runs: Sequence[Sequence[Prediction]]) -> ScoreLine:
    """The share of rows whose kind is right, 0 to 1, run by run; the floor always names the commonest kind.

    An answer that is no report is wrong. All runs answer the same rows.
    """
    (commonest,) = Counter(kinds_in(row.label) for row in runs[0]).most_common(1)
    floor = commonest[1] / len(runs[0])
    return ScoreLine(KIND_LINE, floor, tuple(sum(map(kind_is_right, rows)) / len(rows) for rows in runs))
