"""What the scores mean, in words for whoever must decide: may this model be used, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from evaluation.levels import LevelScores
from evaluation.predictions import Prediction
from evaluation.sample_scores import WHOLE, Mark, SampleScore
from evaluation.score_names import Flat
from riskva.report import RiskLevel

Severity = Literal["error", "warning", "info", "good"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "good", "info")
"""In the order in which they are told: what is wrong, then what is right, then what else there is to know."""

FEW_ROWS = 10
"""Rows of a level below which its recall says next to nothing: one row is worth over ten points."""

ALIKE_SHARE = 0.9
"""Share of rows with one and the same answer from which a model is said to answer without looking."""

MISLEADING_ROUGE = 80.0
"""ROUGE-L of the whole text, in percent, that looks good beside a level that is wrong."""

REWORDED_ROUGE = 50.0
"""ROUGE-L of the defect's field, in percent, that looks bad although level and kind are right."""

COPIED_ROUGE = 95.0
"""ROUGE-L of the whole text, in percent, of the nearest training reports from which test texts count as known."""

LEVEL = "risk_level.macro_f1"
COST = "risk_level.expected_cost"


@dataclass(frozen=True)
class Finding:
    """One thing to know about the answers; `code` is its name for programs, `zh` and `en` say it in a sentence or two.

    `rows` are the numbers of the rows that show it, the worst first; none where it is about all of them.
    """

    code: str
    severity: Severity
    zh: str
    en: str
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What findings are drawn from; `leads` are intervals of the run's scores less the constant answer's.

    `blanked` are the model's scores on grey photos, None where that was not tried; `nearest` those of the nearest
    training reports, None without training rows.
    """

    predictions: Sequence[Prediction]
    samples: Sequence[SampleScore]
    defect_label: str | None
    levels: LevelScores
    scores: Flat
    intervals: Mapping[str, tuple[float, float] | None]
    constant: Flat
    leads: Mapping[str, tuple[float, float] | None]
    blanked: Flat | None
    nearest: Flat | None

    def rows(self, mark: Mark) -> tuple[int, ...]:
        """The rows with that mark, the costliest first."""
        return self.worst_first(index for index, one in enumerate(self.samples) if mark in one.marks)

    def worst_first(self, rows: Iterator[int]) -> tuple[int, ...]:
        """These rows by what they cost, the costliest first."""
        return tuple(sorted(rows, key=lambda index: (-(self.samples[index].cost or 0), index)))


def findings(evidence: Evidence) -> tuple[Finding, ...]:
    """What is to be known of a run, the gravest first; exactly one of them compares it with the constant answer."""
    found = [
        _against_constant(evidence),
        *_sees_nothing(evidence),
        *_alike(evidence),
        *_unparsed(evidence),
        *_severe(evidence),
        *_denied(evidence),
        *_misleading(evidence),
        *_costly(evidence),
        *_too_few(evidence),
        *_reworded(evidence),
        *_copied(evidence),
        *_what_is_unknown(evidence),
    ]
    return tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity)))


def _against_constant(evidence: Evidence) -> Finding:
    score, floor, lead = evidence.scores[LEVEL], evidence.constant[LEVEL], evidence.leads.get(LEVEL)
    numbers = f"macro-F1 {score:.3f}", f"{floor:.3f}"
    if score is not None and floor is not None and score <= floor:
        return Finding(
            "no_better_than_constant",
            "error",
            f"等级判断不比固定答案好：{numbers[0]}，对每张照片都给同一份报告也有 {numbers[1]}。",
            f"The level is judged no better than by one constant answer: {numbers[0]}, the constant has {numbers[1]}.",
        )
    if lead is None or lead[0] <= 0:
        return Finding(
            "not_surely_better",
            "error",
            f"还不能说等级判断比固定答案好：{numbers[0]}，固定答案 {numbers[1]}，差距可能只是偶然。",
            f"Not surely better than one constant answer: {numbers[0]} against {numbers[1]} may be chance.",
        )
    return Finding(
        "better_than_constant",
        "good",
        f"等级判断好于固定答案：{numbers[0]}，固定答案 {numbers[1]}（差距的 95% 区间 {lead[0]:.3f}–{lead[1]:.3f}）。",
        f"The level is judged better than by one constant answer: {numbers[0]} against {numbers[1]} "
        f"(95 % interval of the lead {lead[0]:.3f} to {lead[1]:.3f}).",
    )


def _sees_nothing(evidence: Evidence) -> Iterator[Finding]:
    score, interval = evidence.scores[LEVEL], evidence.intervals.get(LEVEL)
    blank = evidence.blanked[LEVEL] if evidence.blanked else None
    if score is not None and blank is not None and blank >= (interval[0] if interval else score):
        yield Finding(
            "sees_nothing",
            "error",
            f"把照片换成灰图后，macro-F1 仍有 {blank:.3f}（原图 {score:.3f}）：模型几乎没有看照片。",
            f"On grey photos macro-F1 is still {blank:.3f} (with the photos {score:.3f}): the model hardly looks.",
        )


def _alike(evidence: Evidence) -> Iterator[Finding]:
    answers = Counter(" ".join(row.answer.split()) for row in evidence.predictions)
    (answer, count), total = answers.most_common(1)[0], len(evidence.predictions)
    if count >= max(2, ALIKE_SHARE * total) and answer and len({row.label for row in evidence.predictions}) > 1:
        yield Finding(
            "answers_alike",
            "error",
            f"{total} 张照片中有 {count} 张得到完全相同的答案：模型没有根据照片作答。",
            f"{count} of {total} photos get the very same answer: the model does not answer by the photo.",
        )


def _unparsed(evidence: Evidence) -> Iterator[Finding]:
    rows, total = evidence.rows(Mark.UNPARSED), len(evidence.samples)
    if rows:
        yield Finding(
            "unparsed",
            "error" if len(rows) > 0.1 * total else "warning",
            f"{total} 个答案中有 {len(rows)} 个读不出报告，按判错计。",
            f"{len(rows)} of {total} answers are no reports; they count as wrong.",
            rows,
        )


def _severe(evidence: Evidence) -> Iterator[Finding]:
    severe = [
        index
        for index, one in enumerate(evidence.samples)
        if one.expected is not None and one.expected.level == RiskLevel.SEVERE
    ]
    missed = evidence.worst_first(
        index for index in severe if evidence.samples[index].answered_level != RiskLevel.SEVERE
    )
    if missed:
        yield Finding(
            "severe_missed",
            "error" if 5 * len(missed) > len(severe) else "warning",
            f"{len(severe)} 处严重缺陷中有 {len(missed)} 处没有判为严重。",
            f"{len(missed)} of {len(severe)} severe defects were not called severe.",
            missed,
        )


def _denied(evidence: Evidence) -> Iterator[Finding]:
    if rows := evidence.rows(Mark.DENIED):
        yield Finding(
            "denied",
            "error",
            f"{len(rows)} 个答案否认了照片中确有的缺陷（如“未发现裂缝”）；文字得分看不出这一点。",
            f"{len(rows)} answers deny the very defect that is there (such as 未发现裂缝); text scores do not show it.",
            rows,
        )


def _misleading(evidence: Evidence) -> Iterator[Finding]:
    rows = evidence.worst_first(
        index
        for index, one in enumerate(evidence.samples)
        if {Mark.UNDER_CALLED, Mark.OVER_CALLED} & set(one.marks)
        and one.overlaps["jieba"][WHOLE].rouge_l >= MISLEADING_ROUGE
    )
    if rows:
        yield Finding(
            "texts_mislead",
            "warning",
            f"{len(rows)} 个答案的文字几乎与标准一致（全文 ROUGE-L ≥ {MISLEADING_ROUGE:.0f}），等级却是错的。",
            f"{len(rows)} answers read almost like the reference (ROUGE-L of the whole ≥ {MISLEADING_ROUGE:.0f}) "
            "and have the wrong level.",
            rows,
        )


def _costly(evidence: Evidence) -> Iterator[Finding]:
    cost, floor, level = (
        evidence.scores[COST],
        evidence.levels["floor_expected_cost"],
        evidence.levels["floor_cost_level"],
    )
    if cost is not None and cost >= floor:
        yield Finding(
            "costlier_than_constant",
            "error",
            f"按误判代价计，模型（{cost:.3f}）不如一律判为“{level}”（{floor:.3f}）。",
            f"By what mistakes cost, the model ({cost:.3f}) is no better than always saying {level} ({floor:.3f}).",
        )


def _too_few(evidence: Evidence) -> Iterator[Finding]:
    few = {label: one["support"] for label, one in evidence.levels["per_level"].items() if one["support"] < FEW_ROWS}
    if few:
        counts_zh = "、".join(f"{label} {count} 行" for label, count in few.items())
        counts = ", ".join(f"{label} {count}" for label, count in few.items())
        yield Finding(
            "too_few_rows",
            "warning",
            f"样本太少，无法衡量：{counts_zh}。每个等级至少要有 {FEW_ROWS} 行，最好有 50 行；否则连区间也偏窄。",
            f"Too few rows to measure: {counts}. A level needs {FEW_ROWS} rows at least, better 50; with fewer even "
            "the intervals are too narrow.",
        )


def _reworded(evidence: Evidence) -> Iterator[Finding]:
    label = evidence.defect_label
    rows = tuple(
        index
        for index, one in enumerate(evidence.samples)
        if label is not None
        and one.expected is not None
        and not one.marks
        and one.overlaps["jieba"][label].rouge_l < REWORDED_ROUGE
    )
    if rows:
        yield Finding(
            "reworded",
            "info",
            f"{len(rows)} 个答案措辞与标准不同，但等级、类型和部位都对：文字得分低估了它们。",
            f"{len(rows)} answers use other words and have level, kind and room right: text scores rate them too low.",
            rows,
        )


def _copied(evidence: Evidence) -> Iterator[Finding]:
    copied = evidence.nearest[f"rouge.{WHOLE}.rouge-l"] if evidence.nearest else None
    if copied is not None and copied >= COPIED_ROUGE:
        yield Finding(
            "texts_stand_in_training",
            "info",
            f"测试报告几乎原样出现在训练集中（最近的训练文本 ROUGE-L {copied:.1f}）：文字得分高只说明记住了句子。",
            f"The test reports stand in the training rows almost word for word (the nearest has ROUGE-L {copied:.1f}): "
            "high text scores show that sentences were remembered.",
        )


def _what_is_unknown(evidence: Evidence) -> Iterator[Finding]:
    if evidence.nearest is None:
        yield Finding(
            "floors_from_test",
            "info",
            "没有给出训练集（train_dataset），基线取自被评分的数据本身，略微偏高；最近训练文本一项无法计算。",
            "No training rows were given (train_dataset): the constant answer is taken from the scored rows, "
            "which favours it a little, and the nearest training report is unknown.",
        )
    if all(one.group is None for one in evidence.samples):
        yield Finding(
            "rows_taken_as_independent",
            "info",
            "数据没有分组信息：区间假定各行相互独立；若同一户有多张照片，真实的不确定性更大。",
            "The rows have no groups: intervals take them to be independent. With several photos of a flat, the true "
            "uncertainty is larger.",
        )
