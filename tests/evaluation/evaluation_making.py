"""Scored runs, made by hand for the tests of the pages; `python tests/evaluation/evaluation_making.py OUT` shows some.

With `--rows 2000` the pages are as long as they get, with `--photos FOLDER` the JPEGs of that folder are shown.
"""

from __future__ import annotations

import argparse
import io
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from evaluation.compared import Comparison, Difference, Rival
from evaluation.evaluated import Baseline, Evaluation
from evaluation.levels import level_scores
from evaluation.naming import Named
from evaluation.predictions import Prediction
from evaluation.sample_scores import WHOLE, Mark, SampleScore, Scoring
from evaluation.score_names import ScoreName, score_names
from evaluation.text_overlap import SEGMENTATIONS, Overlap
from evaluation.verdict import Finding
from riskva.report import Reading, RiskLevel, RiskReport

SCORING = Scoring()
KINDS = ("裂缝", "渗水", "霉斑", "空鼓", "积水")
ROOMS = ("卧室", "卫生间", "厨房", "阳台", "楼梯间")
EXTENTS = ("细小", "明显", "贯穿性")
DANGERS = ("不影响结构，影响美观。", "会继续扩大并影响正常使用。", "危及结构安全，可能伤人。")
REMEDIES = (
    "表面修补后重新涂刷。",
    "凿除松动部分，修补后做防水并观察三个月。",
    "立即停用并围护，请有资质的单位检测和加固。",
)

OVERLAP_OF_RIGHT, OVERLAP_OF_WRONG = 96.0, 41.5
NO_INTERVAL = "risk_level.quadratic_kappa"
"""The score whose differences have no interval."""


def report(level: int, kind: str, room: str) -> RiskReport:
    """A report of a defect that is worth this level."""
    texts = {
        "风险描述": f"{room}{kind}{DANGERS[level]}",
        "纠正和预防建议": REMEDIES[level],
        "缺陷描述": f"{room}墙面存在{EXTENTS[level]}{kind}。",
    }
    return RiskReport(RiskLevel(level), texts)


def read(answered: RiskReport) -> Reading:
    """What is read of an answer in form."""
    return Reading(answered, texts=answered.texts)


def sample(
    row_id: str,
    expected: RiskReport | None,
    reading: Reading,
    *,
    group: str | None = None,
    kind: Named | None = None,
    overlap: float | None = None,
) -> SampleScore:
    """A scored row; its overlaps are made up."""
    answered = reading.report.level if reading.report else None
    rouge = overlap if overlap is not None else OVERLAP_OF_RIGHT if reading.report == expected else OVERLAP_OF_WRONG
    scores = Overlap(rouge, rouge / 2, rouge)
    names = (*(expected.texts if expected else ()), WHOLE)
    return SampleScore(
        id=row_id,
        group=group,
        expected=expected,
        reading=reading,
        cost=SCORING.costs.of(expected.level, answered) if expected else None,
        overlaps={one: dict.fromkeys(names, scores) for one in SEGMENTATIONS},
        bleu=rouge / 2,
        kind=kind,
        room=None,
    )


def prediction(row_id: str, expected: RiskReport | None, raw: str, *, group: str | None = None) -> Prediction:
    """The row that goes with `sample`."""
    label = SCORING.report_format.render(expected) if expected else "这不是报告"
    return Prediction(row_id, "请检查", raw, label, image=f"images/{row_id}.jpg", group=group)


def drawn_row(number: int, dice: random.Random, skill: float) -> tuple[Prediction, SampleScore]:
    """A row that is mostly right; what is wrong with others comes from `dice`. Some have no reference."""
    truth = random.Random(number)
    level, kind, room = truth.choices((0, 1, 2), (6, 3, 2))[0], truth.choice(KINDS), truth.choice(ROOMS)
    expected, row_id, group = report(level, kind, room), f"photo_{number:05d}", f"{number % 7 + 1}-1-{number % 3 + 1}02"
    is_right = dice.random() < skill
    told_level = level if is_right else dice.randrange(3)
    told_kind = kind if is_right or dice.random() < 0.6 else dice.choice(KINDS)
    answered = report(told_level, told_kind, room)
    raw, reading = SCORING.report_format.render(answered), read(answered)
    if not is_right and dice.random() < 0.15:
        raw = (
            "我无法判断这张照片的风险等级，建议现场复核。"
            if dice.random() < 0.5
            else f"**缺陷描述**: {'裂缝，' * 3000}"
        )
        texts = {"缺陷描述": "裂缝，" * 3000} if raw.startswith("**") else {}
        reading = Reading(None, "missing or empty: 风险等级", texts, missing=("风险等级", "风险描述", "纠正和预防建议"))
    elif dice.random() < 0.1:
        reading = replace(reading, tolerated=("full-width colon", "text around"))
    right_share = 0.4 + 0.55 * dice.random()
    rest = [(1 - right_share) * share for share in (0.7, 0.3)]
    beliefs = [*rest[:told_level], right_share, *rest[told_level:]]
    row = prediction(row_id, expected, raw, group=group)
    row = replace(row, level_probabilities=tuple(beliefs), level_probability=right_share)
    if not is_right and dice.random() < 0.04:
        row, reading = replace(row, predict="", error="CUDA out of memory"), Reading(None, "the text is empty")
    has_reference = number % 29 != 28
    if not has_reference:
        row = replace(row, label="这不是报告")
    return row, sample(
        row_id,
        expected if has_reference else None,
        reading,
        group=group,
        kind=Named(kind, told_kind, is_denied=False) if has_reference else None,
        overlap=OVERLAP_OF_RIGHT if is_right else 30 + 60 * dice.random(),
    )


def drawn_evaluation(num_rows: int, *, seed: int = 0, skill: float = 0.7) -> Evaluation:
    """A run over rows that are the same for every seed."""
    dice = random.Random(seed)
    predictions, samples = zip(*(drawn_row(number, dice, skill) for number in range(num_rows)), strict=True)
    return evaluation(predictions, samples)


def evaluation(predictions: Sequence[Prediction], samples: Sequence[SampleScore]) -> Evaluation:
    """The run of these rows: the levels are counted, the other scores made up."""
    with_level = [(row, one) for row, one in zip(predictions, samples, strict=True) if one.expected]
    levels = level_scores(
        [None if one.answered_level is None else int(one.answered_level) for _, one in with_level],
        [int(one.expected.level) for _, one in with_level if one.expected],
        probabilities=[row.level_probabilities for row, _ in with_level]
        if all(row.level_probabilities for row, _ in with_level)
        else None,
    )
    names = score_names(SCORING.report_format.text_labels)
    scores = {name.name: levels.get(name.name.partition(".")[2], _made_up(name)) for name in names}
    return Evaluation(
        scoring=SCORING,
        predictions=predictions,
        samples=samples,
        levels=levels,
        scores=scores,
        intervals={
            name.name: None if (value := scores[name.name]) is None else (max(value * 0.86, -1), value * 1.08)
            for name in names
        },
        baselines=(
            Baseline("constant", "固定答案", "one constant answer", _floor(names, 0.31)),
            Baseline("cheapest", "代价最低的固定答案", "cheapest constant answer", _floor(names, 0.22)),
            Baseline("nearest", "最近训练文本", "nearest training report", _floor(names, 0.62)),
            Baseline("blanked", "灰色照片", "grey photos", _floor(names, 0.36)),
        ),
        num_groups=len({one.group for one in samples}),
        signature={
            "version": "1",
            "segmenter": "jieba 0.42.1",
            "bootstrap": "1000 resamples of groups, seed 0",
            "rows": "sha256:2f1c…",
        },
        findings=_findings(samples),
    )


def _made_up(name: ScoreName) -> float:
    return 55.5 if name.unit == "percent" else 0.83


def _floor(names: Sequence[ScoreName], share: float) -> dict[str, float | None]:
    tops = {"percent": 100.0, "cost": 3.0, "levels": 1.5}
    return {
        name.name: None
        if name.name.startswith("room")
        else 1.0
        if name.name.startswith("format")
        else share * tops.get(name.unit, 1.0)
        for name in names
    }


def _findings(samples: Sequence[SampleScore]) -> tuple[Finding, ...]:
    severe = tuple(
        row
        for row, one in enumerate(samples)
        if Mark.UNDER_CALLED in one.marks and one.expected and one.expected.level == RiskLevel.SEVERE
    )
    unparsed = tuple(row for row, one in enumerate(samples) if Mark.UNPARSED in one.marks)
    return (
        Finding(
            "severe_missed",
            "error",
            f"{len(severe)} 个严重缺陷被判为较低等级，这是最危险的错误：隐患会被放过。",
            f"{len(severe)} severe defects were called less; this is the mistake that leaves a danger alone.",
            severe,
        ),
        Finding(
            "unparsed",
            "warning",
            f"{len(unparsed)} 个回答读不出等级。",
            f"No level can be read from {len(unparsed)} answers.",
            unparsed,
        ),
        Finding(
            "few_rows",
            "info",
            "严重只有少量样本，召回率的区间很宽。",
            "There are few rows of 严重; read its recall with its interval.",
        ),
        Finding(
            "better_than_constant",
            "good",
            "等级判断明显好于固定答案：macro-F1 0.712，固定答案 0.241。",
            "The level is judged better than by one constant answer: 0.712 against 0.241.",
        ),
    )


def drawn_comparison(
    num_rows: int, names: Sequence[str] = ("基础模型 Qwen2.5-VL-7B", "LoRA r16", "LoRA r64")
) -> Comparison:
    """Runs of growing skill over the same rows."""
    runs = {name: drawn_evaluation(num_rows, seed=place, skill=0.5 + 0.18 * place) for place, name in enumerate(names)}
    first = runs[names[0]]
    return Comparison(runs, tuple(rival(name, first, runs[name]) for name in names[1:]))


def rival(name: str, first: Evaluation, run: Evaluation) -> Rival:
    """`run` against `first`; wins and losses go by cost alone."""
    gains = [(one.cost or 0) - (other.cost or 0) for one, other in zip(first.samples, run.samples, strict=True)]
    differences: dict[str, Difference | None] = {}
    for key, value in run.scores.items():
        before = first.scores[key]
        if value is not None and before is not None:
            gap = value - before
            differences[key] = Difference(gap, None if key == NO_INTERVAL else (gap - 0.06, gap + 0.05))
    rows = sorted(range(len(gains)), key=lambda row: -abs(gains[row]))
    pairs = [(one.is_level_right, other.is_level_right) for one, other in zip(first.samples, run.samples, strict=True)]
    return Rival(
        name,
        differences,
        pairs.count((True, False)),
        pairs.count((False, True)),
        0.002,
        tuple(row for row in rows if gains[row] > 0),
        tuple(row for row in rows if gains[row] < 0),
    )


def small_photo(number: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    """A JPEG of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", size, ((37 * number) % 256, 120, 140)).save(stream, "JPEG")
    return stream.getvalue()


def main() -> None:
    from evaluation.pages.comparison_page import write_comparison
    from evaluation.pages.report_page import write_report

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs; without it they are of one colour")
    asked = parser.parse_args()
    files = sorted(asked.photos.glob("*.jpg")) if asked.photos else []

    def photos(row: int) -> Sequence[bytes]:
        count = 0 if row % 17 == 16 else 2 if row % 11 == 5 else 1
        return [
            files[(row + place) % len(files)].read_bytes() if files else small_photo(row + place)
            for place in range(count)
        ]

    print(write_report(drawn_evaluation(asked.rows), photos, asked.out, title="LoRA r16 · 测试集 2026-11"))
    print(write_comparison(drawn_comparison(asked.rows), photos, asked.out, title="三个模型 · 测试集 2026-11"))


if __name__ == "__main__":
    main()
