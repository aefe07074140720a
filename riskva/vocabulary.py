"""Which words name which kind of defect: read off descriptions, never guessed.

A kind gathers what tables call the same thing (抹灰空鼓 and 墙砖空鼓 are both 空鼓). Words are matched from the left,
the longest first where several begin at the same place, so that 饰面砖脱落 is not taken for 脱落.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from riskva.errors import RecipeError

UNKNOWN = "unknown"
"""What a text is counted under that names nothing of a vocabulary."""

NO_DEFECT = "无缺陷"

KINDS: Mapping[str, tuple[str, ...]] = {
    "裂缝": ("贯穿裂缝", "裂缝", "开裂", "裂纹", "龟裂"),
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
