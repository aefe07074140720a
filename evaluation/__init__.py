"""From predictions to scores: reads generated answers, scores them, prints a table; needs no model.

    predictions = read_predictions(Path("generated_predictions.jsonl"))
    print(render_table(score(predictions, report_format)))

Names are loaded when first used, so that importing this package, or `evaluation.levels` alone, loads no heavy library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.levels import level_scores as level_scores
    from evaluation.predictions import Prediction as Prediction
    from evaluation.predictions import read_predictions as read_predictions
    from evaluation.scoring import Metrics as Metrics
    from evaluation.scoring import score as score
    from evaluation.table import render_table as render_table

_HOMES = {
    "Metrics": "evaluation.scoring",
    "Prediction": "evaluation.predictions",
    "level_scores": "evaluation.levels",
    "read_predictions": "evaluation.predictions",
    "render_table": "evaluation.table",
    "score": "evaluation.scoring",
}

__all__ = ["Metrics", "Prediction", "level_scores", "read_predictions", "render_table", "score"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
