"""Scores of the report's texts, field by field, and whether answers have the report's form at all.

A whole report is mostly template, so its score is high whatever it says; each field is scored alone beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

from evaluation.text_overlap import RougeBesideFloor, rouge_beside_floor
from riskva.errors import DataError
from riskva.report import ReportFormat, RiskReport, Unparsed


class FormatValidity(TypedDict):
    """How many answers are reports: `valid_rate` is 0 to 1, `invalid_reasons` counts why the others are not."""

    valid_rate: float
    num_valid: int
    invalid_reasons: dict[str, int]


class FieldScores(TypedDict):
    """ROUGE of `whole` texts and of each text field by its label, beside floors, and the answers' form."""

    whole: RougeBesideFloor
    fields: dict[str, RougeBesideFloor]
    format: FormatValidity
    num_unparsed_references: int


def field_scores(predictions: Sequence[str], references: Sequence[str], report_format: ReportFormat) -> FieldScores:
    """Scores of the texts of `predictions`, one for each reference.

    An answer that is no report scores 0 in every field. A reference that is none counts for `whole` alone; `DataError`
    when none of them is a report, or when the lists are empty or differ in length.
    """
    whole = rouge_beside_floor(predictions, references)
    answers = [read_answer(text, report_format) for text in predictions]
    expected = [report_format.parse(text) for text in references]
    pairs = [(answer, report) for answer, report in zip(answers, expected, strict=True) if is_report(report)]
    if not pairs:
        raise DataError("no reference is a report of this format: give the answer_fields that the data was made with")
    return FieldScores(
        whole=whole,
        fields={label: _score_field(pairs, label) for label in report_format.text_labels},
        format=_validity(answers),
        num_unparsed_references=len(expected) - len(pairs),
    )


def read_answer(text: str, report_format: ReportFormat) -> RiskReport | Unparsed:
    """The report in a model's answer, or why there is none; an empty answer is called so."""
    return report_format.parse(text) if text.strip() else Unparsed(text, "the answer is empty")


def is_report(parsed: RiskReport | Unparsed) -> bool:
    """Whether parsing found a report."""
    return isinstance(parsed, RiskReport)


def _score_field(pairs: Sequence[tuple[RiskReport | Unparsed, RiskReport | Unparsed]], label: str) -> RougeBesideFloor:
    return rouge_beside_floor(
        [_field_text(answer, label) for answer, _ in pairs], [_field_text(report, label) for _, report in pairs]
    )


def _field_text(parsed: RiskReport | Unparsed, label: str) -> str:
    return parsed.texts[label] if isinstance(parsed, RiskReport) else ""


def _validity(answers: Sequence[RiskReport | Unparsed]) -> FormatValidity:
    reasons = Counter(answer.reason for answer in answers if isinstance(answer, Unparsed))
    num_valid = len(answers) - reasons.total()
    return FormatValidity(
        valid_rate=num_valid / len(answers),
        num_valid=num_valid,
        invalid_reasons=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    )
