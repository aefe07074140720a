"""What the scores mean, in words for whoever must decide: may this model be used, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from evaluation.levels import LevelScores
from evaluation.predictions import Prediction
from evaluation.sample_scores import Mark, SampleScore
from evaluation.score_names import BaselineKind, Flat, Interval
from riskva.report import RiskLevel

Severity = Literal["error", "warning", "info", "good"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "good", "info")
"""In the order in which they are told: what is wrong, then what is right, then what else there is to know."""

FEW_ROWS = 10
"""Rows of a level (groups, where there are any) below which its recall says next to nothing."""

ALIKE_SHARE = 0.9
"""Share of rows with one and the same answer from which a model is said to answer without looking."""

MISLEADING_ROUGE = 80.0
"""Mean ROUGE-L of the fields, in percent, that looks good beside a level that is wrong."""

REWORDED_ROUGE = 50.0
"""ROUGE-L of the defect's field, in percent, that looks bad although level and kind are right."""

COPIED_ROUGE = 90.0
"""Mean ROUGE-L by field, in percent, of the nearest training reports from which test texts count as known."""

NAMED_SHARE = 0.5
"""Share of references below which a vocabulary that names no more of their kinds does not fit the data."""

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
    """What findings are drawn from.

    `baselines` are scores by kind of baseline, `leads` 95 % intervals of the run's scores less theirs.
    `cheapest_level` is the level that costs least if always answered, by the training rows.
    """

    predictions: Sequence[Prediction]
    samples: Sequence[SampleScore]
    defect_label: str | None
    text_labels: Sequence[str]
    levels: LevelScores
    scores: Flat
    baselines: Mapping[BaselineKind, Flat]
    leads: Mapping[BaselineKind, Mapping[str, Interval | None]]
    cheapest_level: RiskLevel
    has_training: bool

    def rows(self, applies: Callable[[SampleScore], bool]) -> tuple[int, ...]:
        """The rows to which that applies, the costliest first."""
        found = (row for row, one in enumerate(self.samples) if applies(one))
        return tuple(sorted(found, key=lambda row: (-(self.samples[row].cost or 0), row)))


def findings(evidence: Evidence) -> tuple[Finding, ...]:
    """What is to be known of a run, the gravest first; exactly one of them sets its levels against the constant's."""
    found = [
        _against_constant(evidence),
        *_against_grey_photos(evidence),
        *_alike(evidence),
        *_failed(evidence),
        *_unparsed(evidence),
        *_severe(evidence),
        *_denied(evidence),
        *_misleading(evidence),
        *_costly(evidence),
        *_too_few(evidence),
        *_without_reference(evidence),
        *_unnamed(evidence),
        *_reworded(evidence),
        *_copied(evidence),
        *_what_is_unknown(evidence),
    ]
    return tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity)))


def _against_constant(evidence: Evidence) -> Finding:
    score, floor = _known(evidence.scores[LEVEL]), _known(evidence.baselines["constant"][LEVEL])
    lead = evidence.leads["constant"].get(LEVEL)
    numbers = f"macro-F1 {score:.3f}", f"{floor:.3f}"
    if score <= floor:
        return Finding(
            "no_better_than_constant",
            "error",
            f"等级判断不比固定答案好：{numbers[0]}，对每张照片都给同一份报告也有 {numbers[1]}。",
            f"The level is judged no better than by one constant answer: {numbers[0]}, the constant has {numbers[1]}.",
        )
    # Without an interval no resample changes the lead: it is the same in every group
    if lead is not None and lead[0] <= 0:
        return Finding(
            "not_surely_better",
            "error",
            f"还不能说等级判断比固定答案好：{numbers[0]}，固定答案 {numbers[1]}，差距可能只是偶然。",
            f"Not surely better than one constant answer: {numbers[0]} against {numbers[1]} may be chance.",
        )
    span = f"（差距的 95% 区间 {lead[0]:.3f}–{lead[1]:.3f}）" if lead else ""
    span_en = f" (95 % interval of the lead {lead[0]:.3f} to {lead[1]:.3f})" if lead else ""
    return Finding(
        "better_than_constant",
        "good",
        f"等级判断好于固定答案：{numbers[0]}，固定答案 {numbers[1]}{span}。",
        f"The level is judged better than by one constant answer: {numbers[0]} against {numbers[1]}{span_en}.",
    )


def _known(score: float | None) -> float:
    """Macro-F1 is there whenever one label is a report, and without any nothing is scored."""
    assert score is not None
    return score


def _against_grey_photos(evidence: Evidence) -> Iterator[Finding]:
    if "blanked" not in evidence.baselines or not evidence.scores["format.valid_rate"]:
        return
    score, grey = _known(evidence.scores[LEVEL]), _known(evidence.baselines["blanked"][LEVEL])
    lead = evidence.leads["blanked"].get(LEVEL)
    if score <= grey or (lead is not None and lead[0] <= 0):
        yield Finding(
            "sees_nothing",
            "error",
            f"把照片换成灰图，macro-F1 为 {grey:.3f}，原图 {score:.3f}：不能说模型看了照片。",
            f"On grey photos macro-F1 is {grey:.3f}, with the photos {score:.3f}: the model cannot be said to look.",
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


def _failed(evidence: Evidence) -> Iterator[Finding]:
    rows = tuple(row for row, one in enumerate(evidence.predictions) if one.error is not None)
    if rows:
        total = len(evidence.samples)
        yield Finding(
            "failed_rows",
            "warning",
            f"{total} 行中有 {len(rows)} 行无法预测（如照片读不了），按判错计。",
            f"{len(rows)} of {total} rows could not be predicted (an unreadable photo, say); they count as wrong.",
            rows,
        )


def _unparsed(evidence: Evidence) -> Iterator[Finding]:
    failed = {row for row, one in enumerate(evidence.predictions) if one.error is not None}
    rows = tuple(row for row in evidence.rows(lambda one: Mark.UNPARSED in one.marks) if row not in failed)
    total = len(evidence.samples) - len(failed)
    num_cut = sum(evidence.predictions[row].is_cut_off for row in rows)
    cut_zh = f"其中 {num_cut} 个写到 max_new_tokens 被截断：请调大，或检查模型是否循环。" if num_cut else ""
    cut_en = f" {num_cut} of them hit max_new_tokens: raise it, unless they loop." if num_cut else ""
    if rows:
        yield Finding(
            "unparsed",
            "error" if len(rows) > 0.1 * total else "warning",
            f"{total} 个答案中有 {len(rows)} 个读不出报告，按判错计。{cut_zh}",
            f"{len(rows)} of {total} answers are no reports; they count as wrong.{cut_en}",
            rows,
        )


def _severe(evidence: Evidence) -> Iterator[Finding]:
    severe = evidence.rows(lambda one: one.expected is not None and one.expected.level == RiskLevel.SEVERE)
    missed = tuple(row for row in severe if not evidence.samples[row].is_level_right)
    if missed:
        yield Finding(
            "severe_missed",
            "error" if 5 * len(missed) > len(severe) else "warning",
            f"{len(severe)} 处严重缺陷中有 {len(missed)} 处没有判为严重。",
            f"{len(missed)} of {len(severe)} severe defects were not called severe.",
            missed,
        )


def _denied(evidence: Evidence) -> Iterator[Finding]:
    if rows := evidence.rows(lambda one: Mark.DENIED in one.marks):
        yield Finding(
            "denied",
            "error",
            f"{len(rows)} 个答案否认了照片中确有的缺陷（如“未发现裂缝”）；文字得分看不出这一点。",
            f"{len(rows)} answers deny the very defect that is there (such as 未发现裂缝); text scores do not show it.",
            rows,
        )


def _misleading(evidence: Evidence) -> Iterator[Finding]:
    wrong = {Mark.UNDER_CALLED, Mark.OVER_CALLED}
    rows = evidence.rows(lambda one: bool(wrong & set(one.marks)) and one.text_score >= MISLEADING_ROUGE)
    if rows:
        yield Finding(
            "texts_mislead",
            "warning",
            f"{len(rows)} 个答案的文字几乎与标准一致（各字段 ROUGE-L 平均 ≥ {MISLEADING_ROUGE:.0f}），等级却是错的。",
            f"{len(rows)} answers read almost like the reference (mean ROUGE-L of the fields ≥ {MISLEADING_ROUGE:.0f}) "
            "and have the wrong level.",
            rows,
        )


def _costly(evidence: Evidence) -> Iterator[Finding]:
    kind: BaselineKind = "cheapest" if "cheapest" in evidence.baselines else "constant"
    cost, floor, level = evidence.scores[COST], evidence.baselines[kind][COST], evidence.cheapest_level.label
    lead = evidence.leads[kind].get(COST)
    if not cost or floor is None:  # no mistake that costs anything
        return
    if cost >= floor:
        yield Finding(
            "costlier_than_constant",
            "error",
            f"按误判代价计，模型（{cost:.3f}）不比一律判为“{level}”（{floor:.3f}）好。",
            f"By what mistakes cost, the model ({cost:.3f}) is no better than always saying {level} ({floor:.3f}).",
        )
    elif lead is not None and lead[1] >= 0:
        yield Finding(
            "not_surely_cheaper",
            "warning",
            f"按误判代价计，还不能说模型（{cost:.3f}）比一律判为“{level}”（{floor:.3f}）好。",
            f"By what mistakes cost, the model ({cost:.3f}) is not surely better than always saying {level} "
            f"({floor:.3f}).",
        )


def _too_few(evidence: Evidence) -> Iterator[Finding]:
    units = {level: set[str]() for level in RiskLevel}
    for one in evidence.samples:
        if one.expected is not None:
            units[one.expected.level].add(f"group {one.group}" if one.group is not None else f"row {one.id}")
    few = {level.label: len(found) for level, found in units.items() if len(found) < FEW_ROWS}
    if few:
        has_groups = any(one.group is not None for one in evidence.samples)
        zh, en = ("组", "groups") if has_groups else ("行", "rows")
        counts_zh = "、".join(f"{label} {count} {zh}" for label, count in few.items())
        counts = ", ".join(f"{label} {count}" for label, count in few.items())
        yield Finding(
            "too_few_rows",
            "warning",
            f"样本太少，无法衡量：{counts_zh}。每个等级至少要有 {FEW_ROWS} {zh}，最好有 50 {zh}；否则连区间也偏窄。",
            f"Too few {en} to measure: {counts}. A level needs {FEW_ROWS} {en} at least, better 50; with fewer even "
            "the intervals are too narrow.",
        )


def _without_reference(evidence: Evidence) -> Iterator[Finding]:
    if rows := evidence.rows(lambda one: one.expected is None):
        total = len(evidence.samples)
        yield Finding(
            "labels_no_reports",
            "warning",
            f"{total} 行中有 {len(rows)} 行的标准答案不是报告：等级和各字段的分数只来自其余各行。",
            f"{len(rows)} of {total} labels are no reports: levels and fields are scored on the other rows alone.",
            rows,
        )


def _unnamed(evidence: Evidence) -> Iterator[Finding]:
    known = [one for one in evidence.samples if one.expected is not None]
    num_named = sum(one.kind is not None for one in known)
    if num_named < NAMED_SHARE * len(known):
        yield Finding(
            "kinds_unknown",
            "warning",
            f"词表只认出 {len(known)} 份标准答案中 {num_named} 份的缺陷类型：类型对不对、是否否认缺陷，只对这些行判断。"
            "请用 kinds 补充词语。",
            f"The vocabulary finds a kind of defect in {num_named} of {len(known)} references: whether it is named "
            "rightly, or denied, is judged in these alone. Give your words with kinds.",
        )


def _reworded(evidence: Evidence) -> Iterator[Finding]:
    rows = evidence.rows(
        lambda one: not one.marks and _names_kind(one) and _defect_score(evidence, one) < REWORDED_ROUGE
    )
    if rows:
        yield Finding(
            "reworded",
            "info",
            f"{len(rows)} 个答案措辞与标准不同，但等级和缺陷类型都对：文字得分低估了它们。",
            f"{len(rows)} answers use other words and have level and kind right: text scores rate them too low.",
            rows,
        )


def _names_kind(one: SampleScore) -> bool:
    return one.kind is not None and one.kind.is_right


def _defect_score(evidence: Evidence, one: SampleScore) -> float:
    return one.overlaps["jieba"][evidence.defect_label].rouge_l if evidence.defect_label is not None else 100.0


def _copied(evidence: Evidence) -> Iterator[Finding]:
    if "nearest" not in evidence.baselines:
        return
    scores = [evidence.baselines["nearest"][f"rouge.{label}.rouge-l"] for label in evidence.text_labels]
    copied = fmean(_known(one) for one in scores) if scores else 0.0
    if copied >= COPIED_ROUGE:
        yield Finding(
            "texts_stand_in_training",
            "info",
            f"测试报告几乎原样出现在训练集中（最近训练文本的 ROUGE-L 平均 {copied:.1f}）：文字得分高只说明记住了句子。",
            "The test reports stand in the training rows almost word for word (the nearest one has a mean ROUGE-L of "
            f"{copied:.1f} by field): high text scores show that sentences were remembered.",
        )


def _what_is_unknown(evidence: Evidence) -> Iterator[Finding]:
    if not evidence.has_training:
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
