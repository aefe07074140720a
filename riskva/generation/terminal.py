"""One photo's report, to be read in a terminal: the level and how sure it is, the texts, why a person should look."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from evaluation.predictions import Prediction
from evaluation.table import display_width
from riskva.generation.agreement import why_no_truth
from riskva.generation.review_list import ReviewRule
from riskva.report import LEVEL_LABELS, Reading, ReportFormat, RiskLevel, RiskReport, Unparsed, normalise_text

NARROWEST, WIDEST = 40, 100
"""Columns within which text is wrapped: longer lines are hard to read, however wide the terminal is."""

BAR_WIDTH = 20
INDENT = "  "
TRUTH = "truth"

_COLOURS = {RiskLevel.MINOR: "32", RiskLevel.MODERATE: "33", RiskLevel.SEVERE: "31"}
_BOLD, _DIM, _WARNING = "1", "2", "33"

# A run of plain letters stays together, and marks that end a phrase go with what is before them.
_UNITS = re.compile(r"(?:[!-~]+|[^!-~])[，。；：！？、）》」』”’％…]*")


@dataclass(frozen=True)
class Screen:
    """What is written to: its width in columns, and whether it shows colours."""

    width: int = 80
    has_colours: bool = False

    def styled(self, text: str, codes: str) -> str:
        """`text` in the style of these ANSI codes, where there are colours."""
        return f"\x1b[{codes}m{text}\x1b[0m" if self.has_colours else text


def screen_of(stream: TextIO) -> Screen:
    """The screen behind `stream`: colours only on a terminal, and not where NO_COLOR is set (no-color.org)."""
    width = shutil.get_terminal_size().columns if stream.isatty() else 80
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return Screen(min(max(width, NARROWEST), WIDEST), stream.isatty() and not is_plain)


def shown(
    prediction: Prediction,
    report_format: ReportFormat,
    rule: ReviewRule,
    *,
    compare_gt: bool = False,
    screen: Screen = Screen(),
) -> str:
    """The report for `prediction` as lines without a last line break, with the truth under each part for `compare_gt`.

    An answer that is no report is shown as it stands. Control characters are not: a model may write any.
    """
    reading = prediction.reading(report_format)
    parsed = report_format.parse(prediction.label) if compare_gt else None
    truth = parsed if isinstance(parsed, RiskReport) else None
    lines = [screen.styled(_printable(_name(prediction)), _BOLD)]
    if reading.report is not None:
        lines += _report(prediction, reading.report, truth, report_format, screen)
    elif prediction.error is None:
        lines += _raw(prediction, screen)
    if reading.report is None and truth is not None:
        lines += _hanging(TRUTH, report_format.render(truth), screen)
    if isinstance(parsed, Unparsed):
        lines += _hanging(TRUTH, f"none: {why_no_truth(parsed)}", screen)
    return "\n".join([*lines, *_reasons(prediction, reading, rule, screen)])


def _name(prediction: Prediction) -> str:
    image = prediction.image
    return prediction.id if not image else image if isinstance(image, str) else ", ".join(image)


def _report(
    prediction: Prediction, report: RiskReport, truth: RiskReport | None, report_format: ReportFormat, screen: Screen
) -> Iterator[str]:
    yield from _level(prediction, report.level, report_format, screen)
    if truth is not None:
        yield from _truth("the same" if truth.level == report.level else truth.level.label, screen)
    for label in report_format.text_labels:
        yield ""
        yield from _hanging(label, report.texts[label], screen)
        if truth is not None:
            is_same = normalise_text(truth.texts[label]) == normalise_text(report.texts[label])
            yield from _truth("the same" if is_same else truth.texts[label], screen)


def _truth(text: str, screen: Screen) -> Iterator[str]:
    for line in _hanging(TRUTH, text, screen, heading=False):
        yield screen.styled(line, _DIM)


def _level(prediction: Prediction, level: RiskLevel, report_format: ReportFormat, screen: Screen) -> Iterator[str]:
    confidence = prediction.confidence_in(level)
    sure = "" if confidence is None else f"  {confidence:.1%}"
    word = screen.styled(level.label, f"{_BOLD};{_COLOURS[level]}")
    yield f"{INDENT}{screen.styled(report_format.level_label, _BOLD)}  {word}{sure}"
    if prediction.level_probabilities is not None:
        yield from _bars(prediction.level_probabilities, screen)


def _bars(probabilities: tuple[float, ...], screen: Screen) -> Iterator[str]:
    """A bar a level, filled to its probability."""
    for level, share in zip(RiskLevel, probabilities, strict=True):
        length = round(share * BAR_WIDTH)
        bar = screen.styled("█" * length, _COLOURS[level]) + "░" * (BAR_WIDTH - length)
        yield f"{INDENT * 2}{LEVEL_LABELS[level]}  {bar}  {share:6.1%}"


def _raw(prediction: Prediction, screen: Screen) -> Iterator[str]:
    yield f"{INDENT}no report; what the model wrote:"
    for line in prediction.predict.strip().split("\n"):
        yield from (f"{INDENT * 2}{part}" for part in _wrapped(_printable(line), screen.width - 2 * len(INDENT)))


def _reasons(prediction: Prediction, reading: Reading, rule: ReviewRule, screen: Screen) -> Iterator[str]:
    reasons = rule.reasons(prediction, reading)
    if reasons:
        yield ""
    for one in reasons:
        for line in _hanging("check", one.text, screen, heading=False):
            yield screen.styled(line, _WARNING)


def _hanging(label: str, text: str, screen: Screen, heading: bool = True) -> Iterator[str]:
    """`text` wrapped behind its label; what does not fit on the label's line goes below, indented."""
    first = f"{INDENT}{label}  "
    rest = INDENT * 2
    parts = [part for line in text.split("\n") for part in _wrapped(_printable(line), screen.width - len(rest))]
    if len(parts) == 1 and display_width(first + parts[0]) <= screen.width:
        yield f"{INDENT}{screen.styled(label, _BOLD) if heading else label}  {parts[0]}"
        return
    yield f"{INDENT}{screen.styled(label, _BOLD) if heading else label}"
    yield from (rest + part for part in parts)


def _wrapped(text: str, width: int) -> Iterator[str]:
    """`text` in lines of at most `width` columns, of which a Chinese character takes two; at least one line."""
    line, used = "", 0
    for unit in _pieces(text, width):
        size = display_width(unit)
        if line and used + size > width:
            yield line.rstrip()
            line, used = "", 0
        if line or not unit.isspace():
            line, used = line + unit, used + size
    yield line.rstrip()


def _pieces(text: str, width: int) -> Iterator[str]:
    """What stays together on a line; only what is longer than a line is cut."""
    for unit in _UNITS.findall(text):
        if display_width(unit) <= width:
            yield unit
        else:
            yield from unit


def _printable(text: str) -> str:
    """`text` without what a terminal obeys: control characters, and marks that turn the direction of writing."""
    return "".join("�" if unicodedata.category(char) in ("Cc", "Cf", "Cs") else char for char in text)
