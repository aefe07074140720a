"""The kinds of defects that are drawn, and the written rule that gives a photo its level.

    score = base of the kind + extent (0 small, 1 medium, 2 large) + 1 where the room makes its hazard worse
    0-1 轻微, 2 中等, 3 and above 严重

Water and bare wires are worse in wet rooms; what can fall, or lets people fall, is worse at a height. All three terms
can be seen: the kind and its extent in the mark, the room in its background. A photo without a defect is 轻微.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from drawn_defects import marks
from drawn_defects.canvas import Canvas
from riskva.report import RiskLevel

MINOR, MODERATE, SEVERE = RiskLevel


class Hazard(enum.Enum):
    """What makes a kind dangerous beyond its looks."""

    NONE = enum.auto()
    WATER = enum.auto()
    SHOCK = enum.auto()
    FALL = enum.auto()


WET_ROOMS = frozenset({"厨房", "卫生间"})
HIGH_PLACES = frozenset({"阳台", "外墙", "楼梯间"})
WORSE_IN: Mapping[Hazard, frozenset[str]] = {
    Hazard.NONE: frozenset(),
    Hazard.WATER: WET_ROOMS,
    Hazard.SHOCK: WET_ROOMS,
    Hazard.FALL: HIGH_PLACES,
}

Finding = tuple[str, str]
"""What a report says: the risk, and the advice."""


@dataclass(frozen=True)
class Kind:
    """A kind of defect: how it is called, how serious it is as such, where it occurs, how it looks.

    `base` is its share of the score. `where` is the part of the room, `sizes` words the three extents. `findings` has a
    text for every level that the rule can give.
    """

    name: str
    base: int
    hazard: Hazard
    rooms: tuple[str, ...]
    where: str
    sizes: tuple[str, str, str]
    draw: Callable[[Canvas, int], None]
    findings: Mapping[RiskLevel, Finding]

    def level(self, extent: int, room: str) -> RiskLevel:
        """The level by the rule at the head of this module."""
        score = self.base + extent + (room in WORSE_IN[self.hazard])
        return MINOR if score <= 1 else MODERATE if score == 2 else SEVERE

    def description(self, extent: int, room: str) -> str:
        """The report's 缺陷描述."""
        return f"{room}{self.where}存在{self.sizes[extent]}{self.name}。"


KINDS = (
    Kind(
        "裂缝", 1, Hazard.NONE, ("客厅", "外墙"), "墙面", ("细微", "较长", "贯通分叉的"),
        marks.crack, {
            MINOR: ("细裂缝影响观感，不影响结构", "用腻子修补后涂刷面漆"),
            MODERATE: ("裂缝可能继续扩展，影响使用", "沿裂缝开槽，嵌填弹性材料并贴网格布"),
            SEVERE: ("裂缝贯通，可能影响结构安全", "委托专业单位检测，制定方案后加固"),
        },
    ),
    Kind(
        "空鼓", 0, Hazard.FALL, ("客厅", "外墙"), "抹灰层", ("小块", "一片", "大面积"),
        marks.hollow, {
            MINOR: ("抹灰层粘结不牢，暂不影响使用", "做好标记，定期复查"),
            MODERATE: ("空鼓范围较大，抹灰层可能脱落", "切割剔除空鼓部位，重新分层抹灰"),
            SEVERE: ("大面积空鼓，坠落物可能伤人", "设置警戒区，全部剔除后返工"),
        },
    ),
    Kind(
        "透底", 0, Hazard.NONE, ("卧室", "楼梯间"), "墙面", ("一条", "数条", "满墙"),
        marks.see_through, {
            MINOR: ("涂料遮盖不足，影响观感", "局部补刷面漆一遍"),
            MODERATE: ("满墙透底，面层耐久性下降", "打磨后整面重新涂刷两遍面漆"),
        },
    ),
    Kind(
        "起皮", 0, Hazard.NONE, ("客厅", "卧室"), "墙面", ("零星", "多处", "成片"),
        marks.peeling, {
            MINOR: ("涂层起皮，影响观感", "铲除起皮部位，重新批刮腻子"),
            MODERATE: ("涂层成片起皮，基层可能受潮", "查明潮湿原因，铲除全部涂层后重做"),
        },
    ),
    Kind(
        "霉斑", 0, Hazard.WATER, ("卫生间", "卧室"), "墙面", ("少量", "较多", "密集"),
        marks.mould, {
            MINOR: ("霉斑影响观感和卫生", "清除霉斑，涂刷防霉涂料"),
            MODERATE: ("持续发霉，影响居住环境", "改善通风，铲除面层后做防霉处理"),
            SEVERE: ("霉菌密集，危害居住者健康", "停止使用，铲除受损面层并重做防潮层"),
        },
    ),
    Kind(
        "渗水", 1, Hazard.WATER, ("卫生间", "卧室"), "顶棚", ("小片", "大片", "整片"),
        marks.damp, {
            MINOR: ("轻度渗水，留下水渍", "查明水源，干燥后修补面层"),
            MODERATE: ("渗水损坏装修面层，可能继续扩大", "重做渗水部位防水层并做闭水试验"),
            SEVERE: ("严重渗漏，影响结构耐久和用电安全", "立即断电停用，全面重做防水层"),
        },
    ),
    Kind(
        "泛碱", 0, Hazard.NONE, ("外墙", "阳台"), "墙面", ("轻度", "中度", "重度"),
        marks.efflorescence, {
            MINOR: ("盐析影响观感", "清刷盐霜，涂刷抗碱底漆"),
            MODERATE: ("重度泛碱，面层粉化", "铲除粉化面层，做抗碱封闭后重新施工"),
        },
    ),
    Kind(
        "缺角", 0, Hazard.NONE, ("厨房", "卫生间"), "瓷砖", ("微小", "明显", "大块"),
        marks.missing_corner, {
            MINOR: ("瓷砖破损，影响观感", "用同色填缝剂修补"),
            MODERATE: ("破损边缘锋利，可能划伤人", "更换破损瓷砖"),
        },
    ),
    Kind(
        "积水", 1, Hazard.WATER, ("卫生间", "屋面"), "地面", ("局部", "成片", "大范围"),
        marks.puddle, {
            MINOR: ("局部积水，使用不便", "清扫积水，疏通地漏"),
            MODERATE: ("排水不畅，长期积水会渗漏", "调整地面坡度，更换地漏"),
            SEVERE: ("大量积水，会渗漏到下层并使人滑倒", "拆除面层，重新找坡并做防水"),
        },
    ),
    Kind(
        "露筋锈蚀", 2, Hazard.NONE, ("阳台", "外墙"), "混凝土", ("单根", "两根", "多根"),
        marks.exposed_bars, {
            MODERATE: ("钢筋锈蚀，影响构件耐久性", "除锈后用修补砂浆恢复保护层"),
            SEVERE: ("钢筋锈蚀严重，构件承载力下降", "停止使用，检测承载力并加固"),
        },
    ),
    Kind(
        "打胶缺失", 0, Hazard.WATER, ("厨房", "阳台"), "接缝处", ("短段", "半段", "通长"),
        marks.missing_seal, {
            MINOR: ("密封不严，容易积灰", "清理缝隙后补打密封胶"),
            MODERATE: ("接缝进水，可能渗入墙体", "铲除旧胶，重新打防霉密封胶"),
            SEVERE: ("接缝完全敞开，水会渗漏到下层", "停止用水，修复防水层后全部重新打胶"),
        },
    ),
    Kind(
        "玻璃破损", 1, Hazard.FALL, ("客厅", "阳台"), "窗户", ("细小", "放射状", "穿孔的"),
        marks.broken_glass, {
            MINOR: ("玻璃有裂纹，影响观感", "贴膜保护，择期更换玻璃"),
            MODERATE: ("玻璃强度下降，可能碎裂", "尽快更换为安全玻璃"),
            SEVERE: ("玻璃随时可能坠落伤人", "封闭窗下区域，立即拆除并更换玻璃"),
        },
    ),
    Kind(
        "起砂", 0, Hazard.NONE, ("屋面", "楼梯间"), "地面", ("少许", "局部的", "大面积的"),
        marks.sanding, {
            MINOR: ("地面轻度磨损，容易起灰", "清扫后涂刷渗透型固化剂"),
            MODERATE: ("地面强度不足，面层逐渐剥落", "打磨后重做水泥砂浆面层"),
        },
    ),
    Kind(
        "杆距过大", 1, Hazard.FALL, ("阳台", "楼梯间"), "栏杆", ("一处", "连续几根", "整段"),
        marks.wide_bars, {
            MODERATE: ("栏杆空隙偏大，儿童可能钻出", "加装竖杆，使净距符合规范"),
            SEVERE: ("防护失效，可能有人坠落", "立即设置临时围挡，更换整段栏杆"),
        },
    ),
    Kind(
        "面板缺失", 1, Hazard.SHOCK, ("客厅", "厨房"), "插座", ("一个", "两个", "三个"),
        marks.missing_plate, {
            MINOR: ("线盒外露，影响使用", "补装插座面板"),
            MODERATE: ("导线外露，有触电可能", "断电后补装面板并检查接线"),
            SEVERE: ("多处带电体外露，触电危险大", "立即断电封闭，由电工全面检修"),
        },
    ),
    Kind(
        "饰面砖脱落", 1, Hazard.FALL, ("外墙", "厨房"), "墙面", ("几块", "一片", "成片的"),
        marks.missing_bricks, {
            MINOR: ("个别面砖掉落，影响观感", "用专用粘结剂补贴面砖"),
            MODERATE: ("面砖粘结失效，可能继续掉落", "敲击检查，剔除松动面砖后重贴"),
            SEVERE: ("面砖大量掉落，砸伤行人的危险大", "封闭下方通道，搭架全面剔除后重新粘贴"),
        },
    ),
    Kind(
        "卷材起鼓", 0, Hazard.NONE, ("屋面",), "防水层", ("单个", "几个", "密布的"),
        marks.blisters, {
            MINOR: ("局部起鼓，暂不漏水", "割开放气，粘牢后加贴一层"),
            MODERATE: ("大量起鼓，防水层将要失效", "铲除起鼓部位，干燥后重铺卷材"),
        },
    ),
)  # fmt: skip

NO_DEFECT = "未发现明显缺陷"
NO_DEFECT_FINDING: Finding = ("无明显风险，不影响使用", "保持日常巡查和维护")

_NAMES = re.compile("|".join(sorted((*(kind.name for kind in KINDS), NO_DEFECT), key=len, reverse=True)))


def kinds_named(text: str) -> frozenset[str]:
    """The kinds that a 缺陷描述 names, `NO_DEFECT` among them."""
    return frozenset(_NAMES.findall(text))
