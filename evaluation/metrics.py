"""`metrics.json`: an evaluation as one JSON object, whose nesting spells the flat names of its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypedDict

from evaluation.evaluated import Baseline, Evaluation
from evaluation.field_scores import FormatValidity, NamingScores, format_validity, naming_scores
from evaluation.levels import LevelScores
from evaluation.sample_scores import OVERLAPS, PREFIXES, WHOLE
from evaluation.score_names import Flat


class Metrics(TypedDict):
    """The scores, ready for `json.dump`: shares are 0 to 1, `rouge` and `bleu` are in percent.

    `num_failed` rows could not be predicted and are scored as empty answers. `num_unparsed_references` rows count for
    whole texts and the answers' form, and not for levels and fields. `rouge` (by jieba's words) and `rouge_characters`
    have `whole` and one entry a text field, each with its `floor`: what one constant answer scores. `intervals` (95 %)
    and `baselines` go by flat names: `risk_level.macro_f1` stands in `risk_level` under `macro_f1`. The rows of
    `findings` are ids.
    """

    num_samples: int
    num_groups: int | None
    num_failed: int
    num_unparsed_references: int
    risk_level: LevelScores
    format: FormatValidity
    kind: NamingScores
    room: NamingScores
    rouge: dict[str, dict[str, Any]]
    rouge_characters: dict[str, dict[str, Any]]
    bleu: float | None
    floor_bleu: float | None
    intervals: dict[str, list[float] | None]
    baselines: dict[str, Flat]
    findings: list[dict[str, Any]]
    signature: Mapping[str, str]


def metrics_of(evaluation: Evaluation) -> Metrics:
    """The evaluation as `metrics.json` holds it."""
    samples = evaluation.samples
    constant = evaluation.baselines[0]
    rouge = {prefix: _overlaps(evaluation, constant, prefix) for prefix in PREFIXES.values()}
    return Metrics(
        num_samples=len(samples),
        num_groups=evaluation.num_groups,
        num_failed=sum(row.error is not None for row in evaluation.predictions),
        num_unparsed_references=sum(one.expected is None for one in samples),
        risk_level=evaluation.levels,
        format=format_validity([one.reading for one in samples]),
        kind=naming_scores([one.kind for one in samples]),
        room=naming_scores([one.room for one in samples]),
        rouge=rouge["rouge"],
        rouge_characters=rouge["rouge_characters"],
        bleu=evaluation.scores["bleu"],
        floor_bleu=constant.scores["bleu"],
        intervals={name: span and list(span) for name, span in evaluation.intervals.items()},
        baselines={one.kind: one.scores for one in evaluation.baselines},
        findings=[{**asdict(one), "rows": [samples[row].id for row in one.rows]} for one in evaluation.findings],
        signature=evaluation.signature,
    )


def _overlaps(evaluation: Evaluation, constant: Baseline, prefix: str) -> dict[str, dict[str, Any]]:
    labels = (WHOLE, *evaluation.scoring.report_format.text_labels)
    return {
        label: {**_of_label(evaluation.scores, prefix, label), "floor": _of_label(constant.scores, prefix, label)}
        for label in labels
    }


def _of_label(scores: Flat, prefix: str, label: str) -> dict[str, float | None]:
    return {name: scores[f"{prefix}.{label}.{name}"] for name in OVERLAPS}
