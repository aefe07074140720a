"""What evaluations during training give: the loss, and with `predict_with_generate` scores of the reports."""

from __future__ import annotations

from riskva.recipe.faults import did_you_mean
from riskva.report import DEFAULT_FORMAT

EVAL_PREFIX = "eval_"
"""What transformers puts before a metric's name; in `metric_for_best_model` it may be left out."""

REPORT_SCORES = ("risk_level_macro_f1", "risk_level_accuracy", "risk_level_severe_recall", "format_valid_rate")
"""Shares from 0 to 1; the third is there only where an answered row is 严重."""

ROUGE_PREFIX = "rouge-l_"
"""Before the label of a text field: that field's ROUGE-L, in percent."""


def is_report_score(metric: str) -> bool:
    """Whether a metric of that name, with or without `eval_`, is a score of generated reports."""
    name = metric.removeprefix(EVAL_PREFIX)
    return name in REPORT_SCORES or (name.startswith(ROUGE_PREFIX) and name != ROUGE_PREFIX)


def known_metrics_hint(metric: str) -> str:
    """The names that a metric may have, and the nearest one to `metric`."""
    known = ("loss", *REPORT_SCORES, *(f"{ROUGE_PREFIX}{label}" for label in DEFAULT_FORMAT.text_labels))
    listed = ", ".join(EVAL_PREFIX + name for name in ("loss", *REPORT_SCORES, f"{ROUGE_PREFIX}{{field}}"))
    return f"{listed}{did_you_mean(metric.removeprefix(EVAL_PREFIX), known)}"
