"""The risk report and its text form: the one place that knows what an answer looks like.

Training text is written by `ReportFormat.render` and read back by `ReportFormat.parse`, and
`parse(render(report)) == report` for every report whose texts are normalised. A text that does not fit is `Unparsed`,
with the reason; it never gets a level. What a model answers is read by `ReportFormat.read_answer`, which is tolerant of
its form and never of its level.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from riskva.errors import ReportError, UnknownLevelError
from riskva.labelled_text import MAX_LABEL, Found, Tolerance, find_fields, find_json


class RiskLevel(enum.IntEnum):
    """How bad a defect is; ordered, so that `RiskLevel.MINOR < RiskLevel.SEVERE`."""

    MINOR = 0
    MODERATE = 1
    SEVERE = 2

    @property
    def label(self) -> str:
        """The Chinese word that reports and tables use: 轻微, 中等 or 严重."""
        return LEVEL_LABELS[self]

    @classmethod
    def from_label(cls, text: str) -> RiskLevel:
        """The level that `text` names, white space and full-width forms aside.

        Raises `UnknownLevelError` for anything else: a level is never guessed.
        """
        word = unicodedata.normalize("NFKC", text).strip()
        for level, label in zip(cls, LEVEL_LABELS, strict=True):
            if word == label:
                return level
        raise UnknownLevelError(_unknown_level(text))


DEFECT_LABEL = "缺陷描述"
"""What the field is called that says what is seen."""

LEVEL_LABELS = ("轻微", "中等", "严重")

NUM_SHOWN = 40

LEVEL_MARKS = (("**", "**"), ('"', '"'), ("'", "'"), ("`", "`"), ("“", "”"), ("‘", "’"), ("「", "」"), ("【", "】"))
"""What may stand before and behind the word of a level in an answer."""


@dataclass(frozen=True)
class ReportField:
    """One line of the report.

    `label` stands in the answer, `column` in the table. `default` fills an empty or absent cell; without one such a row
    is bad. Exactly one field of a format has `is_level`.
    """

    label: str
    column: str
    default: str | None = None
    is_level: bool = False


@dataclass(frozen=True)
class RiskReport:
    """A report as a value: its level, and the text of every other field by label."""

    level: RiskLevel
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unparsed:
    """A text that is no report; `reason` says why, in words for a person."""

    text: str
    reason: str


@dataclass(frozen=True)
class Reading:
    """What an answer says, read with tolerance for its form and none for its level.

    `report` is None where a field is missing, empty or stands twice, or the level is none of the three; `reason` then
    says so in words for a person. `texts` are the fields' texts that could be read all the same, by label. `missing`
    are labels of the format that the answer lacks or leaves empty, `extra` labels that the format does not have.
    `tolerated` are the departures from the rendered form that were read over, values of
    `riskva.labelled_text.Tolerance`; a report without any is exactly what `render` writes.
    """

    report: RiskReport | None
    reason: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    tolerated: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportFormat:
    """The fields of a report, in the order in which they are written.

    Raises `ReportError` unless labels are distinct, free of `*`, colons, line breaks and blanks around them, at most
    60 characters long, and one field is the level.
    """

    fields: tuple[ReportField, ...]

    def __post_init__(self) -> None:
        labels = [one.label for one in self.fields]
        if len(set(labels)) != len(labels):
            raise ReportError(f"answer_fields: a label stands twice in {labels}")
        for label in labels:
            if not label or label != label.strip() or re.search(r"[*:：\n\r]", label):
                raise ReportError(
                    f"answer_fields: label {label!r} is empty, padded with blanks or holds '*', a colon or a line break"
                )
            if len(label) > MAX_LABEL:
                raise ReportError(f"answer_fields: label {label!r} has over {MAX_LABEL} characters")
        num_levels = sum(one.is_level for one in self.fields)
        if num_levels != 1:
            raise ReportError(f"answer_fields: exactly one field must have is_level: true, found {num_levels}")

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(one.label for one in self.fields)

    @property
    def level_label(self) -> str:
        return next(one.label for one in self.fields if one.is_level)

    @property
    def text_labels(self) -> tuple[str, ...]:
        """Labels of the fields that hold free text: all but the level."""
        return tuple(one.label for one in self.fields if not one.is_level)

    @property
    def defect_label(self) -> str | None:
        """The field that says what is seen: 缺陷描述, or the last text; None in a format without texts."""
        labels = self.text_labels
        return DEFECT_LABEL if DEFECT_LABEL in labels else labels[-1] if labels else None

    def render(self, report: RiskReport) -> str:
        """`report` as the text that a model is trained to write: one `**label**: value` line a field.

        Raises `ReportError` when a text is missing or empty. A text is written on one line, so that a label inside it
        cannot begin a line and be read back as a field.
        """
        return "\n".join(f"**{one.label}**: {self._value(one, report)}" for one in self.fields)

    def _value(self, one: ReportField, report: RiskReport) -> str:
        if one.is_level:
            return report.level.label
        text = normalise_text(report.texts.get(one.label, ""))
        if not text:
            raise ReportError(f"{one.label}: the text is empty")
        return text

    def parse(self, text: str) -> RiskReport | Unparsed:
        """The report that `text` holds, or why it holds none: for data and references, of which no text may get lost.

        Labels begin a line, each exactly once, in any order, and marked as `read_answer` allows. A value runs to the
        next label, the last one to the end. Fields of another format, text before the first field, and anything but
        the bare word for the level are refused.
        """
        found = find_fields(text, self.labels)
        reading = self._read(found.with_after())
        if reading.report is None:
            return Unparsed(text, reading.reason or "")
        if reading.extra:
            return Unparsed(text, f"field that the format does not have: {', '.join(reading.extra)}")
        if found.before.strip():
            return Unparsed(text, "text before the first field")
        if Tolerance.LEVEL_MARKS in reading.tolerated:
            return Unparsed(text, _unknown_level(found.values()[self.level_label]))
        return reading.report

    def read_answer(self, text: str) -> Reading:
        """What a model's answer says; see `Reading`.

        Labels begin a line, each exactly once, or are the keys of a JSON object. How they are marked, what stands
        before the first field or behind the last one's paragraph, and fields of other formats are read over; the level
        must be one of the three words, in bold or quotes at most. Takes time in proportion to the text.
        """
        if not text.strip():
            return Reading(None, "the answer is empty", missing=self.labels)
        found = find_fields(text, self.labels)
        if not found.fields:
            found = find_json(text, self.labels) or found
        reading = self._read(found)
        if reading.report is None:
            return reading
        if text == self.render(reading.report):
            return replace(reading, tolerated=())
        return reading if reading.tolerated else replace(reading, tolerated=(Tolerance.BLANKS.value,))

    def _read(self, found: Found) -> Reading:
        """The report of the fields found, or why there is none."""
        values = found.values()
        texts = {label: values[label] for label in self.text_labels if values.get(label)}
        missing = tuple(label for label in self.labels if not values.get(label) and label not in found.doubled)
        level, level_marks = _read_level(values.get(self.level_label, ""))
        reason = None
        if found.doubled:
            reason = "a field stands twice"
        elif missing:
            reason = f"missing or empty: {', '.join(missing)}"
        elif level is None:
            reason = _unknown_level(values[self.level_label])
        report = None if reason or level is None else RiskReport(level, texts)
        tolerated = tuple(one.value for one in Tolerance if one in found.tolerated | level_marks)
        return Reading(report, reason, texts, missing, found.extra, tolerated)

    def instruction(self) -> str:
        """The question's second half: the form that the answer is asked to take."""
        lines = [f"**{one.label}**: {'/'.join(LEVEL_LABELS) if one.is_level else '…'}" for one in self.fields]
        return "请按以下格式回答：\n" + "\n".join(lines)


def _read_level(text: str) -> tuple[RiskLevel | None, frozenset[Tolerance]]:
    """The level that `text` is but for marks around it, None for anything else; and whether there were marks."""
    # no word of a level is longer with its marks, and a long run of marks would be peeled slowly
    word = unicodedata.normalize("NFKC", text[:NUM_SHOWN]).strip()
    bare = _without_marks(word)
    if len(text) > NUM_SHOWN or bare not in LEVEL_LABELS:
        return None, frozenset()
    return RiskLevel.from_label(bare), frozenset() if bare == word else frozenset({Tolerance.LEVEL_MARKS})


def _without_marks(word: str) -> str:
    """`word` without the marks around it and the full stops behind it, however they are nested."""
    for opening, closing in LEVEL_MARKS:
        if word.startswith(opening) and word.endswith(closing) and len(word) > len(opening + closing):
            return _without_marks(word[len(opening) : -len(closing)].strip())
    return _without_marks(word[:-1].strip()) if word.endswith(("。", ".")) else word


def _unknown_level(text: str) -> str:
    """What is said of a text that is no level."""
    shown = text if len(text) <= NUM_SHOWN else text[:NUM_SHOWN] + "…"
    return f"unknown risk level {shown!r}: expected one of {', '.join(LEVEL_LABELS)}"


def normalise_text(text: str) -> str:
    """`text` on one line, runs of white space as one space: what a field's value looks like in an answer."""
    return " ".join(text.split())


DEFAULT_FORMAT = ReportFormat(
    (
        ReportField("风险描述", "data_风险"),
        ReportField("风险等级", "data_风险等级", is_level=True),
        ReportField("纠正和预防建议", "data_纠正和预防建议"),
        ReportField("缺陷描述", "data_缺陷描述"),
    )
)

DEFAULT_SYSTEM_PROMPT = "你是一名资深的建筑工程质量检查员，能从照片中识别建筑缺陷，评估风险并给出处理意见。"


def default_question(report_format: ReportFormat) -> str:
    """What a photo is asked, unless the recipe words it otherwise; it follows the format's fields."""
    return "请检查这张照片中的建筑缺陷，给出风险报告。" + report_format.instruction()
