"""From answered rows to what a temperature is fitted to, and the table that shows what it changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evaluation.calibration import FEWEST_ROWS, Calibration, Sureness, fit_temperature, sureness, tempered
from evaluation.predictions import Prediction
from evaluation.table import Row, aligned
from riskva.errors import DataError
from riskva.report import ReportFormat, RiskLevel, Unparsed

FAILED = "could not be predicted"
NO_REPORT = "the answer is no report"
NO_PROBABILITIES = "no probabilities of levels"
NO_TRUTH = "the label is no report"

FEW_ROWS = 200
"""Rows below which a temperature is told to be a rough one."""


@dataclass(frozen=True)
class LevelRows:
    """Rows that have both a belief and a truth: (N, 3) probabilities, as the model gave them, and (N,) levels.

    `left_out` counts the other rows by why they are not among them.
    """

    probabilities: tuple[tuple[float, ...], ...]
    levels: tuple[RiskLevel, ...]
    groups: tuple[str | None, ...]
    left_out: Mapping[str, int]

    def tempered(self, temperature: float) -> list[tuple[float, ...]]:
        """(N, 3) probabilities at that temperature."""
        return [tempered(one, temperature) for one in self.probabilities]

    @property
    def in_words(self) -> str:
        """How many rows there are, and which are not among them."""
        left_out = "; ".join(f"{count} × {reason}" for reason, count in self.left_out.items())
        return f"{len(self.levels)} rows" + (f", left out: {left_out}" if left_out else "")


def level_rows(predictions: Sequence[Prediction], report_format: ReportFormat) -> LevelRows:
    """The rows of `predictions` that a temperature can be fitted to, or be judged by.

    Their probabilities must be the model's own, not tempered yet. A row whose answer is no report is left out: nobody
    is told how sure its level is.
    """
    left_out: Counter[str] = Counter()
    kept: list[tuple[tuple[float, ...], RiskLevel, str | None]] = []
    for row in predictions:
        truth = report_format.parse(row.label)
        if isinstance(truth, Unparsed):
            left_out[NO_TRUTH] += 1
        elif row.error is not None:
            left_out[FAILED] += 1
        elif row.level_probabilities is None:
            left_out[NO_PROBABILITIES] += 1
        elif row.reading(report_format).report is None:
            left_out[NO_REPORT] += 1
        else:
            kept.append((row.level_probabilities, truth.level, row.group))
    probabilities, levels, groups = zip(*kept, strict=True) if kept else ((), (), ())
    return LevelRows(probabilities, levels, groups, dict(left_out.most_common()))


def calibrate(rows: LevelRows) -> Calibration:
    """The temperature of these rows. Raises `DataError` as `fit_temperature` does, and says what was left out."""
    try:
        return fit_temperature(rows.probabilities, rows.levels, rows.groups)
    except DataError as error:
        raise DataError(f"eval_dataset: {error} ({rows.in_words})") from error


def render_calibration(calibration: Calibration, fitted: LevelRows, test: LevelRows | None = None) -> str:
    """What the temperature changes, as lines for a terminal without a last line break.

    `test` are rows that nothing was fitted to: their numbers are the ones to believe.
    """
    lines = [f"temperature {calibration.temperature:.3f}, fitted to {fitted.in_words}", *_notes(calibration, fitted)]
    table: list[Row] = [("", "NLL", "ECE", "Brier", "confidence", "accuracy")]
    table += [_row("fitted rows, as answered", calibration.before), _row("  tempered", calibration.after)]
    if calibration.crossed is not None:
        table.append(_row("  tempered, cross-fitted", calibration.crossed))
    if test is not None and test.levels:
        at = calibration.temperature
        table += [
            _row("test rows, as answered", sureness(test.probabilities, test.levels)),
            _row("  tempered", sureness(test.tempered(at), test.levels)),
        ]
    return "\n".join([*lines, *_notes_of_test(test), "", *aligned(table), "", *_meanings(calibration)])


def _row(name: str, one: Sureness) -> Row:
    return (
        name,
        f"{one.nll:.4f}",
        f"{one.ece:.4f}",
        f"{one.brier:.4f}",
        f"{one.confidence:.1%}",
        f"{one.accuracy:.1%}",
    )


def _notes(calibration: Calibration, fitted: LevelRows) -> Iterator[str]:
    if calibration.is_at_bound:
        yield (
            "warning: the fit hit the bound of its range, so that these rows say little of how sure the model may be; "
            "take more rows"
        )
    wrong = round(calibration.num_rows * (1 - calibration.before.accuracy))
    if calibration.num_rows < FEW_ROWS or wrong < FEWEST_ROWS:
        yield (
            f"warning: a rough temperature: {calibration.num_rows} rows, {wrong} of them with a wrong level; "
            f"{FEW_ROWS} rows and {FEWEST_ROWS} mistakes make it one to rely on"
        )


def _notes_of_test(test: LevelRows | None) -> Iterator[str]:
    if test is not None:
        yield f"test rows: {test.in_words}"


def _meanings(calibration: Calibration) -> Iterator[str]:
    before = calibration.before
    manner = (
        "too sure of its levels" if before.confidence > before.accuracy else "less sure of its levels than it may be"
    )
    yield f"the model is {manner}: mean confidence {before.confidence:.1%}, right in {before.accuracy:.1%}"
    yield "no answer changes, only how sure it is said to be; lower is better for NLL, ECE and Brier"
    yield (
        "the fitted rows flatter the temperature; believe the test rows, else the cross-fitted ones (each tenth of the "
        "rows by a temperature from the other nine)"
    )
