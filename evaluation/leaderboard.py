"""`leaderboard.jsonl`: one line a scored run, so that runs of months can be ranked, each against its like only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from evaluation.evaluated import Evaluation
from evaluation.score_names import LEVEL_NAMES
from evaluation.signature import comparable
from evaluation.table import aligned
from riskva.errors import DataError

MOST_SHOWN = 10

_SHOWN = LEVEL_NAMES[:4]


@dataclass(frozen=True)
class Entry:
    """A run on the board: when it was scored (UTC), what answered, and its scores by flat name with their intervals."""

    time: str
    name: str
    scores: Mapping[str, float | None]
    intervals: Mapping[str, Any]
    signature: Mapping[str, str]

    def is_of(self, name: str, evaluation: Evaluation) -> bool:
        """Whether this is the line of that very run: one that was killed after writing it comes a second time."""
        return (self.name, self.scores, self.signature) == (name, dict(evaluation.scores), dict(evaluation.signature))


def check_board(path: Path) -> None:
    """Raise `DataError` unless a line can be added to the board at `path`, and all its lines can be read."""
    if path.is_dir():
        raise DataError(f"leaderboard: {path} is a folder; name a file, such as {path / 'leaderboard.jsonl'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise DataError(f"leaderboard: {path} cannot be written: {error.strerror}") from error
    read_board(path)


def put_on_board(path: Path, name: str, evaluation: Evaluation) -> str:
    """Add the run's line to the board, unless it stands there; the ranking of the runs that compare with it, in lines.

    Other runs may do so at the same time. Raises as `check_board` does.
    """
    time = datetime.now(UTC).isoformat(timespec="seconds")
    with FileLock(path.with_name(f".{path.name}.lock")):
        check_board(path)
        entries = read_board(path)
        entry = next((one for one in entries if one.is_of(name, evaluation)), None)
        if entry is None:
            entry = Entry(time, name, dict(evaluation.scores), _lists(evaluation), dict(evaluation.signature))
            entries.append(entry)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(vars(entry), ensure_ascii=False) + "\n")
    return _ranking(entries, entry)


def _lists(evaluation: Evaluation) -> dict[str, list[float] | None]:
    return {name: span and list(span) for name, span in evaluation.intervals.items()}


def read_board(path: Path) -> list[Entry]:
    """The lines of a board in order. Raises `DataError` naming the first line that is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"leaderboard: {path} is no text; name another file") from error
    return [_entry(path, number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _entry(path: Path, number: int, line: str) -> Entry:
    kinds = {"time": str, "name": str, "scores": dict, "intervals": dict, "signature": dict}
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{number}: no line of a leaderboard ({error}); remove it") from error
    if not isinstance(row, dict) or {key: type(value) for key, value in row.items()} != kinds:
        raise DataError(f"{path}:{number}: no line of a leaderboard (expected {', '.join(kinds)}); remove it")
    if not all(value is None or type(value) in {int, float} for value in row["scores"].values()):
        raise DataError(f"{path}:{number}: no line of a leaderboard (a score is no number); remove it")
    return Entry(**row)


def _ranking(entries: Sequence[Entry], newest: Entry) -> str:
    """The runs that compare with `newest`, the best level macro-F1 first; it is marked, and the others are counted."""
    like = [one for one in entries if comparable(one.signature) == comparable(newest.signature)]
    ranked = sorted(like, key=lambda one: -(one.scores.get(_SHOWN[0].name) or 0.0))[:MOST_SHOWN]
    rows = [("", "run", *(name.en for name in _SHOWN), "scored")]
    for place, one in enumerate(ranked, start=1):
        cells = (name.shown(one.scores.get(name.name)) for name in _SHOWN)
        rows.append((str(place), one.name + (" ←" if one is newest else ""), *cells, one.time))
    others = len(entries) - len(like)
    left_out = [f"{others} other run(s) on the board answer other rows or are scored otherwise"] if others else []
    return "\n".join([*aligned(rows), *left_out])
