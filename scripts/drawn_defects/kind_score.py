"""Whether a report on a drawn photo names the right kind of defect: read off the words that drawings are described by.

Stricter than the vocabulary of `stage: eval`, which looks for the first kind that is named: here no other may be named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from drawn_defects.catalogue import kinds_named
from evaluation.predictions import Prediction
from riskva.report import DEFAULT_FORMAT

KIND_FIELD = "缺陷描述"


def kinds_in(report: str) -> frozenset[str]:
    """The kinds that the 缺陷描述 of a report names; none when the text is no report."""
    found = DEFAULT_FORMAT.read_answer(report).report
    return kinds_named(found.texts[KIND_FIELD]) if found else frozenset()


def kind_is_right(row: Prediction) -> bool:
    """Whether the answer names the true kind, and no other."""
    return kinds_in(row.answer) == kinds_in(row.label) != frozenset()


def kind_share(rows: Sequence[Prediction]) -> tuple[float, float]:
    """The share of rows whose kind is right, 0 to 1, and that of always naming the commonest kind.

    An answer that is no report is wrong.
    """
    (commonest,) = Counter(kinds_in(row.label) for row in rows).most_common(1)
    return sum(map(kind_is_right, rows)) / len(rows), commonest[1] / len(rows)
