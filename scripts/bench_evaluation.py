"""Times the scoring of many reports with floors and intervals, and what one looping answer adds. Prints medians.

    python scripts/bench_evaluation.py --rows 10000 --rounds 3

Reports are put together at random from an inspector's words, so that hardly two are alike; an answer keeps, changes or
loses parts of its reference. Each round is a process of its own: no text is scored before the clock starts.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from dataclasses import replace

from evaluation.predictions import Prediction
from evaluation.sample_scores import Scoring, score_samples
from evaluation.scoring import score
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport
from riskva.vocabulary import KINDS, ROOMS

LOOP = "墙面开裂渗水" * 3_000
"""9,000 words that never come to an end, without a mark that would part them for jieba: the last field of an answer."""

PLACES = ("墙面", "顶棚", "地面", "门窗周边", "阴阳角", "管道根部", "窗台下口", "踢脚线上方")
EXTENTS = ("长约{}厘米", "宽约{}毫米", "面积约{}平方分米", "共{}处", "距地{}厘米")
RISKS = ("影响观感", "会使水汽渗入", "可能进一步发展", "日后会松动脱落", "会伤及行人", "影响结构耐久性", "引起住户投诉")
ADVICE = ("凿除松动部分", "清理基层", "涂刷界面剂", "分层修补", "重新涂刷", "做闭水试验", "立即围护", "定期观察")


def random_report(choose: random.Random) -> RiskReport:
    """A report in an inspector's words."""
    kind = choose.choice([words[0] for words in KINDS.values()])
    room = choose.choice([words[0] for words in ROOMS.values()])
    extent = choose.choice(EXTENTS).format(choose.randint(1, 400))
    return RiskReport(
        choose.choice(list(RiskLevel)),
        {
            "风险描述": f"{kind}{'，'.join(choose.sample(RISKS, 3))}。",
            "纠正和预防建议": f"建议{'，'.join(choose.sample(ADVICE, 4))}，{choose.randint(3, 90)}天内完成。",
            "缺陷描述": f"{room}{choose.choice(PLACES)}存在{kind}，{extent}。",
        },
    )


def rows(number: int, seed: int) -> list[Prediction]:
    """Rows whose answers are right, partly right, or no reports, in four groups of ten rows for each house."""
    choose = random.Random(seed)
    made = []
    for index in range(number):
        expected, other = random_report(choose), random_report(choose)
        texts = {label: (expected if choose.random() < 0.5 else other).texts[label] for label in expected.texts}
        level = expected.level if choose.random() < 0.7 else other.level
        answer = DEFAULT_FORMAT.render(RiskReport(level, texts)) if choose.random() < 0.98 else texts["缺陷描述"]
        label = DEFAULT_FORMAT.render(expected)
        made.append(Prediction(f"p{index}", "", answer, label, group=f"g{index // 10}"))
    return made


def measure(number: int) -> tuple[float, float]:
    """Seconds to score `number` reports against as many training reports, and then one answer that loops."""
    predictions, training = rows(number, seed=1), [random_report(random.Random(2 + one)) for one in range(number)]
    start = time.perf_counter()
    evaluation = score(predictions, Scoring(), training)
    scored = time.perf_counter()
    assert len(evaluation.samples) == number
    report = random_report(random.Random(3))
    answer = DEFAULT_FORMAT.render(replace(report, texts={**report.texts, "缺陷描述": LOOP}))
    looping = replace(predictions[0], predict=answer)
    list(score_samples([looping], Scoring()))
    return scored - start, time.perf_counter() - scored


def main() -> None:
    """Measure in a new process each time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.once:
        print(*measure(asked.rows))
        return
    seen = []
    for _ in range(asked.rounds):
        command = [sys.executable, __file__, "--rows", str(asked.rows), "--once"]
        printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        seen.append(tuple(map(float, printed.split())))
    for name, times in zip((f"{asked.rows} reports", "one looping answer more"), zip(*seen, strict=True), strict=True):
        print(f"{name:24} {statistics.median(times):7.2f} s  ({min(times):.2f} to {max(times):.2f})")


if __name__ == "__main__":
    main()
