"""A report beside the row's own truth: is the level right, is a text the same, how much of it overlaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from evaluation.text_overlap import overlap
from riskva.report import ReportFormat, RiskReport, Unparsed, normalise_text

ROUGE = "rouge-l"

Values = dict[str, Any]


def report_values(report: RiskReport, report_format: ReportFormat) -> dict[str, str]:
    """The report's texts and the word of its level, by label and in the format's order."""
    return {
        one.label: report.level.label if one.is_level else report.texts.get(one.label, "")
        for one in report_format.fields
    }


def compared(answered: RiskReport | None, label: str, report_format: ReportFormat) -> Values:
    """The truth that `label` holds and where `answered` agrees with it, as a record has them.

    `truth` is by label, None with a `truth_reason` where the label is no report; there is nothing to agree with then,
    and `agreement` is None. Otherwise it has `level` with `right`, `truth` and `answer`, and for every text whether it
    is the `same` but for white space and its ROUGE-L by jieba's words in percent. An answer that is no report is wrong
    and scores 0.
    """
    truth = report_format.parse(label)
    if isinstance(truth, Unparsed):
        return {"truth": None, "truth_reason": why_no_truth(truth), "agreement": None}
    return {
        "truth": report_values(truth, report_format),
        "truth_reason": None,
        "agreement": _agreement(answered, truth, report_format),
    }


def why_no_truth(label: Unparsed) -> str:
    """Why a row's label is nothing to compare with, in words for a person."""
    return label.reason if label.text.strip() else "the row has no answer of its own"


def _agreement(answered: RiskReport | None, truth: RiskReport, report_format: ReportFormat) -> Values:
    level = answered.level if answered else None
    texts = answered.texts if answered else {}
    return {
        "level": {
            "right": level == truth.level,
            "truth": truth.level.label,
            "answer": None if level is None else level.label,
        },
        "texts": {
            label: _compared_text(texts.get(label, ""), truth.texts[label]) for label in report_format.text_labels
        },
    }


def _compared_text(answered: str, truth: str) -> Values:
    score = overlap(answered, truth).rouge_l
    return {"same": normalise_text(answered) == normalise_text(truth), ROUGE: round(score, 2)}


@dataclass
class AgreementCount:
    """How often records agree with their truth, counted while they go by."""

    num_rows: int = 0
    num_truths: int = 0
    num_right: int = 0
    num_same: Counter[str] = field(default_factory=Counter)
    rouge_sums: dict[str, float] = field(default_factory=dict)

    def add(self, record: Mapping[str, Any]) -> None:
        """Count a record that holds what `compared` found."""
        self.num_rows += 1
        agreement = record["agreement"]
        if agreement is None:
            return
        self.num_truths += 1
        self.num_right += agreement["level"]["right"]
        for label, one in agreement["texts"].items():
            self.num_same[label] += one["same"]
            self.rouge_sums[label] = self.rouge_sums.get(label, 0.0) + one[ROUGE]

    def lines(self) -> list[str]:
        """The counts in a few lines for a terminal."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        if num_without := self.num_rows - self.num_truths:
            yield f"{num_without} of {self.num_rows} rows have no report of their own to compare with"
        if not self.num_truths:
            return
        yield f"level right in {self.num_right} of {self.num_truths} ({self.num_right / self.num_truths:.1%})"
        for label, total in self.rouge_sums.items():
            yield f"{label}: the same in {self.num_same[label]}, mean ROUGE-L {total / self.num_truths:.1f}"
        yield "what these numbers are worth (floors, intervals, mistakes by cost): stage: eval"
