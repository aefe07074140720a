"""Whether answers have the report's form, and whether their texts name the right kind of defect and the right room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from evaluation.naming import Named, compare_reports
from evaluation.sample_scores import Scoring
from evaluation.text_overlap import RougeScores, rouge
from riskva.errors import DataError
from riskva.report import DEFAULT_FORMAT, Reading, ReportFormat, RiskReport
from riskva.vocabulary import KINDS, ROOMS, Vocabulary


class FormatValidity(TypedDict):
    """How many answers are reports, and what departs from the form; shares are 0 to 1, counts the largest first.

    `exact_rate` is the share written exactly as asked. `invalid_reasons` counts why answers are no reports, `missing`
    and `extra` in how many a label lacks or is too much, `tolerated` in how many a departure was read over.
    """

    valid_rate: float
    exact_rate: float
    num_valid: int
    invalid_reasons: dict[str, int]
    missing: dict[str, int]
    extra: dict[str, int]
    tolerated: dict[str, int]


class NamingScores(TypedDict):
    """How often the right thing is named: `accuracy` is 0 to 1 of the `num_named` rows whose reference names one.

    It is None where no reference does. In `num_denied` rows the answer speaks of the right thing only to deny it.
    """

    accuracy: float | None
    num_named: int
    num_denied: int


class FieldScores(TypedDict):
    """The answers' form, kinds of defects and rooms; a reference that is no report counts for the form alone."""

    format: FormatValidity
    kind: NamingScores
    room: NamingScores
    num_unparsed_references: int


def report_fields(
    predictions: Sequence[str],
    references: Sequence[str],
    report_format: ReportFormat = DEFAULT_FORMAT,
    kinds: Mapping[str, Sequence[str]] | None = None,
    rooms: Mapping[str, Sequence[str]] | None = None,
) -> FieldScores:
    """Scores of the answers `predictions`, one for each reference.

    `kinds` and `rooms` are words by name, `riskva.vocabulary.KINDS` and `ROOMS` if not given. Kinds are looked for in
    缺陷描述, or the last text of a format without it, rooms there and then in the other texts. An answer that is no
    report names nothing. Raises `DataError` when no reference is a report, or when the lists are empty or differ in
    length; `RecipeError` for a word that stands for two names.
    """
    if len(predictions) != len(references):
        raise DataError(f"{len(predictions)} prediction(s) for {len(references)} reference(s): give one a row")
    scoring = Scoring(report_format, _vocabulary(kinds or KINDS), _vocabulary(rooms or ROOMS))
    readings = [report_format.read_answer(text) for text in predictions]
    expected = _reports(references, report_format)
    pairs = [(report, reading.report) for report, reading in zip(expected, readings, strict=True)]
    return FieldScores(
        format=format_validity(readings),
        kind=naming_scores([compare_reports(*pair, scoring.kinds, scoring.kind_labels) for pair in pairs]),
        room=naming_scores([compare_reports(*pair, scoring.rooms, scoring.room_labels) for pair in pairs]),
        num_unparsed_references=expected.count(None),
    )


def rouge_by_field(
    predictions: Sequence[str],
    references: Sequence[str],
    report_format: ReportFormat = DEFAULT_FORMAT,
    segmentation: str = "jieba",
) -> dict[str, RougeScores]:
    """ROUGE in percent of each text field by its label, over the references that are reports.

    An answer that is no report scores 0 in every field. Raises `DataError` as `report_fields` does.
    """
    pairs = [
        (report_format.read_answer(answer).report, expected)
        for answer, expected in zip(predictions, _reports(references, report_format), strict=True)
        if expected is not None
    ]
    return {
        label: rouge(
            [answer.texts[label] if answer else "" for answer, _ in pairs],
            [expected.texts[label] for _, expected in pairs],
            segmentation,
        )
        for label in report_format.text_labels
    }


def _reports(references: Sequence[str], report_format: ReportFormat) -> list[RiskReport | None]:
    """Each reference as a report, None where it is none. Raises `DataError` when none is."""
    parsed = [report_format.parse(text) for text in references]
    expected = [one if isinstance(one, RiskReport) else None for one in parsed]
    if not any(expected):
        raise DataError("no reference is a report of this format: give the report_format that the data was made with")
    return expected


def format_validity(readings: Sequence[Reading]) -> FormatValidity:
    """How many of the answers have the report's form. Raises `DataError` when there are none."""
    if not readings:
        raise DataError("no answers to judge: give at least one row")
    valid = [one for one in readings if one.report is not None]
    return FormatValidity(
        valid_rate=len(valid) / len(readings),
        exact_rate=sum(not one.tolerated for one in valid) / len(readings),
        num_valid=len(valid),
        invalid_reasons=_counted(one.reason for one in readings if one.reason is not None),
        missing=_counted(label for one in readings for label in one.missing),
        # an answer may have the same extra label twice, and counts once
        extra=_counted(label for one in readings for label in set(one.extra)),
        tolerated=_counted(code for one in readings for code in one.tolerated),
    )


def naming_scores(named: Sequence[Named | None]) -> NamingScores:
    """How many rows name the right thing; None stands for a row whose reference names nothing."""
    known = [one for one in named if one is not None]
    return NamingScores(
        accuracy=sum(one.is_right for one in known) / len(known) if known else None,
        num_named=len(known),
        num_denied=sum(one.is_denied for one in known),
    )


def _vocabulary(words: Mapping[str, Sequence[str]]) -> Vocabulary:
    return Vocabulary({name: tuple(synonyms) for name, synonyms in words.items()})


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))
