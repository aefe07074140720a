"""From predictions to `metrics.json`: every number beside its floor."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from tempfile import TemporaryDirectory
from typing import Any, TypedDict

import evaluate

from evaluation.field_scores import FieldScores, FormatValidity, read_answer
from evaluation.levels import LevelScores
from evaluation.predictions import Prediction
from evaluation.report_fields.report_fields import ReportFields
from evaluation.risk_level.risk_level import RiskLevelMetric
from evaluation.rouge_zh.rouge_zh import RougeZh
from evaluation.text_overlap import RougeBesideFloor, most_frequent, signature
from riskva.errors import DataError
from riskva.report import ReportFormat, RiskReport, Unparsed

WHOLE = "whole"
NUM_LISTED = 5


class Metrics(TypedDict):
    """`metrics.json`, ready for `json.dump`: shares are 0 to 1, `rouge` and `bleu` are in percent.

    `num_failed` rows could not be predicted and are scored as empty answers. `num_unparsed_references` rows count for
    whole texts and the answers' form, and not for levels and fields. `rouge` has `whole` and one entry a text field.
    """

    num_samples: int
    num_failed: int
    num_unparsed_references: int
    risk_level: LevelScores
    format: FormatValidity
    rouge: dict[str, RougeBesideFloor]
    bleu: float
    floor_bleu: float
    signature: dict[str, str]


def score(predictions: Sequence[Prediction], report_format: ReportFormat) -> Metrics:
    """All scores of `predictions`; neither the order of rows nor the time of day changes them.

    Raises `DataError` when there are no rows, or when no row's label is a report of this format.
    """
    if not predictions:
        raise DataError("no predictions to score: the file or data set is empty")
    answers = [row.answer for row in predictions]
    labels = [row.label for row in predictions]
    expected = [report_format.parse(label) for label in labels]
    _check_references(predictions, expected)
    fields: FieldScores = _compute(ReportFields, answers, labels, report_format=report_format)
    return Metrics(
        num_samples=len(predictions),
        num_failed=sum(row.error is not None for row in predictions),
        num_unparsed_references=fields["num_unparsed_references"],
        risk_level=_score_levels(answers, expected, report_format),
        format=fields["format"],
        rouge={WHOLE: fields["whole"], **fields["fields"]},
        bleu=_compute(RougeZh, answers, labels)["bleu-4"],
        floor_bleu=_compute(RougeZh, [most_frequent(labels)] * len(labels), labels)["bleu-4"],
        signature={**signature(), "macro_f1": f"scikit-learn {version('scikit-learn')}, three levels, zero_division 0"},
    )


def _check_references(predictions: Sequence[Prediction], expected: Sequence[RiskReport | Unparsed]) -> None:
    unparsed = [
        f"id {row.id}: {parsed.reason}"
        for row, parsed in zip(predictions, expected, strict=True)
        if isinstance(parsed, Unparsed)
    ]
    if len(unparsed) == len(predictions):
        listed = "\n  ".join(unparsed[:NUM_LISTED])
        raise DataError(
            f"none of the {len(predictions)} labels is a report of the expected format; "
            f"set answer_fields to the fields that the data was made with:\n  {listed}"
        )


def _score_levels(
    answers: Sequence[str], expected: Sequence[RiskReport | Unparsed], report_format: ReportFormat
) -> LevelScores:
    pairs = [
        (read_answer(answer, report_format), report)
        for answer, report in zip(answers, expected, strict=True)
        if isinstance(report, RiskReport)
    ]
    levels = [int(answer.level) if isinstance(answer, RiskReport) else None for answer, _ in pairs]
    scores: LevelScores = _compute(RiskLevelMetric, levels, [int(report.level) for _, report in pairs])
    return scores


def _compute(
    metric: type[evaluate.Metric], predictions: Sequence[Any], references: Sequence[Any], **options: Any
) -> Any:
    # a folder of its own: the shared cache may be read-only, or in use by another run
    with TemporaryDirectory() as folder:
        module = metric(cache_dir=folder, keep_in_memory=True)
        return module.compute(predictions=predictions, references=references, **options)
