"""A comparison in a terminal, and as one JSON object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from evaluation.compared import Comparison, Difference, Rival
from evaluation.evaluated import Evaluation
from evaluation.score_names import UNKNOWN, ScoreName, main_names
from evaluation.table import SHOWN_PARTS, aligned

MOST_LISTED = 5

ABOUT_THE_ROWS = ("too_few_rows", "labels_no_reports", "kinds_unknown")
"""Findings that hold for every run on these rows."""


def render_comparison(comparison: Comparison) -> str:
    """The scores side by side with what each rival has over the first run, as lines without a last line break."""
    first_name, first = next(iter(comparison.runs.items()))
    names = main_names(first.scoring.report_format.text_labels)
    header = [f"{len(first.samples)} rows", "constant", *comparison.runs]
    header += [f"{rival.name} − {first_name}" for rival in comparison.rivals]
    rows = [header, *(_row(name, comparison) for name in names)]
    lines = [*aligned(rows), _LEGEND, ""]
    for rival in comparison.rivals:
        lines += _in_words(first_name, first, rival)
    lines += [f"{one.severity}: {one.en}" for one in first.findings if one.code in ABOUT_THE_ROWS]
    return "\n".join([*lines, *(f"{what}: {first.signature[what]}" for what in SHOWN_PARTS)])


_LEGEND = "in brackets the 95 % interval of the difference, from a paired bootstrap; * it leaves 0 out"


def _row(name: ScoreName, comparison: Comparison) -> list[str]:
    first = next(iter(comparison.runs.values()))
    return [
        name.en + (" (less is better)" if name.lower_is_better else ""),
        name.shown(first.baselines[0].scores[name.name]),
        *(name.shown(run.scores[name.name]) for run in comparison.runs.values()),
        *(_shown(rival.differences[name.name], name) for rival in comparison.rivals),
    ]


def _shown(difference: Difference | None, name: ScoreName) -> str:
    if difference is None:
        return UNKNOWN
    value = name.signed(difference.value)
    if difference.interval is None:
        return value
    low, high = difference.interval
    mark = "*" if low > 0 or high < 0 else " "
    return f"{value} [{name.signed_interval(difference.interval)}]{mark}"


def _in_words(first_name: str, first: Evaluation, rival: Rival) -> Iterator[str]:
    yield (
        f"{rival.name} against {first_name}: level right in {first_name} alone {rival.num_only_first} times, in "
        f"{rival.name} alone {rival.num_only_this} times; McNemar, exact, p = {rival.p_value:.2g}"
    )
    if first.num_groups is not None:
        yield "  (rows of one group resemble each other, which p does not know of: go by the intervals)"
    for what, rows in (("better", rival.wins), ("worse", rival.losses)):
        ids = [first.predictions[row].id for row in rows[:MOST_LISTED]]
        more = f", … ({len(rows)} in all)" if len(rows) > MOST_LISTED else ""
        yield f"  {what} on {len(rows)} rows" + (f": {', '.join(ids)}{more}" if ids else "")
    yield ""


def comparison_to_json(comparison: Comparison) -> dict[str, Any]:
    """`comparison.json`: scores by run, and of each rival its differences, McNemar's numbers and the rows by id."""
    first = next(iter(comparison.runs.values()))
    ids = [row.id for row in first.predictions]
    rivals = {
        rival.name: {
            **asdict(rival),
            "wins": [ids[row] for row in rival.wins],
            "losses": [ids[row] for row in rival.losses],
        }
        for rival in comparison.rivals
    }
    return {
        "first": next(iter(comparison.runs)),
        "num_samples": len(ids),
        "scores": {name: run.scores for name, run in comparison.runs.items()},
        "intervals": {name: run.intervals for name, run in comparison.runs.items()},
        "rivals": rivals,
        "signature": first.signature,
    }
