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


def append(path: Path, name: str, evaluation: Evaluation) -> Entry:
    """Add a line to the board at `path`, which is made if need be; other runs may do so at the same time."""
    time = datetime.now(UTC).isoformat(timespec="seconds")
    entry = Entry(time, name, evaluation.scores, evaluation.intervals, evaluation.signature)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")), path.open("a+", encoding="utf-8") as stream:
        stream.seek(0)
        # A line that was cut off, by a full disk or a kill, must not take this one with it
        is_torn = bool(written := stream.read()) and not written.endswith("\n")
        stream.write(("\n" if is_torn else "") + json.dumps(vars(entry), ensure_ascii=False) + "\n")
    return entry


def read_board(path: Path) -> list[Entry]:
    """The lines of a board in order. Raises `DataError` naming the first line that is none."""
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}:{number}: no line of a leaderboard ({error}); remove it") from error
    return entries


def render_board(entries: Sequence[Entry], newest: Entry) -> str:
    """The runs that compare with `newest`, the best level macro-F1 first; it is marked, and the others are counted."""
    like = [one for one in entries if comparable(one.signature) == comparable(newest.signature)]
    ranked = sorted(like, key=lambda one: -(one.scores.get(_SHOWN[0].name) or 0.0))[:MOST_SHOWN]
    rows = [("", "run", *(name.en for name in _SHOWN), "scored")]
    for place, one in enumerate(ranked, start=1):
        cells = (name.shown(one.scores.get(name.name)) for name in _SHOWN)
        is_newest = (one.name, one.time) == (newest.name, newest.time)
        rows.append((str(place), one.name + (" ←" if is_newest else ""), *cells, one.time))
    others = len(entries) - len(like)
    left_out = [f"{others} other run(s) on the board answer other rows or are scored otherwise"] if others else []
    return "\n".join([*aligned(rows), *left_out])
