"""Reports and predictions that tests of evaluation are made of."""

from collections.abc import Sequence
from dataclasses import replace

from evaluation.predictions import Prediction
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport

MINOR, MODERATE, SEVERE = RiskLevel

HUNDRED = {"严重": {"轻微": 100, "中等": 4}, "中等": {"轻微": 3, "严重": 1}, "轻微": {"中等": 1, "严重": 2}}
"""Costs of mistaken levels, dearer than the built-in ones where 严重 is called 轻微."""

DEFECTS = (
    ("客厅墙面存在细小裂缝。", "裂缝会影响美观，也会让水汽渗入。", "建议开槽后用柔性腻子填补并重新涂刷。"),
    ("卫生间顶棚存在渗水痕迹。", "渗水会使抹灰层松动，并影响楼下住户。", "建议先查明漏点，修好防水后再恢复饰面。"),
    ("外墙饰面砖脱落。", "高处坠物会伤及行人。", "建议立即围护，敲检后整片铲除重贴。"),
    ("阳台栏杆松动。", "人员倚靠时可能坠落。", "建议立即停用阳台，重新焊接锚固栏杆。"),
    ("厨房墙砖空鼓。", "空鼓的墙砖日后会开裂脱落。", "建议敲下空鼓的墙砖后重贴。"),
    ("卧室墙面霉斑成片。", "霉菌影响住户健康。", "建议铲除霉斑，做防霉处理并加强通风。"),
)


def report(number: int, level: RiskLevel) -> RiskReport:
    """The report on defect `number`, with that level."""
    defect, risk, advice = DEFECTS[number % len(DEFECTS)]
    return RiskReport(level, {"风险描述": risk, "纠正和预防建议": advice, "缺陷描述": defect})


def right_rows(levels: Sequence[RiskLevel], groups: Sequence[str] | None = None) -> list[Prediction]:
    """A row for each level, answered to the letter."""
    texts = [DEFAULT_FORMAT.render(report(number, level)) for number, level in enumerate(levels)]
    return [
        Prediction(f"p{number:03d}", "问", text, text, group=groups[number] if groups else None)
        for number, text in enumerate(texts)
    ]


def answering(row: Prediction, report: RiskReport) -> Prediction:
    """The row with that report as its answer."""
    return replace(row, predict=DEFAULT_FORMAT.render(report))


def expected(row: Prediction) -> RiskReport:
    """The row's label as a report."""
    parsed = DEFAULT_FORMAT.parse(row.label)
    assert isinstance(parsed, RiskReport)
    return parsed
