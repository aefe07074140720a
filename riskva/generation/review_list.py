"""`review.jsonl`: the answers that a person should look at, the most pressing first, each with the reasons in words.

Each line carries its photo under `image` and the report's texts under their columns, as in a table. So a person can
mend them in place and give the file to `stage: prepare` as one more table: `csv_path: review.jsonl`. A field that could
not be read is empty there, and `prepare` takes no row before it is filled in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evaluation.predictions import Prediction
from riskva.files import write_whole
from riskva.report import LEVEL_LABELS, Reading, ReportFormat, RiskLevel

FILE_NAME = "review.jsonl"

Code = Literal["error", "no_report", "other_level", "always", "no_confidence", "unsure"]


@dataclass(frozen=True)
class Reason:
    """Why a person should look at an answer: `code` is for programs, `text` for people."""

    code: Code
    text: str


@dataclass(frozen=True)
class ReviewRule:
    """Which reports a person should look at, besides those that are none.

    `below` is the confidence in its level (0 to 1) under which a report is unsure; None asks for no confidence.
    Reports of a level in `always` are looked at however sure the model is, and so are those whose level is not the
    likeliest one, whatever the rule.
    """

    below: float | None = None
    always: tuple[RiskLevel, ...] = ()

    def reasons(self, prediction: Prediction, reading: Reading) -> tuple[Reason, ...]:
        """Why a person should look at this answer, as `Prediction.reading` reads it; nothing where nobody need."""
        return tuple(self._reasons(prediction, reading))

    def needs_review(self, prediction: Prediction, reading: Reading) -> bool:
        """Whether a person should look at this answer."""
        return bool(self.reasons(prediction, reading))

    def _reasons(self, prediction: Prediction, reading: Reading) -> Iterator[Reason]:
        if prediction.error is not None:
            yield Reason("error", f"not answered: {prediction.error}")
        elif reading.report is None:
            yield Reason("no_report", f"the answer is no report: {reading.reason}")
        else:
            yield from self._reasons_of_level(prediction, reading.report.level)

    def _reasons_of_level(self, prediction: Prediction, level: RiskLevel) -> Iterator[Reason]:
        likeliest = _likeliest(prediction)
        if likeliest is not None and likeliest != level:
            text = (
                f"{likeliest.label} is likelier than {level.label}, which was written: the photo may be of a new kind"
            )
            yield Reason("other_level", text)
        if level in self.always:
            yield Reason("always", f"a person looks at every report of {level.label}")
        if self.below is None:
            return
        confidence = prediction.confidence_in(level)
        if confidence is None:
            yield Reason("no_confidence", f"no confidence is known, so not whether it reaches {self.below:g}")
        elif confidence < self.below:
            yield Reason("unsure", f"confidence {_shown_below(confidence, self.below)} is below {self.below:g}")


def _likeliest(prediction: Prediction) -> RiskLevel | None:
    """The level that the model believes in most as a whole word; what it wrote, it chose token by token."""
    known = prediction.level_probabilities
    return None if known is None else max(RiskLevel, key=lambda level: known[level])


def _shown_below(confidence: float, below: float) -> str:
    """Two digits, or as many more as it takes to be seen below the threshold: never "0.70 is below 0.7"."""
    return next(
        (shown for digits in range(2, 6) if float(shown := f"{confidence:.{digits}f}") < below), repr(confidence)
    )


def write_review_list(
    predictions: Sequence[Prediction], report_format: ReportFormat, rule: ReviewRule, path: Path
) -> int:
    """Write the answers that a person should look at into `path`, one JSON object a line; the number of them.

    First those without a report, then 严重, then the others; the least sure first among equals. The file is there also
    where there is nothing to look at.
    """
    urgent: list[tuple[tuple[int, float], int]] = []
    for row, prediction in enumerate(predictions):
        reading = prediction.reading(report_format)
        if rule.needs_review(prediction, reading):
            urgent.append((_urgency(prediction, reading), row))
    with write_whole(path) as stream:
        for _, row in sorted(urgent):
            line = _line(predictions[row], report_format, rule)
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    return len(urgent)


def _urgency(prediction: Prediction, reading: Reading) -> tuple[int, float]:
    """What the list is ordered by. Unknown confidence goes before the least one."""
    if prediction.error is not None or reading.report is None:
        return 0, 0.0 if prediction.error is not None else 1.0
    level = reading.report.level
    confidence = prediction.confidence_in(level)
    return 1 if level == RiskLevel.SEVERE else 2, -1.0 if confidence is None else confidence


def _line(prediction: Prediction, report_format: ReportFormat, rule: ReviewRule) -> dict[str, Any]:
    reading = prediction.reading(report_format)
    level = reading.report.level if reading.report else None
    known = prediction.level_probabilities
    return {
        "id": prediction.id,
        "image": prediction.image,
        "group": prediction.group,
        "level": None if level is None else level.label,
        "level_probability": None if level is None else prediction.confidence_in(level),
        "level_probabilities": None if known is None else dict(zip(LEVEL_LABELS, known, strict=True)),
        "reasons": [{"code": one.code, "text": one.text} for one in rule.reasons(prediction, reading)],
        "predict": prediction.predict,
        **_cells(reading, report_format),  # last: a format's own column may be called `level`, too
    }


def _cells(reading: Reading, report_format: ReportFormat) -> dict[str, str]:
    """The report as a table has it: text by column, empty where the answer has none."""
    level = reading.report.level.label if reading.report else ""
    return {one.column: level if one.is_level else reading.texts.get(one.label, "") for one in report_format.fields}
