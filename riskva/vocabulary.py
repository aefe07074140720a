"""Which words name which kind of defect and which room, and whether a text denies them: read off, never guessed.

A kind gathers what tables call the same thing (抹灰空鼓 and 墙砖空鼓 are both 空鼓). Words are matched from the left,
the longest first where several begin at the same place, so that 饰面砖脱落 is not taken for 脱落. What is denied is
tested on the phrases of `tests/mention_cases.yaml`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from riskva.errors import RecipeError

UNKNOWN = "unknown"
"""What a text is counted under that names nothing of a vocabulary."""

NO_DEFECT = "无缺陷"

KINDS: Mapping[str, tuple[str, ...]] = {
    "裂缝": ("贯穿裂缝", "未贯穿裂缝", "非贯穿裂缝", "裂缝", "开裂", "裂纹", "龟裂"),
    "空鼓": ("抹灰空鼓", "墙砖空鼓", "地砖空鼓", "空鼓", "起壳"),
    "透底": ("透底", "露底"),
    "起皮": ("起皮", "翘皮"),
    "饰面砖脱落": ("饰面砖脱落", "外墙砖脱落", "面砖脱落", "瓷砖脱落"),
    "脱落": ("抹灰脱落", "涂料脱落", "剥落", "脱落", "掉灰"),
    "泛碱": ("泛碱", "返碱"),
    "色差": ("色差", "颜色不一致"),
    "霉斑": ("霉斑", "发霉", "霉变", "长霉"),
    "渗水": ("顶棚渗水", "窗框渗水", "防水渗漏", "渗水", "渗漏", "漏水", "水渍"),
    "阴阳角不方正": ("阴阳角不方正", "阴阳角不顺直", "不方正"),
    "缺角": ("缺棱掉角", "缺角", "掉角"),
    "排水不畅": ("地漏排水不畅", "排水不畅", "地漏堵塞"),
    "积水": ("积水", "倒泛水"),
    "打胶缺失": ("打胶缺失", "打胶不连续", "漏打胶", "未打胶"),
    "密封不良": ("密封不良", "密封不严"),
    "玻璃破损": ("玻璃破损", "玻璃破裂", "玻璃划伤"),
    "起砂": ("起砂", "起灰"),
    "拱起": ("地板起拱", "拱起", "起拱", "空拱"),
    "栏杆松动": ("栏杆松动", "扶手松动"),
    "杆距过大": ("杆距过大", "栏杆间距过大", "栏杆净距过大"),
    "插座无接地": ("插座无接地", "插座未接地", "无接地", "未接地"),
    "面板缺失": ("插座面板缺失", "开关面板缺失", "面板缺失"),
    "露筋锈蚀": ("露筋锈蚀", "钢筋外露", "钢筋锈蚀", "露筋", "锈蚀"),
    "卷材起鼓": ("防水卷材起鼓", "卷材起鼓", "卷材空鼓"),
    NO_DEFECT: ("未发现明显缺陷", "未见明显缺陷", "无明显缺陷", "未发现缺陷", "未见异常"),
}
"""The kinds of defects that inspections of dwellings name, each with the words for it."""

ROOMS: Mapping[str, tuple[str, ...]] = {
    "厨房": ("厨房", "灶间"),
    "卫生间": (
        *("卫生间", "洗手间", "厕所", "浴室", "淋浴间", "盥洗室", "主卫", "次卫", "客卫", "公卫"),
        # the room that is meant stands last
        *("主卧卫生间", "次卧卫生间", "卧室卫生间", "主卧洗手间"),
    ),
    "客厅": ("客厅", "起居室", "起居厅", "客餐厅"),
    "餐厅": ("餐厅", "饭厅"),
    "卧室": ("卧室", "主卧", "次卧", "卧房", "睡房", "儿童房", "老人房", "客房"),
    "书房": ("书房",),
    "玄关": ("玄关", "门厅"),
    "走廊": ("走廊", "过道", "走道", "连廊"),
    "阳台": ("阳台", "客厅阳台", "餐厅阳台", "厨房阳台", "卧室阳台", "主卧阳台", "次卧阳台"),
    "露台": ("露台",),
    "储物间": ("储物间", "储藏室", "储藏间", "杂物间"),
    "衣帽间": ("衣帽间", "更衣室"),
    "洗衣房": ("洗衣房", "洗衣间", "家政间"),
    "楼梯间": ("楼梯间", "楼梯", "楼道"),
    "电梯厅": ("电梯厅", "电梯间", "电梯前室"),
    "大堂": ("大堂", "单元门厅"),
    "地下室": ("地下室",),
    "车库": ("车库", "地下车库", "地库"),
    "设备间": ("设备间", "设备房", "配电间", "配电房"),
    "管道井": ("管道井", "管井"),
    "外墙": ("外墙", "外立面"),
    "屋面": ("屋面", "屋顶", "楼顶", "天台"),
    "庭院": ("庭院", "院子", "花园"),
}
"""The rooms and parts of a building that inspections of dwellings name, each with the words for it."""

_GAP = re.compile(
    "|".join(
        (
            # what only looks like a denial
            "(?P<plain>(?:不|不能|无法|不可|尚?未)排除|(?:并非|不是)(?:没有|无))",
            "(?P<denial>未发现|未见|未出现|未发生|未存在|未产生|未形成|未检出|未查出|未检测到|未观察到|未看到|未有|未"
            "|没有发现|没发现|没有|没见|没|并?不存在|看?不到|并不是|不是|并非|无"
            r"|排除|不\Z)",
            "(?P<verb>存在|出现|发生|发现|有)",
            "(?P<filler>明显|显著|任何|可见|肉眼|其他|其它|严重|较大|大面积|局部|细微|轻微|结构性?|新增?|的|等|类|各种"
            "|质量|缺陷|现象|问题|情况|迹象|痕迹|隐患|部位|表面|墙面|墙体|墙砖|地砖|瓷砖|顶棚|天花板?|吊顶|地面|楼板"
            "|抹灰层?|涂层|混凝土|门窗|窗框|[、/和及与或处上]|以及|或者)",
            "(?P<other>.)",
        )
    ),
    re.DOTALL,
)


@dataclass(frozen=True)
class Mention:
    """A word of a vocabulary in a text: whose it is, how it is written, and whether the text says that it is not so."""

    name: str
    word: str
    is_denied: bool


@dataclass(frozen=True)
class Vocabulary:
    """Names, each with its words. Raises `RecipeError` for an empty word, or a word that stands for two names."""

    words: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        owners: dict[str, str] = {}
        for name, words in self.words.items():
            for word in words:
                if not word.strip():
                    raise RecipeError(f"vocabulary: {name} has an empty word")
                if owners.setdefault(_plain(word), name) != name:
                    raise RecipeError(f"vocabulary: {word} stands for both {owners[_plain(word)]} and {name}")

    def first(self, text: str) -> str:
        """The name whose word comes first in `text`, or `UNKNOWN`."""
        match = self._pattern.search(_plain(text))
        return self._names[match.group()] if match else UNKNOWN

    def mentions(self, text: str) -> list[Mention]:
        """All that `text` names, in its order; what stands behind 未发现, 没有, 无 and the like is denied.

        A denial holds for a list (未发现裂缝、空鼓等缺陷) and ends with its clause, or with any word that has no place
        in a list: 未及时处理的裂缝 is a crack. A word that holds a denial itself (未打胶) is not denied by it.
        """
        return list(self._mentions(_plain(text)))

    def _mentions(self, plain: str) -> Iterator[Mention]:
        end, is_denied, has_named = 0, False, False
        for match in self._pattern.finditer(plain):
            is_denied = _is_denied_after(plain[end : match.start()], is_denied, has_named)
            name = self._names[match.group()]
            yield Mention(name, match.group(), is_denied)
            end, has_named = match.end(), True
            # what is listed behind 未发现明显缺陷 is denied like it
            is_denied = is_denied or name == NO_DEFECT

    @cached_property
    def _names(self) -> dict[str, str]:
        return {_plain(word): name for name, words in self.words.items() for word in words}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._names, key=lambda word: (-len(word), word))
        # `(?!)` matches nothing, which is what a vocabulary without words finds.
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _plain(text: str) -> str:
    """`text` as words are compared: full-width forms and white space aside, since cells of tables break lines."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def _is_denied_after(gap: str, was_denied: bool, has_named: bool) -> bool:
    """Whether what stands behind `gap` is denied, by words of the gap or, through a list, by those before it.

    A verb goes with the denial before it (未发现墙面存在裂缝), and begins another statement where something has been
    named since (没有空鼓的墙面存在裂缝).
    """
    is_denied = was_denied
    for token in _GAP.finditer(gap):
        if token.lastgroup == "denial":
            is_denied, has_named = True, False
        elif token.lastgroup in {"plain", "other"} or (token.lastgroup == "verb" and has_named):
            is_denied = False
    return is_denied
