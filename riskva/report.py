"""The risk report and its text form: the one place that knows what an answer looks like.

Training text is written by `ReportFormat.render`, answers are read by `ReportFormat.parse`, and
`parse(render(report)) == report` for every report whose texts are normalised. A text that does not fit is `Unparsed`,
with the reason; it never gets a level.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from riskva.errors import ReportError, UnknownLevelError


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
        raise UnknownLevelError(f"unknown risk level {text!r}: expected one of {', '.join(LEVEL_LABELS)}")


LEVEL_LABELS = ("轻微", "中等", "严重")

BOLD_LABEL = re.compile(r"^[ \t]*\*\*(?P<label>[^*\n:：]+?)[ \t]*(?:\*\*[ \t]*[:：]|[:：]\*\*)", re.MULTILINE)
"""A line that begins as a field does, whatever its label."""


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
class ReportFormat:
    """The fields of a report, in the order in which they are written.

    Raises `ReportError` unless labels are distinct, free of `*`, colons, line breaks and blanks around them, and one
    field is the level.
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
        """The report that `text` holds, or why it holds none.

        Every label must begin a line exactly once, in any order; asterisks may be missing and the colon may be
        full-width. A value runs to the next label. A line that begins with a bold label of another format is no
        part of a value: the text is a report of that format, not of this one.
        """
        matches = list(self._line_start().finditer(text))
        values = dict(_labelled_values(matches, text))
        if len(values) < len(matches):
            return Unparsed(text, "a field stands twice")
        missing = [label for label in self.labels if not values.get(label, "").strip()]
        if missing:
            return Unparsed(text, f"missing or empty: {', '.join(missing)}")
        unknown = [match["label"] for match in BOLD_LABEL.finditer(text) if match["label"] not in self.labels]
        if unknown:
            return Unparsed(text, f"field that the format does not have: {', '.join(unknown)}")
        if text[: matches[0].start()].strip():
            return Unparsed(text, "text before the first field")
        try:
            level = RiskLevel.from_label(normalise_text(values[self.level_label]))
        except UnknownLevelError as error:
            return Unparsed(text, str(error))
        return RiskReport(level, {label: normalise_text(values[label]) for label in self.text_labels})

    def _line_start(self) -> re.Pattern[str]:
        labels = "|".join(re.escape(label) for label in sorted(self.labels, key=len, reverse=True))
        marked = rf"\*\*(?:{labels})(?:\*\*[ \t]*[:：]|[ \t]*[:：]\*\*)"
        return re.compile(rf"^[ \t]*(?:{marked}|(?:{labels})[ \t]*[:：])", re.MULTILINE)

    def instruction(self) -> str:
        """The question's second half: the form that the answer is asked to take."""
        lines = [f"**{one.label}**: {'/'.join(LEVEL_LABELS) if one.is_level else '…'}" for one in self.fields]
        return "请按以下格式回答：\n" + "\n".join(lines)


def _labelled_values(matches: Sequence[re.Match[str]], text: str) -> Iterator[tuple[str, str]]:
    ends = [match.start() for match in matches[1:]] + [len(text)]
    for match, end in zip(matches, ends, strict=False):
        yield match.group().strip(" \t*:："), text[match.end() : end]


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
