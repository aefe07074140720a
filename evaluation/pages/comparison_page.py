"""`comparison.html`: several runs on the same rows, their scores and their answers side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluation.compared import Comparison, Rival
from evaluation.evaluated import Evaluation
from evaluation.pages.environment import render
from evaluation.pages.photo_files import Photos, photo_sources
from evaluation.pages.rows import Values, row_sets, row_values, rows_to_show, vocabulary
from evaluation.pages.score_views import change, main_names, shown_interval
from evaluation.pages.words import MARKS
from evaluation.sample_scores import Mark
from evaluation.score_names import ScoreName, score_names
from riskva.files import write_whole

FILE_NAME, PHOTO_FOLDER = "comparison.html", "comparison_photos"


def write_comparison(
    comparison: Comparison, photos: Photos, folder: Path, *, title: str, most_rows: int = 2000
) -> Path:
    """Write the page into `folder` and return its path; see `write_report` for photos and `most_rows`."""
    runs = list(comparison.runs.values())
    numbers = rows_to_show(runs, most_rows)
    with photo_sources(numbers, photos, folder / PHOTO_FOLDER) as sources:
        rows = [row_values(number, runs, sources[number]) for number in numbers]
        page = render(
            "comparison.html.jinja", _data(comparison, rows, numbers), **_context(comparison, title, len(rows))
        )
    path = folder / FILE_NAME
    with write_whole(path) as stream:
        stream.write(page)
    return path


def _data(comparison: Comparison, rows: list[Values], numbers: tuple[int, ...]) -> Mapping[str, Any]:
    first = next(iter(comparison.runs.values()))
    sets = {f"{what}-{place}": found for place, one in _filters(comparison) for what, found in one.items()}
    return {
        **vocabulary(first.scoring.report_format),
        "runs": list(comparison.runs),
        "rows": rows,
        "sets": row_sets(sets, numbers),
    }


def _filters(comparison: Comparison) -> Iterator[tuple[int, Mapping[str, tuple[int, ...]]]]:
    """For each rival, by its place among the runs: the rows by who is right or better."""
    first, *others = comparison.runs.values()
    for place, (run, rival) in enumerate(zip(others, comparison.rivals, strict=True), start=1):
        both = [(_is_right(first, row), _is_right(run, row)) for row in range(len(first.samples))]
        yield (
            place,
            {
                "wins": rival.wins,
                "losses": rival.losses,
                "both-wrong": tuple(row for row, right in enumerate(both) if right == (False, False)),
                "both-right": tuple(row for row, right in enumerate(both) if right == (True, True)),
            },
        )


def _is_right(run: Evaluation, row: int) -> bool:
    expected = run.samples[row].expected
    return expected is not None and run.samples[row].answered_level == expected.level


def _context(comparison: Comparison, title: str, num_shown: int) -> Mapping[str, Any]:
    first = next(iter(comparison.runs.values()))
    main = main_names(first)
    others = [one for one in score_names(first.scoring.report_format.text_labels) if one not in set(main)]
    return {
        "title": title,
        "comparison": comparison,
        "first_name": next(iter(comparison.runs)),
        "evaluation": first,
        "num_shown": num_shown,
        "rivals": [
            {"place": place, "rival": rival, "sets": sets, "p": _p_value(rival)}
            for rival, (place, sets) in zip(comparison.rivals, _filters(comparison), strict=True)
        ],
        "lines": [_line(comparison, score) for score in main],
        "other_lines": [_line(comparison, score) for score in others],
        "mark_counts": [{"value": mark.value, "name": MARKS[mark], "count": None} for mark in _marks(comparison)],
        "has_confidence": any(
            row.level_probability is not None or row.level_probabilities
            for run in comparison.runs.values()
            for row in run.predictions
        ),
    }


def _p_value(rival: Rival) -> str:
    return "p < 0.001" if rival.p_value < 0.001 else f"p = {rival.p_value:.3f}"


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
                "interval": shown_interval(score, run.intervals.get(score.name)),
                "change": difference,
            }
            for run, difference in zip(runs, changes, strict=True)
        ],
    }


def _marks(comparison: Comparison) -> list[Mark]:
    found = {mark for run in comparison.runs.values() for sample in run.samples for mark in sample.marks}
    return [mark for mark in Mark if mark in found]
