"""The reports as a user takes them on: `.json`, `.jsonl`, or `.csv` for Excel, one record a photo, in the rows' order.

A record has `report` by label (None where there is none, with the raw answer in `text` and why in `review`), the
`level` with its probabilities, why a person should look at it, and under `compare_gt` the truth and where they agree.

In CSV every field of the report is a column. A cell that a spreadsheet would take for a formula, because it begins with
one of `= + - @`, their full-width forms, a tab or a carriage return, begins with an apostrophe there: a text that a
model read off a photo must not be run by Excel.
"""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from evaluation.predictions import Prediction
from riskva.errors import RecipeError
from riskva.files import write_whole
from riskva.generation.agreement import ROUGE, AgreementCount, compared, report_values
from riskva.generation.review_list import ReviewRule
from riskva.report import LEVEL_LABELS, ReportFormat

Record = dict[str, Any]

NUM_DIGITS = 4
"""Of probabilities and scores in a table for people."""

FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r")
"""What a cell begins with that Excel, LibreOffice or WPS may run (OWASP, CSV injection)."""


@dataclass(frozen=True)
class RecordForm:
    """What records hold: the format's fields, the rule for review, and under `compare_gt` the truth beside each."""

    report_format: ReportFormat
    rule: ReviewRule
    compare_gt: bool

    def record(self, prediction: Prediction) -> Record:
        """One photo's record, ready for `json.dump`."""
        reading = prediction.reading(self.report_format)
        report, beliefs = reading.report, prediction.level_probabilities
        record: Record = {
            "id": prediction.id,
            "image": prediction.image,
            "group": prediction.group,
            "report": report_values(report, self.report_format) if report else None,
            "level": report.level.label if report else None,
            "level_probability": prediction.confidence_in(report.level) if report else None,
            "level_probabilities": dict(zip(LEVEL_LABELS, beliefs, strict=True)) if beliefs else None,
            "finish_reason": prediction.finish_reason,
            "review": [{"code": one.code, "text": one.text} for one in self.rule.reasons(prediction, reading)],
            "error": prediction.error,
            "text": None if report else prediction.predict,
        }
        return record | (compared(report, prediction.label, self.report_format) if self.compare_gt else {})


def write_records(
    predictions: Sequence[Prediction],
    report_format: ReportFormat,
    path: Path,
    *,
    compare_gt: bool,
    rule: ReviewRule,
) -> AgreementCount | None:
    """Write a record for every prediction into `path`, in the form that its suffix names; one is in memory at a time.

    What comes back under `compare_gt` counts how often they agree with the truth. Raises `RecipeError` for a suffix
    other than .json, .jsonl and .csv.
    """
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise RecipeError(f"output_file: {path.name}: the name must end in {', '.join(_WRITERS)}")
    form = RecordForm(report_format, rule, compare_gt)
    count = AgreementCount() if compare_gt else None
    with write_whole(path, "wb") as stream:
        write(_counted(map(form.record, predictions), count), form, stream)
    return count


def _counted(records: Iterable[Record], count: AgreementCount | None) -> Iterator[Record]:
    for record in records:
        if count is not None:
            count.add(record)
        yield record


def _write_json(records: Iterable[Record], form: RecordForm, stream: IO[bytes]) -> None:
    """One array, indented, written record by record."""
    parting = "[\n"
    for record in records:
        text = textwrap.indent(json.dumps(record, ensure_ascii=False, indent=2), "  ")
        stream.write((parting + text).encode())
        parting = ",\n"
    stream.write(b"[]\n" if parting == "[\n" else b"\n]\n")


def _write_jsonl(records: Iterable[Record], form: RecordForm, stream: IO[bytes]) -> None:
    for record in records:
        stream.write((json.dumps(record, ensure_ascii=False) + "\n").encode())


def _write_csv(records: Iterable[Record], form: RecordForm, stream: IO[bytes]) -> None:
    """With a byte order mark, by which Excel knows UTF-8, and the line ends that RFC 4180 asks for."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    columns = _columns(form)
    writer = csv.writer(text)
    writer.writerow(name for name, _ in columns)
    for record in records:
        writer.writerow(_cell(of(record)) for _, of in columns)
    text.flush()
    text.detach()  # the file is closed by who opened it


_WRITERS: dict[str, Callable[[Iterable[Record], RecordForm, IO[bytes]], None]] = {
    ".json": _write_json,
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
}

Column = tuple[str, Callable[[Record], Any]]


def _columns(form: RecordForm) -> list[Column]:
    """What the table's columns are called, and what stands there of a record."""
    labels = form.report_format.labels
    columns = [_plain("id"), _plain("image"), _plain("group")]
    columns += [(label, _nested("report", label)) for label in labels]
    columns += [_plain("level_probability")]
    columns += [(f"probability_{level}", _nested("level_probabilities", level)) for level in LEVEL_LABELS]
    columns += [_plain("finish_reason"), ("review", _review), _plain("error"), _plain("text")]
    if form.compare_gt:
        columns += [(f"truth_{label}", _nested("truth", label)) for label in labels]
        columns += [("level_right", _nested("agreement", "level", "right"))]
        for label in form.report_format.text_labels:
            columns += [(f"same_{label}", _nested("agreement", "texts", label, "same"))]
            columns += [(f"{ROUGE}_{label}", _nested("agreement", "texts", label, ROUGE))]
        columns += [_plain("truth_reason")]
    return columns


def _plain(name: str) -> Column:
    return name, _nested(name)


def _nested(*names: str) -> Callable[[Record], Any]:
    """What stands in a record under these names, one in the other; None where one of them is not there."""

    def find(record: Record) -> Any:
        value: Any = record
        for name in names:
            value = None if value is None else value[name]
        return value

    return find


def _review(record: Record) -> str:
    return "; ".join(f"{one['code']}: {one['text']}" for one in record["review"])


def _cell(value: Any) -> Any:
    """`value` as a spreadsheet takes it; several photos are named one a line."""
    if isinstance(value, tuple | list):
        value = "\n".join(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return round(value, NUM_DIGITS)
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return value
