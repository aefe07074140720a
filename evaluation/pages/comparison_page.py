"""`comparison.html`: several runs on the same rows, their scores and their answers side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.compared import Comparison, Rival
from evaluation.comparison import NOTABLE_ROUGE
from evaluation.comparison_table import ABOUT_THE_ROWS
from evaluation.evaluated import Evaluation
from evaluation.pages.common import common_context
from evaluation.pages.environment import render
from evaluation.pages.photo_files import Photos, photo_sources
from evaluation.pages.rows import row_sets, row_values, rows_to_show, vocabulary
from evaluation.pages.score_views import change, other_names
from evaluation.pages.words import MARKS, Name
from evaluation.sample_scores import Mark
from evaluation.score_names import LEVEL_NAMES, Interval, ScoreName, main_names
from riskva.files import write_whole

FILE_NAME, PHOTO_FOLDER = "comparison.html", "comparison_photos"

_CHANCE = 0.05
"""Below this p, a difference is said to be hardly chance; it goes with the 95 % of the intervals."""

_ACCURACY = next(one for one in LEVEL_NAMES if one.name == "risk_level.accuracy")

Filters = Mapping[str, Sequence[int]]
"""Rows by who is right or better: `wins`, `losses`, `both-wrong` and `both-right`."""


def write_comparison(
    comparison: Comparison, photos: Photos, folder: Path, *, title: str, most_rows: int = 2000
) -> Path:
    """Write the page into `folder` and return its path; see `write_report` for photos and `most_rows`."""
    runs = list(comparison.runs.values())
    numbers = rows_to_show(runs, most_rows)
    # rivals are the runs after the first
    filters = [_filters(runs[0], run, rival) for run, rival in zip(runs[1:], comparison.rivals, strict=True)]
    with photo_sources(numbers, photos, folder / PHOTO_FOLDER) as sources:
        data = {
            **vocabulary(runs[0].scoring.report_format),
            "runs": list(comparison.runs),
            "rows": [row_values(number, runs, sources[number]) for number in numbers],
            "sets": row_sets(_by_place(filters), numbers),
        }
        page = render(
            "comparison.html.jinja",
            data,
            **common_context(comparison.runs, title, len(numbers)),
            **_context(comparison, filters),
        )
    path = folder / FILE_NAME
    with write_whole(path) as stream:
        stream.write(page)
    return path


def _filters(first: Evaluation, run: Evaluation, rival: Rival) -> Filters:
    both = [
        (row, one.is_level_right, other.is_level_right)
        for row, (one, other) in enumerate(zip(first.samples, run.samples, strict=True))
        # without a reference nobody is wrong
        if one.expected is not None
    ]
    return {
        "wins": rival.wins,
        "losses": rival.losses,
        "both-wrong": [row for row, ours, theirs in both if not ours and not theirs],
        "both-right": [row for row, ours, theirs in both if ours and theirs],
    }


def _by_place(filters: Sequence[Filters]) -> Filters:
    """All rivals' filters by the names that the page has for them; the first rival's end in 1."""
    return {f"{what}-{place}": rows for place, one in enumerate(filters, start=1) for what, rows in one.items()}


def _context(comparison: Comparison, filters: Sequence[Filters]) -> Mapping[str, Any]:
    first_name, first = next(iter(comparison.runs.items()))
    return {
        "about_the_rows": [one for one in first.findings if one.code in ABOUT_THE_ROWS],
        "comparison": comparison,
        "first_name": first_name,
        "rivals": [
            {"rival": rival, "sets": sets, "mcnemar": _mcnemar_in_words(rival, first.num_groups is not None)}
            for rival, sets in zip(comparison.rivals, filters, strict=True)
        ],
        "notable": f"{NOTABLE_ROUGE:.0f}",
        "lines": [_line(comparison, score) for score in main_names(first.scoring.report_format.text_labels)],
        "other_lines": [_line(comparison, score) for score in other_names(first)],
        "num_intervals": sum(_num_intervals(rival) for rival in comparison.rivals),
        "mark_counts": [{"value": mark.value, "name": MARKS[mark], "count": None} for mark in _marks(comparison)],
    }


def _num_intervals(rival: Rival) -> int:
    return sum(one is not None and one.interval is not None for one in rival.differences.values())


def _mcnemar_in_words(rival: Rival, has_groups: bool) -> Name:
    """McNemar's p and what to think of it; it takes rows to be independent, so with groups the interval decides."""
    p = "p < 0.001" if rival.p_value < 0.001 else f"p = {rival.p_value:.3f}"
    if not has_groups:
        verdict = _verdict(rival.p_value < _CHANCE)
        return Name(f"McNemar {p}，{verdict.zh}。", f"McNemar's {p}: {verdict.en}.")
    caveat = Name(
        f"McNemar {p}；同组的行彼此相似，p 未计入这一点，请看区间：",
        f"McNemar's {p}; rows of one group resemble each other, which p does not know of, so go by the intervals: ",
    )
    difference = rival.differences["risk_level.accuracy"]
    if difference is None or difference.interval is None:
        return Name(f"{caveat.zh}准确率之差的区间无法得出。", f"{caveat.en}that of the accuracy cannot be told.")
    value, interval = _ACCURACY.signed(difference.value), _ACCURACY.signed_interval(difference.interval)
    verdict = _verdict(_leaves_out_zero(difference.interval))
    return Name(
        f"{caveat.zh}准确率之差 {value}（{interval}），{verdict.zh}。",
        f"{caveat.en}accuracy differs by {value} ({interval}), {verdict.en}.",
    )


def _verdict(is_clear: bool) -> Name:
    return Name("差别不像偶然", "hardly chance") if is_clear else Name("可能只是偶然", "may be chance")


def _leaves_out_zero(interval: Interval) -> bool:
    return interval[0] > 0 or interval[1] < 0


def _line(comparison: Comparison, score: ScoreName) -> Mapping[str, Any]:
    """One score of every run, with what it is for the constant answer."""
    runs = comparison.runs.values()
    changes = [None, *(change(score, rival.differences.get(score.name)) for rival in comparison.rivals)]
    return {
        "score": score,
        "floor": score.shown(next(iter(runs)).baselines[0].scores.get(score.name)),
        "cells": [
            {
                "shown": score.shown(run.scores.get(score.name)),
                "interval": run.intervals.get(score.name),
                "change": difference,
            }
            for run, difference in zip(runs, changes, strict=True)
        ],
    }


def _marks(comparison: Comparison) -> list[Mark]:
    found = {mark for run in comparison.runs.values() for sample in run.samples for mark in sample.marks}
    return [mark for mark in Mark if mark in found]
