"""The scores of several runs on the same rows, side by side in one table, each line beside its floor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evaluation.levels import LevelScores
from evaluation.table import UNKNOWN, aligned, shown_share, under_call_rate
from riskva.errors import DataError, MissingDataError

if TYPE_CHECKING:
    from evaluation.scoring import Metrics

COMPARED_KEYS = frozenset(
    {"num_samples", "num_unparsed_references", "risk_level", "format", "rouge", "bleu", "floor_bleu", "signature"}
)
FLOOR_DIGITS = 6


@dataclass(frozen=True)
class ScoreLine:
    """One line of the table: a score of every run, in the order of the runs; None is unknown.

    `floor` is what a constant answer scores. Values are shares of 0 to 1, or percent where `is_percent`.
    """

    name: str
    floor: float | None
    scores: tuple[float | None, ...]
    is_percent: bool = False

    def cells(self) -> tuple[str, ...]:
        """Name, floor and scores as they are shown."""
        return (self.name, self.shown(self.floor), *map(self.shown, self.scores))

    def shown(self, value: float | None) -> str:
        """`value` with the digits of this line, `UNKNOWN` for None."""
        if value is None or not self.is_percent:
            return shown_share(value)
        return f"{value:.1f}"


def read_metrics(path: Path) -> Metrics:
    """The scores that `stage: eval` wrote to `path`.

    Raises `MissingDataError` when there is no such file, `DataError` when it is no `metrics.json`.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingDataError(f"{path}: no such file; score the predictions with stage: eval first") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); score the predictions again with stage: eval") from error
    if missing := sorted(_missing_keys(values)):
        raise DataError(f"{path}: lacks {', '.join(missing)}; score the predictions again with stage: eval")
    return cast("Metrics", values)


def _missing_keys(values: Any) -> Iterator[str]:
    if not isinstance(values, dict):
        yield from COMPARED_KEYS
        return
    yield from COMPARED_KEYS - set(values)
    levels = values.get("risk_level")
    found = set(levels) if isinstance(levels, dict) else set()
    yield from (f"risk_level.{key}" for key in LevelScores.__required_keys__ - found)


def render_side_by_side(runs: Mapping[str, Metrics], more: Sequence[ScoreLine] = ()) -> str:
    """A table of `score_lines`, then of the lines in `more`: one column for the floor, then one a run.

    Raises `DataError` as `score_lines` does.
    """
    lines = [*score_lines(runs), *more]
    first = next(iter(runs.values()))
    rows = [(f"{first['num_samples']} rows", "floor", *runs), *(line.cells() for line in lines)]
    return "\n".join([*aligned(rows), floor_note(first)])


def floor_note(metrics: Metrics) -> str:
    """What the floor's column means."""
    level = metrics["risk_level"]["floor_level"]
    return f"floor: one constant answer ({level} for the level, the commonest text for texts); {UNKNOWN} is unknown"


def score_lines(runs: Mapping[str, Metrics]) -> list[ScoreLine]:
    """What the runs are compared by: form, level, then texts, field by field and whole.

    The rate of under-called levels is unknown for a run without any report: who says nothing, under-calls nothing.
    Raises `DataError` when there are no runs, or when they were not scored on the same rows in the same way.
    """
    _check_comparable(runs)
    return [*_level_lines(list(runs.values())), *_text_lines(list(runs.values()))]


def _level_lines(runs: Sequence[Metrics]) -> Iterator[ScoreLine]:
    levels = [run["risk_level"] for run in runs]
    floor = levels[0]
    yield ScoreLine("reports that parse", None, tuple(run["format"]["valid_rate"] for run in runs))
    yield ScoreLine("accuracy", floor["floor_accuracy"], tuple(one["accuracy"] for one in levels))
    yield ScoreLine("macro-F1", floor["floor_macro_f1"], tuple(one["macro_f1"] for one in levels))
    yield ScoreLine("recall of 严重", None, tuple(one["severe_recall"] for one in levels))
    yield ScoreLine("under-called (less is better)", None, tuple(map(under_call_rate, runs)))


def _text_lines(runs: Sequence[Metrics]) -> Iterator[ScoreLine]:
    for name in sorted(runs[0]["rouge"], key=lambda name: name == "whole"):
        texts = [run["rouge"][name] for run in runs]
        floor = texts[0]["floor"]["rouge-l"]
        yield ScoreLine(f"ROUGE-L {name}, %", floor, tuple(one["rouge-l"] for one in texts), is_percent=True)
    yield ScoreLine("BLEU-4 whole, %", runs[0]["floor_bleu"], tuple(run["bleu"] for run in runs), is_percent=True)


def _check_comparable(runs: Mapping[str, Metrics]) -> None:
    if not runs:
        raise DataError("no runs to compare: give the metrics of at least one")
    (first_name, first), *others = runs.items()
    expected = _basis(first)
    for name, run in others:
        basis = _basis(run)
        for key in dict.fromkeys((*expected, *basis)):
            if basis.get(key) != expected.get(key):
                raise DataError(
                    f"{first_name} and {name} were not scored on the same rows in the same way: {key} is "
                    f"{expected.get(key)!r} there and {basis.get(key)!r} here; score both on one data set"
                )


def _basis(run: Metrics) -> dict[str, object]:
    """What is the same for every model that is scored on the same rows in the same way."""
    levels = run["risk_level"]
    floors = {
        "floor_accuracy": levels["floor_accuracy"],
        "floor_macro_f1": levels["floor_macro_f1"],
        "floor_bleu": run["floor_bleu"],
        **{f"floor of ROUGE-L {name}": scores["floor"]["rouge-l"] for name, scores in run["rouge"].items()},
    }
    return {
        "num_samples": run["num_samples"],
        "num_unparsed_references": run["num_unparsed_references"],
        "floor_level": levels["floor_level"],
        # the last bits of a float are another machine's right
        **{name: round(value, FLOOR_DIGITS) for name, value in floors.items()},
        **{f"signature of {name}": text for name, text in run["signature"].items()},
    }
