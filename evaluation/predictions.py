"""`generated_predictions.jsonl`: one answer a line, with what it was asked and what was expected.

The keys `prompt`, `predict` and `label` are LLaMA-Factory's, so its files are read as they are; RisKVA adds `id`,
`image`, `level`, `level_probability`, `finish_reason` and, for a row that could not be predicted, `error`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riskva.errors import DataError, MissingDataError
from riskva.report import LEVEL_LABELS

NUM_LISTED = 5
OPTIONAL_TEXTS = ("finish_reason", "error")


@dataclass(frozen=True)
class Prediction:
    """One row: `predict` is the model's text, `label` the expected one.

    `image` names the photo, or is a tuple of names where a row has none or several. `level` is the Chinese level that
    was read from the answer, `level_probability` (0 to 1) the model's confidence in it. `error` says why the row has no
    answer; None means that it has one.
    """

    id: str
    prompt: str
    predict: str
    label: str
    image: str | tuple[str, ...] | None = None
    level: str | None = None
    level_probability: float | None = None
    finish_reason: str | None = None
    error: str | None = None

    @property
    def answer(self) -> str:
        """The text to score: `predict`, or nothing at all when the row failed."""
        return "" if self.error is not None else self.predict


def read_predictions(path: Path) -> list[Prediction]:
    """The rows of a `generated_predictions.jsonl`, in order, failed ones included; an absent id is the line number.

    Raises `MissingDataError` when there is no such file, `DataError` when it is empty, is not UTF-8, or has bad lines:
    all of them are counted and the first few listed.
    """
    predictions: list[Prediction] = []
    faults: list[str] = []
    for number, line in _lines(path):
        try:
            predictions.append(_parse_line(line, number))
        except DataError as fault:
            faults.append(f"{path}:{number}: {fault}")
    if faults:
        raise DataError(_summary(path, faults))
    if not predictions:
        raise DataError(
            f"{path}: no predictions in this file; run `stage: predict` (or eval without predictions:) first"
        )
    return predictions


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise MissingDataError(f"{path}: no such file; predictions: names a generated_predictions.jsonl") from None
    except IsADirectoryError:
        raise MissingDataError(f"{path}: is a folder; predictions: names the file in it") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text at byte {error.start}; save the file as UTF-8") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line


def _parse_line(line: str, number: int) -> Prediction:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(row, dict):
        raise DataError(f"expected a JSON object, found {type(row).__name__}")
    optional = {key: _text(row, key, needed=False) for key in OPTIONAL_TEXTS}
    answered = optional["error"] is None
    return Prediction(
        id=_identity(row, number),
        prompt=_text(row, "prompt", needed=False) or "",
        predict=_text(row, "predict", needed=answered) or "",
        label=_text(row, "label", needed=answered) or "",
        image=_image(row),
        level=_level(row),
        level_probability=_probability(row),
        **optional,
    )


def _identity(row: Mapping[str, Any], number: int) -> str:
    value = row.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(row, "id", needed=False) or str(number)


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
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError(f"level_probability: expected a number from 0 to 1, found {value!r}")
    return float(value)


def _summary(path: Path, faults: list[str]) -> str:
    listed = faults[:NUM_LISTED]
    if len(faults) > NUM_LISTED:
        listed.append(f"… and {len(faults) - NUM_LISTED} more")
    head = f"{path}: {len(faults)} bad line(s); each line must be one JSON object with the texts predict and label."
    return "\n  ".join([head + " Mend or remove them, or predict again:", *listed])
