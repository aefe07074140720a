"""Answers and what was expected: `generated_predictions.jsonl`, LLaMA-Factory's files, or a CSV table.

JSONL has one answer a line, under LLaMA-Factory's keys `prompt`, `predict` and `label`; RisKVA adds `id`, `image`,
`group`, `level`, `level_probability`, `level_probabilities`, `finish_reason` and, for a row that could not be
predicted, `error`. A CSV or TSV table has the same names as columns, of which `predict` and `label` are needed; cells
may hold line breaks, and encoding and delimiter are found as for tables of defects (see `riskva.csvfile`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from riskva.csvfile import DELIMITERS, CsvFile, open_csv
from riskva.errors import DataError, MissingDataError
from riskva.files import write_whole
from riskva.paths import is_file, is_folder
from riskva.report import LEVEL_LABELS, Reading, ReportFormat, RiskLevel

FILE_NAME = "generated_predictions.jsonl"
"""What `stage: predict` and LLaMA-Factory call their answers."""

NUM_LISTED = 5
OPTIONAL_TEXTS = ("finish_reason", "error")
NEEDED_COLUMNS = ("predict", "label")

CSV_SUFFIXES = (".csv", ".tsv", ".tab")
JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")

CUT_OFF = "length"
"""The `finish_reason` of an answer that `max_new_tokens` ended; RisKVA, vLLM and OpenAI's API call it so."""

CUT_OFF_REASON = "cut off by max_new_tokens"
"""Why such an answer is no report."""

SUM_TOLERANCE = 1e-3 + 1e-9
"""How far probabilities may be from a sum of 1: three that were each written with four digits are off by 1.5e-4."""


@dataclass(frozen=True)
class Prediction:
    """One row: `predict` is the model's text, `label` the expected one.

    `image` names the photo, or is a tuple of names where a row has none or several. `group` says which rows belong
    together (a house), None where that is not known. `level` is the Chinese level that was read from the answer,
    `level_probability` (0 to 1) the model's confidence in it, `level_probabilities` (3,) its belief in each level from
    轻微 to 严重. `error` says why the row has no answer; None means that it has one. Without `has_own_id` the id is
    only the row's number in its file.
    """

    id: str
    prompt: str
    predict: str
    label: str
    image: str | tuple[str, ...] | None = None
    group: str | None = None
    level: str | None = None
    level_probability: float | None = None
    level_probabilities: tuple[float, ...] | None = None
    finish_reason: str | None = None
    error: str | None = None
    has_own_id: bool = field(default=True, compare=False)

    @property
    def plain_label(self) -> str:
        """The label as labels are compared, runs of white space as one blank: LLaMA-Factory's end with a line break."""
        return " ".join(self.label.split())

    def confidence_in(self, level: RiskLevel | None) -> float | None:
        """The model's confidence (0 to 1) in the level that was read from its answer; None where the row has none."""
        if self.level_probability is not None or self.level_probabilities is None:
            return self.level_probability
        return confidence_by(self.level_probabilities, level)

    @property
    def answer(self) -> str:
        """The text to score: `predict`, or nothing at all when the row failed."""
        return "" if self.error is not None else self.predict

    @property
    def is_cut_off(self) -> bool:
        """Whether the answer ended because `max_new_tokens` were written. LLaMA-Factory's files do not tell: False."""
        return self.error is None and self.finish_reason == CUT_OFF

    def reading(self, report_format: ReportFormat) -> Reading:
        """What the answer says. One that was cut off is no report, also where its text happens to read as one.

        The last text of such an answer is half a text, and nothing in it shows that. So predictions are read by this,
        never by `ReportFormat.read_answer`.
        """
        reading = report_format.read_answer(self.answer)
        return replace(reading, report=None, reason=CUT_OFF_REASON) if self.is_cut_off else reading


def confidence_by(probabilities: Sequence[float], level: int | None) -> float:
    """The confidence in an answered level that (3,) probabilities mean.

    Without a level it is that of the likeliest one: nobody gains by saying nothing.
    """
    return float(max(probabilities) if level is None else probabilities[int(level)])


def read_predictions(path: Path) -> list[Prediction]:
    """The rows of a file of predictions, in order, failed ones included; one without an id is called by its number.

    Files that end in .csv, .tsv or .tab are tables, and those in .jsonl, .json or .ndjson are JSONL; of others, the
    first character decides. Raises `MissingDataError` when there is no such file, and `DataError` when it is empty,
    lacks a column, cannot be decoded, or has bad rows or ids that stand twice: all of them are counted and the first
    few listed.
    """
    _check_is_file(path)
    is_table = _is_table(path)
    predictions: list[Prediction] = []
    faults: list[str] = []
    lines: dict[str, int] = {}
    for place, (number, row) in enumerate(_table_rows(path) if is_table else _json_rows(path), start=1):
        try:
            one = _parsed(row, place)
            _check_id(one.id, lines.setdefault(one.id, number), number)
            predictions.append(one)
        except DataError as fault:
            faults.append(f"{path}:{number}: {fault}")
    if faults:
        raise DataError(_summary(path, faults, is_table))
    if not predictions:
        raise DataError(
            f"{path}: no predictions in this file; run `stage: predict` (or eval without predictions:) first"
        )
    return predictions


def prediction_of(row: Mapping[str, Any]) -> Prediction:
    """The row that a line of `generated_predictions.jsonl` holds. Raises `DataError` where a value is none."""
    return _prediction(row, 0)


def write_predictions(predictions: Sequence[Prediction], path: Path) -> None:
    """The rows as a `generated_predictions.jsonl`, which `read_predictions` reads back."""
    with write_whole(path) as stream:
        for row in predictions:
            line = {key: value for key, value in asdict(row).items() if key != "has_own_id"}
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")


def _check_is_file(path: Path) -> None:
    if is_folder(path):
        raise MissingDataError(f"{path}: is a folder; predictions: names the file in it")
    if not is_file(path):
        raise MissingDataError(
            f"{path}: no such file; predictions: names a generated_predictions.jsonl, or a CSV table"
        )


def _is_table(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in (*CSV_SUFFIXES, *JSON_SUFFIXES):
        return suffix in CSV_SUFFIXES
    with path.open("rb") as stream:
        start = stream.read(4096)
    return bool(start.strip()) and not start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


Unread = str
"""A line of JSON yet to be parsed."""


def _json_rows(path: Path) -> Iterator[tuple[int, Unread]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text at byte {error.start}; save the file as UTF-8") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            if number == 1 and line.lstrip().startswith("["):
                raise DataError(f"{path}: a JSON array; write one object a line (JSONL)")
            yield number, line


def _table_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | DataError]]:
    marks = sorted(DELIMITERS, key=lambda mark: mark != "\t") if path.suffix.lower() != ".csv" else [*DELIMITERS]
    file = open_csv(path, lambda header: set(NEEDED_COLUMNS) <= set(header), marks)
    _check_columns(file)
    for row in file.rows():
        if fault := file.fault(row):
            yield row.line, DataError(fault[1])
            continue
        try:
            yield row.line, _from_cells(file.cells(row))
        except DataError as error:
            yield row.line, error


def _check_columns(file: CsvFile) -> None:
    if missing := [name for name in NEEDED_COLUMNS if name not in file.columns]:
        raise DataError(
            f"{file.path}: columns missing: {', '.join(missing)}; found ({file.label}): {', '.join(file.columns)}. The "
            "first row must name the columns: predict for answers, label for what was expected"
        )
    known = Prediction.__dataclass_fields__
    if doubled := [name for name in known if file.columns.count(name) > 1]:
        raise DataError(f"{file.path}: columns stand twice: {', '.join(doubled)}; rename or remove one of each")


def _from_cells(cells: Mapping[str, str]) -> dict[str, Any]:
    """A row of a table as JSONL has it: cells without text are absent, other than those of answers and labels."""
    filled = {name: cell.strip() for name, cell in cells.items() if cell.strip()}
    texts = {name: cells[name].replace("\r\n", "\n") for name in ("prompt", *NEEDED_COLUMNS) if name in cells}
    numbers = {name: _number(name, filled[name]) for name in ("level_probability",) if name in filled}
    lists = {name: _json_cell(name, filled[name]) for name in ("level_probabilities",) if name in filled}
    return filled | texts | numbers | lists


def _number(name: str, cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise DataError(f"{name}: expected a number from 0 to 1, found {cell!r}; write 0.87, not 87%") from None


def _json_cell(name: str, cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        raise DataError(f"{name}: expected three numbers as [0.7, 0.2, 0.1], found {cell!r}") from None


def _parsed(row: Unread | Mapping[str, Any] | DataError, place: int) -> Prediction:
    if isinstance(row, DataError):
        raise row
    return _prediction(_loaded(row) if isinstance(row, str) else row, place)


def _loaded(line: Unread) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise DataError("nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"not JSON that can be read ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"expected a JSON object, found {type(row).__name__}")
    return row


def _prediction(row: Mapping[str, Any], place: int) -> Prediction:
    own_id = _name(row, "id")
    optional = {key: _text(row, key, needed=False) for key in OPTIONAL_TEXTS}
    answered = optional["error"] is None
    return Prediction(
        id=own_id or str(place),
        has_own_id=own_id is not None,
        prompt=_text(row, "prompt", needed=False) or "",
        predict=_text(row, "predict", needed=answered) or "",
        label=_text(row, "label", needed=answered) or "",
        image=_image(row),
        group=_name(row, "group"),
        level=_level(row),
        level_probability=_probability(row),
        level_probabilities=_probabilities(row),
        **optional,
    )


def _check_id(one: str, first: int, number: int) -> None:
    if first != number:
        raise DataError(f"id {one!r} stands on line {first} already; give each row an id of its own, or none")


def _name(row: Mapping[str, Any], key: str) -> str | None:
    """What a row or its group is called: text or a whole number; None where it has no name."""
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(row, key, needed=False) or None


def _text(row: Mapping[str, Any], key: str, needed: bool) -> str | None:
    value = row.get(key)
    if value is None:
        if needed:
            raise DataError(f"{key} is missing")
        return None
    if not isinstance(value, str):
        raise DataError(f"{key}: expected text, found {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"{key}: holds half of a surrogate pair, which is no character: {value!r}") from None
    return value


def _image(row: Mapping[str, Any]) -> str | tuple[str, ...] | None:
    """One name, or as many as the row has photos."""
    value = row.get("image")
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    return _text(row, "image", needed=False)


def _level(row: Mapping[str, Any]) -> str | None:
    value = _text(row, "level", needed=False)
    if value is not None and value not in LEVEL_LABELS:
        raise DataError(f"level: expected one of {', '.join(LEVEL_LABELS)} or null, found {value!r}")
    return value


def _probability(row: Mapping[str, Any]) -> float | None:
    value = row.get("level_probability")
    if value is None:
        return None
    if not _is_share(value):
        raise DataError(f"level_probability: expected a number from 0 to 1, found {value!r}")
    return float(value)


def _probabilities(row: Mapping[str, Any]) -> tuple[float, ...] | None:
    """(3,) in the order of the levels; given in that order, or by level."""
    value = row.get("level_probabilities")
    if value is None:
        return None
    names = ", ".join(LEVEL_LABELS)
    if isinstance(value, dict):
        if set(value) != set(LEVEL_LABELS):
            raise DataError(f"level_probabilities: expected the keys {names}, found {', '.join(value) or 'none'}")
        value = [value[label] for label in LEVEL_LABELS]
    if not isinstance(value, list) or len(value) != len(LEVEL_LABELS) or not all(map(_is_share, value)):
        raise DataError(f"level_probabilities: expected three numbers from 0 to 1, for {names}; found {value!r}")
    if abs(sum(value) - 1) > SUM_TOLERANCE:
        raise DataError(
            f"level_probabilities: expected numbers that add up to 1, found {value!r}, which make {sum(value):g}; "
            "divide them by their sum"
        )
    return tuple(map(float, value))


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _summary(path: Path, faults: list[str], is_table: bool) -> str:
    listed = faults[:NUM_LISTED]
    if len(faults) > NUM_LISTED:
        listed.append(f"… and {len(faults) - NUM_LISTED} more")
    form = "row must have the cells" if is_table else "line must be one JSON object with the texts"
    head = f"{path}: {len(faults)} bad line(s); each {form} predict and label."
    return "\n  ".join([head + " Mend or remove them, or predict again:", *listed])
