"""One answer, scored: what it says beside what it should say; every other number is made of these."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation.naming import Named, compare_reports
from evaluation.predictions import Prediction
from evaluation.text_overlap import SEGMENTATIONS, Overlap, bleu_of_pair, overlap
from riskva.files import write_whole
from riskva.level_costs import DEFAULT_COSTS, LevelCosts
from riskva.report import DEFAULT_FORMAT, Reading, ReportFormat, RiskLevel, RiskReport
from riskva.vocabulary import KINDS, ROOMS, Vocabulary

WHOLE = "whole"
"""What the score of a whole text is called beside those of its fields."""

PREFIXES = {"jieba": "rouge", "characters": "rouge_characters"}
"""What the scores of a segmentation are called by in flat names."""

OVERLAPS = ("rouge-1", "rouge-2", "rouge-l")
"""What the numbers of an `Overlap` are called, in its order."""


@dataclass(frozen=True)
class Scoring:
    """By what answers are judged: the report's form, words for kinds and rooms, what mistaken levels cost."""

    report_format: ReportFormat = DEFAULT_FORMAT
    kinds: Vocabulary = field(default_factory=lambda: Vocabulary(KINDS))
    rooms: Vocabulary = field(default_factory=lambda: Vocabulary(ROOMS))
    costs: LevelCosts = DEFAULT_COSTS

    @property
    def kind_labels(self) -> tuple[str, ...]:
        """The fields in which a kind of defect is looked for."""
        seen = self.report_format.defect_label
        return () if seen is None else (seen,)

    @property
    def room_labels(self) -> tuple[str, ...]:
        """The fields in which a room is looked for, in that order."""
        first = self.kind_labels
        return (*first, *(label for label in self.report_format.text_labels if label not in first))


class Mark(enum.StrEnum):
    """What an inspector would say of an answer, the worst first."""

    UNPARSED = "unparsed"
    UNDER_CALLED = "under-called"
    DENIED = "denied"
    OVER_CALLED = "over-called"
    WRONG_KIND = "wrong kind"
    WRONG_ROOM = "wrong room"
    NO_REFERENCE = "no reference"
    """The label is no report: whether the answer is right cannot be told."""


@dataclass(frozen=True)
class SampleScore:
    """One row: `expected` is its label as a report (None where it is none), `reading` what its answer says.

    `cost` is what its level costs, None without a reference level. `overlaps[segmentation][name]` are ROUGE in percent,
    of the `WHOLE` text and of each text field by its label (no fields without a reference). `bleu` is in percent.
    `kind` and `room` are None where the reference names none.
    """

    id: str
    group: str | None
    expected: RiskReport | None
    reading: Reading
    cost: float | None
    overlaps: Mapping[str, Mapping[str, Overlap]]
    bleu: float
    kind: Named | None
    room: Named | None

    @property
    def answered_level(self) -> RiskLevel | None:
        """The level that could be read from the answer."""
        return self.reading.report.level if self.reading.report else None

    @property
    def is_level_right(self) -> bool:
        """Whether the answered level is the reference's; not where either has none."""
        return self.expected is not None and self.answered_level == self.expected.level

    @property
    def text_score(self) -> float:
        """Mean ROUGE-L of the fields in percent, by jieba's words; of the whole text where the label has no fields."""
        overlaps = self.overlaps["jieba"]
        fields = [one.rouge_l for label, one in overlaps.items() if label != WHOLE]
        return fmean(fields) if fields else overlaps[WHOLE].rouge_l

    @property
    def marks(self) -> tuple[Mark, ...]:
        """What is wrong with the answer, the worst first; nothing where no mistake was found, in whatever words."""
        return tuple(mark for mark, applies in self._verdicts().items() if applies)

    def _verdicts(self) -> Mapping[Mark, bool]:
        answered, expected = self.answered_level, self.expected.level if self.expected else None
        both = answered is not None and expected is not None
        return {
            Mark.UNPARSED: answered is None,
            Mark.UNDER_CALLED: both and answered < expected,  # type: ignore[operator]
            Mark.DENIED: answered is not None and self.kind is not None and self.kind.is_denied,
            Mark.OVER_CALLED: both and answered > expected,  # type: ignore[operator]
            Mark.WRONG_KIND: answered is not None and self.kind is not None and not self.kind.is_right,
            Mark.WRONG_ROOM: answered is not None and self.room is not None and not self.room.is_right,
            Mark.NO_REFERENCE: expected is None,
        }


def score_samples(predictions: Sequence[Prediction], scoring: Scoring) -> Iterator[SampleScore]:
    """Each row's score, in order."""
    return (_score_sample(row, scoring) for row in predictions)


def _score_sample(row: Prediction, scoring: Scoring) -> SampleScore:
    expected = scoring.report_format.parse(row.label)
    report = expected if isinstance(expected, RiskReport) else None
    reading = row.reading(scoring.report_format)
    level = reading.report.level if reading.report else None
    return SampleScore(
        id=row.id,
        group=row.group,
        expected=report,
        reading=reading,
        cost=scoring.costs.of(report.level, level) if report else None,
        overlaps={one: _overlaps(row, report, reading.report, one) for one in SEGMENTATIONS},
        bleu=bleu_of_pair(row.answer, row.label),
        kind=compare_reports(report, reading.report, scoring.kinds, scoring.kind_labels) if report else None,
        room=compare_reports(report, reading.report, scoring.rooms, scoring.room_labels) if report else None,
    )


def _overlaps(
    row: Prediction, expected: RiskReport | None, answered: RiskReport | None, segmentation: str
) -> Mapping[str, Overlap]:
    texts = answered.texts if answered else {}
    fields = expected.texts if expected else {}
    return {
        **{label: overlap(texts.get(label, ""), text, segmentation) for label, text in fields.items()},
        WHOLE: overlap(row.answer, row.label, segmentation),
    }


def write_sample_scores(samples: Sequence[SampleScore], path: Path) -> None:
    """One JSON object a row: what was expected and answered, what is wrong with it, and its scores."""
    with write_whole(path) as stream:
        stream.writelines(json.dumps(_as_json(one), ensure_ascii=False) + "\n" for one in samples)


def _as_json(sample: SampleScore) -> dict[str, Any]:
    return {
        "id": sample.id,
        "group": sample.group,
        "expected_level": sample.expected.level.label if sample.expected else None,
        "answered_level": sample.answered_level.label if sample.answered_level is not None else None,
        "cost": sample.cost,
        "marks": [mark.value for mark in sample.marks],
        "reason": sample.reading.reason,
        "tolerated": sample.reading.tolerated,
        "kind": sample.kind and asdict(sample.kind),
        "room": sample.room and asdict(sample.room),
        **{
            PREFIXES[segmentation]: {label: dict(zip(OVERLAPS, one, strict=True)) for label, one in overlaps.items()}
            for segmentation, overlaps in sample.overlaps.items()
        },
        "bleu": sample.bleu,
    }
