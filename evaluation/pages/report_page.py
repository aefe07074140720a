"""`report.html`: one run, its scores beside their floors, and every answer beside its photo."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.evaluated import Evaluation
from evaluation.levels import UNPARSED
from evaluation.pages.common import common_context
from evaluation.pages.environment import render
from evaluation.pages.photo_files import Photos, photo_sources
from evaluation.pages.rows import Values, row_sets, row_values, rows_to_show, vocabulary
from evaluation.pages.score_views import main_groups, other_scores, risk_coverage_points
from evaluation.pages.words import MARKS, SEVERITY_NAMES, verdict
from evaluation.sample_scores import Mark, SampleScore
from evaluation.verdict import SEVERITIES
from riskva.files import write_whole
from riskva.report import LEVEL_LABELS

FILE_NAME, PHOTO_FOLDER = "report.html", "report_photos"


def write_report(evaluation: Evaluation, photos: Photos, folder: Path, *, title: str, most_rows: int = 2000) -> Path:
    """Write the page into `folder` and return its path; `title` names the run.

    Photos stand in the page, or where they are many beside it in `report_photos`. Of more than `most_rows` rows
    those without marks are left out first, and the page says how many.
    """
    numbers = rows_to_show([evaluation], most_rows)
    with photo_sources(numbers, photos, folder / PHOTO_FOLDER) as sources:
        rows = [row_values(number, [evaluation], sources[number]) for number in numbers]
        page = render("report.html.jinja", _data(evaluation, rows, numbers), **_context(evaluation, title, len(rows)))
    path = folder / FILE_NAME
    with write_whole(path) as stream:
        stream.write(page)
    return path


def _data(evaluation: Evaluation, rows: list[Values], numbers: tuple[int, ...]) -> Mapping[str, Any]:
    sets = {f"finding-{place}": finding.rows for place, finding in enumerate(evaluation.findings)}
    return {
        **vocabulary(evaluation.scoring.report_format),
        "runs": [],
        "rows": rows,
        "sets": row_sets(sets, numbers),
    }


def _context(evaluation: Evaluation, title: str, num_shown: int) -> Mapping[str, Any]:
    severity = min((finding.severity for finding in evaluation.findings), key=SEVERITIES.index)
    groups = main_groups(evaluation)
    return {
        **common_context({title: evaluation}, title, num_shown),
        "severity": severity,
        "verdict": verdict(severity, sum(map(_is_mistaken, evaluation.samples))),
        "tallies": [
            (kind, name, sum(finding.severity == kind for finding in evaluation.findings))
            for kind, name in SEVERITY_NAMES.items()
        ],
        "severities": SEVERITY_NAMES,
        "groups": groups,
        "num_intervals": sum(score.standing != "unknown" for group in groups for score in group.scores),
        "others": other_scores(evaluation),
        "confusion": _confusion(evaluation),
        "mark_counts": _mark_counts(evaluation),
        "probabilities": _probabilities(evaluation),
    }


def _is_mistaken(sample: SampleScore) -> bool:
    return any(mark is not Mark.NO_REFERENCE for mark in sample.marks)


def _confusion(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The lines of the matrix: each cell with its count, its place and what it means."""
    table = evaluation.levels["confusion"]
    return [
        {
            "label": label,
            "total": sum(table[label].values()),
            "cells": [
                {
                    "place": f"{expected}-{answered}",
                    "answer": answer,
                    "count": table[label][answer],
                    "share": table[label][answer] / (sum(table[label].values()) or 1),
                    "meaning": _meaning(expected, answered),
                }
                for answered, answer in enumerate((*LEVEL_LABELS, UNPARSED))
            ],
        }
        for expected, label in enumerate(LEVEL_LABELS)
    ]


def _meaning(expected: int, answered: int) -> str:
    if answered == len(LEVEL_LABELS):
        return "unread"
    return "right" if expected == answered else "under" if answered < expected else "over"


def _mark_counts(evaluation: Evaluation) -> list[dict[str, Any]]:
    counts = Counter(mark for sample in evaluation.samples for mark in sample.marks)
    named = [{"value": mark.value, "name": MARKS[mark], "count": counts[mark]} for mark in Mark]
    return [one for one in named if one["count"]]


def _probabilities(evaluation: Evaluation) -> Mapping[str, Any] | None:
    scores = evaluation.levels.get("probabilities")
    if scores is None:
        return None
    points, top = risk_coverage_points(scores["risk_coverage"])
    return {"scores": scores, "points": points, "top": top}
