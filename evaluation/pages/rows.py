"""A row as plain JSON values, for the script that draws its card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evaluation.evaluated import Evaluation
from evaluation.levels import UNPARSED
from evaluation.pages.differences import differences
from evaluation.pages.words import MARKS, TOLERATED
from evaluation.predictions import Prediction
from evaluation.sample_scores import Mark, SampleScore
from riskva.labelled_text import Tolerance
from riskva.report import LEVEL_LABELS, ReportFormat

Values = dict[str, Any]
"""What `json.dump` can write."""

MOST_CHARACTERS = 1200
"""Characters of a text that a page shows; only an answer that loops has more."""

_MARKS = tuple(Mark)


def vocabulary(report_format: ReportFormat) -> Values:
    """What the script needs to know to draw any row: the words for levels, marks and fields."""
    return {
        "levels": [*LEVEL_LABELS, UNPARSED],
        "marks": [{"name": mark.value, "zh": MARKS[mark].zh, "en": MARKS[mark].en} for mark in _MARKS],
        "fields": list(report_format.text_labels),
        "levelLabel": report_format.level_label,
    }


def rows_to_show(runs: Sequence[Evaluation], most_rows: int) -> tuple[int, ...]:
    """The numbers of `most_rows` rows, in order; rows with marks in some run go before others, the costliest first."""
    numbers = range(len(runs[0].samples))
    worst_first = sorted(numbers, key=lambda number: _badness([run.samples[number] for run in runs]))
    return tuple(sorted(worst_first[:most_rows]))


def _badness(samples: Sequence[SampleScore]) -> tuple[bool, float]:
    return not any(sample.marks for sample in samples), -max(sample.cost or 0.0 for sample in samples)


def row_values(number: int, runs: Sequence[Evaluation], photos: Sequence[str]) -> Values:
    """The row with the answers of all runs."""
    row, sample = runs[0].predictions[number], runs[0].samples[number]
    answers = [
        _answer(run.predictions[number], run.samples[number], run.scoring.report_format.defect_label) for run in runs
    ]
    return {
        "n": number,
        "id": row.id,
        "group": row.group,
        "photos": list(photos),
        "level": None if sample.expected is None else int(sample.expected.level),
        # a label that is no report is shown as it stands
        "label": _shown(row.label) if sample.expected is None else None,
        "texts": {label: _shown(text) for label, text in sample.expected.texts.items()} if sample.expected else {},
        "answers": answers,
    }


def _answer(row: Prediction, sample: SampleScore, defect_label: str | None) -> Values:
    overlaps = sample.overlaps["jieba"]
    return {
        "level": len(LEVEL_LABELS) if sample.answered_level is None else int(sample.answered_level),
        "marks": [_MARKS.index(mark) for mark in sample.marks],
        "cost": sample.cost,
        "confidence": row.confidence_in(sample.answered_level),
        "probabilities": None if row.level_probabilities is None else list(row.level_probabilities),
        "defect": round(overlaps[defect_label].rouge_l, 1) if defect_label and defect_label in overlaps else None,
        "text": round(sample.text_score, 1),
        "fields": _fields(sample),
        "raw": _shown(row.answer),
        "reason": sample.reading.reason,
        "notes": {
            "missing": list(sample.reading.missing),
            "extra": list(sample.reading.extra),
            "tolerated": [TOLERATED[Tolerance(one)] for one in sample.reading.tolerated],
        },
        "finish": row.finish_reason,
        "error": row.error,
    }


def _fields(sample: SampleScore) -> Mapping[str, Values]:
    """What was read of each text, in pieces, beside the pieces of what was expected."""
    texts = sample.reading.report.texts if sample.reading.report else sample.reading.texts
    expected = sample.expected.texts if sample.expected else {}
    return {label: _compared(expected.get(label), text) for label, text in texts.items()}


def _compared(expected: str | None, answered: str) -> Values:
    shown = _shown(answered)
    if expected is None:
        return {**shown, "pieces": [shown["text"]], "truth": None}
    truth, pieces = differences(_shown(expected)["text"], shown["text"])
    return {**shown, "pieces": pieces, "truth": truth}


def _shown(text: str) -> Values:
    """The text as far as it is shown; `more` is its whole length where that is longer, else 0."""
    is_long = len(text) > MOST_CHARACTERS
    return {"text": text[:MOST_CHARACTERS], "more": len(text) if is_long else 0}


def row_sets(sets: Mapping[str, Iterable[int]], shown: Iterable[int]) -> Mapping[str, list[int]]:
    """The sets of rows by which a page can be filtered, without the rows that it does not show."""
    among = frozenset(shown)
    return {name: [row for row in rows if row in among] for name, rows in sets.items()}
