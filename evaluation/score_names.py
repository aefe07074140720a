"""The scores by name: what each is called, in which unit it is, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Unit = Literal["share", "percent", "kappa", "levels", "cost"]

BaselineKind = Literal["constant", "cheapest", "nearest", "blanked"]
"""What a score is set against; see `evaluation.evaluated.Baseline`."""

UNKNOWN = "–"
"""What is shown for a score that cannot be told."""

Interval = tuple[float, float]
"""The ends of a 95 % interval, the lower one first."""

Flat = Mapping[str, float | None]
"""Scores by flat name, such as `risk_level.macro_f1`; None where a score cannot be told."""


@dataclass(frozen=True)
class ScoreName:
    """`zh` and `en` are what a person reads. `share` is 0 to 1, `percent` 0 to 100, `levels` a distance in levels."""

    name: str
    zh: str
    en: str
    unit: Unit = "share"
    lower_is_better: bool = False

    def shown(self, value: float | None) -> str:
        """`value` with as many digits as its unit deserves, `UNKNOWN` for None."""
        if value is None:
            return UNKNOWN
        return f"{value:.1f}" if self.unit == "percent" else f"{value:.3f}"

    def signed(self, value: float) -> str:
        """A difference, with its sign."""
        return ("−" if value < 0 else "+") + self.shown(abs(value))

    def shown_interval(self, interval: Interval | None) -> str:
        """`0.410 … 0.620`, `UNKNOWN` for None."""
        return UNKNOWN if interval is None else f"{self.shown(interval[0])} … {self.shown(interval[1])}"

    def signed_interval(self, interval: Interval | None) -> str:
        """The interval of a difference, with signs."""
        return UNKNOWN if interval is None else f"{self.signed(interval[0])} … {self.signed(interval[1])}"


LEVEL_NAMES = (
    ScoreName("risk_level.macro_f1", "等级 macro-F1", "level macro-F1"),
    ScoreName("risk_level.accuracy", "等级准确率", "level accuracy"),
    ScoreName("risk_level.severe_recall", "严重召回率", "recall of 严重"),
    ScoreName("risk_level.under_call_rate", "低估率", "under-called", lower_is_better=True),
    ScoreName("risk_level.over_call_rate", "高估率", "over-called", lower_is_better=True),
    ScoreName("risk_level.expected_cost", "期望代价", "expected cost", "cost", lower_is_better=True),
    ScoreName("risk_level.quadratic_kappa", "二次加权 kappa", "quadratic kappa", "kappa"),
    ScoreName("risk_level.mean_absolute_error", "平均等级误差", "mean error in levels", "levels", lower_is_better=True),
)
FORM_NAMES = (
    ScoreName("format.valid_rate", "可解析率", "reports that parse"),
    ScoreName("format.exact_rate", "格式完全正确率", "exactly in form"),
)
NAMING_NAMES = (
    ScoreName("kind.accuracy", "缺陷类型正确率", "kind named rightly"),
    ScoreName("room.accuracy", "部位正确率", "room named rightly"),
)


def text_names(text_labels: tuple[str, ...]) -> tuple[ScoreName, ...]:
    """ROUGE-1, -2 and -L of each field and then of the whole, by jieba's words and then by characters; then BLEU."""
    names = []
    for prefix, zh in (("rouge", "词"), ("rouge_characters", "字")):
        for label in (*text_labels, "whole"):
            shown = ("全文", "whole") if label == "whole" else (label, label)
            for kind in ("1", "2", "L"):
                names.append(
                    ScoreName(
                        f"{prefix}.{label}.rouge-{kind.lower()}",
                        f"ROUGE-{kind} {shown[0]}（{zh}）",
                        f"ROUGE-{kind} {shown[1]}" + (" by characters" if prefix == "rouge_characters" else ""),
                        "percent",
                    )
                )
    return (*names, ScoreName("bleu", "BLEU-4 全文（字）", "BLEU-4 whole", "percent"))


def main_text_names(text_labels: tuple[str, ...]) -> tuple[ScoreName, ...]:
    """Of the texts, the scores worth a line: ROUGE-L by jieba's words of each field and the whole, and BLEU."""
    return tuple(
        one
        for one in text_names(text_labels)
        if one.name == "bleu" or (one.name.startswith("rouge.") and one.name.endswith(".rouge-l"))
    )


def main_names(text_labels: tuple[str, ...]) -> tuple[ScoreName, ...]:
    """The scores to decide by."""
    return (*LEVEL_NAMES, *FORM_NAMES, *NAMING_NAMES, *main_text_names(text_labels))


def score_names(text_labels: tuple[str, ...]) -> tuple[ScoreName, ...]:
    """Every score of a report with these text fields, the ones that matter most first."""
    return (*LEVEL_NAMES, *FORM_NAMES, *NAMING_NAMES, *text_names(text_labels))
