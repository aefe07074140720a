"""What the templates of both pages are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.evaluated import Evaluation


def common_context(runs: Mapping[str, Evaluation], title: str, num_shown: int) -> Mapping[str, Any]:
    """What `base.html.jinja` needs of the runs, by name, of which `num_shown` rows are listed.

    `failures` are the numbers of rows that could not be predicted, of the runs that have such.
    """
    first = next(iter(runs.values()))
    failures = {name: sum(row.error is not None for row in run.predictions) for name, run in runs.items()}
    return {
        "title": title,
        "evaluation": first,
        "num_shown": num_shown,
        "failures": {name: count for name, count in failures.items() if count},
        "num_unlabelled": sum(one.expected is None for one in first.samples),
        "has_confidence": any(_has_confidence(run) for run in runs.values()),
    }


def _has_confidence(run: Evaluation) -> bool:
    pairs = zip(run.predictions, run.samples, strict=True)
    return any(row.confidence_in(sample.answered_level) is not None for row, sample in pairs)
