"""The few scores of generated reports that are worth watching while a model trains, flat and by short names."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.levels import level_scores
from evaluation.text_overlap import rouge
from riskva.report import RiskReport


def scores_while_training(
    answers: Sequence[RiskReport | None], references: Sequence[RiskReport], text_labels: Sequence[str]
) -> dict[str, float]:
    """Scores of `answers`, None being one that cannot be read: its level is wrong and its texts score 0.

    `risk_level_macro_f1`, `risk_level_accuracy`, `risk_level_severe_recall` (only with a 严重 reference) and
    `format_valid_rate` are 0 to 1; `rouge-l_{label}`, one for each text field, is in percent. Raises `DataError` when
    the lists are empty or differ in length.
    """
    levels = level_scores([one.level if one else None for one in answers], [one.level for one in references])
    scores = {
        "risk_level_macro_f1": levels["macro_f1"],
        "risk_level_accuracy": levels["accuracy"],
        "risk_level_severe_recall": levels["severe_recall"],
        "format_valid_rate": sum(one is not None for one in answers) / len(answers),
    }
    for label in text_labels:
        texts = [one.texts[label] if one else "" for one in answers]
        scores[f"rouge-l_{label}"] = rouge(texts, [one.texts[label] for one in references])["rouge-l"]
    return {name: value for name, value in scores.items() if value is not None}
