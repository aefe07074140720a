"""From predictions to scores: reads generated answers, scores them, prints a table; needs no model.

    predictions = read_predictions(Path("generated_predictions.jsonl"))
    print(render_table(score(predictions, Scoring())))

Names are loaded when first used, so that importing this package, or `evaluation.levels` alone, loads no heavy library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.comparison import compare as compare
    from evaluation.evaluated import Evaluation as Evaluation
    from evaluation.levels import level_scores as level_scores
    from evaluation.predictions import Prediction as Prediction
    from evaluation.predictions import read_predictions as read_predictions
    from evaluation.sample_scores import Scoring as Scoring
    from evaluation.scoring import score as score
    from evaluation.table import render_table as render_table

_HOMES = {
    "Evaluation": "evaluation.evaluated",
    "Prediction": "evaluation.predictions",
    "Scoring": "evaluation.sample_scores",
    "compare": "evaluation.comparison",
    "level_scores": "evaluation.levels",
    "read_predictions": "evaluation.predictions",
    "render_table": "evaluation.table",
    "score": "evaluation.scoring",
}

__all__ = [
    "Evaluation",
    "Prediction",
    "Scoring",
    "compare",
    "level_scores",
    "read_predictions",
    "render_table",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
