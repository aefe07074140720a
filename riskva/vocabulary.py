"""Which words name which kind of defect and which room, and whether a text denies them: read off, never guessed.

A kind gathers what tables call the same thing (抹灰空鼓 and 墙砖空鼓 are both 空鼓). Words are matched from the left,
the longest first where several begin at the same place, so that 饰面砖脱落 is not taken for 脱落. What is denied is
tested on the phrases of `tests/mention_cases.yaml`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
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

_STOPS = r",。;!?|"
"""What ends a clause, as `_plain` writes it; a full stop as well, save in 0.3."""

_NOT = "(?:没有|没能|没|未能|未曾|未|不能|不曾|不会|不|无法|难以|很难)"
_ADVERB = (
    "(?:进一步|明显|明确|清[晰楚]|直接|实际|现场|目视|目测|肉眼|全程|再次?|曾|能够?|有|地|同时|另外?"
    rf"|[在从][^{_STOPS}]{{1,10}}?)"
)
_FOUND = (
    "(?:发现|发觉|察觉|觉察|看到|看见|看出|见到|见(?!好转|得)|观察[到出]|观测到|检测[到出]|检查[到出]|检[出见]|查[见出到]"
    "|测[出到]|探测到|识别[到出]|辨认出|注意到|找[到出]|显示出?|显现出?|呈现出?|反映出?|捕捉到|拍到|发生|出现|存在"
    # 未确定原因的裂缝 is a crack
    r"|(?:确认|确定|判断|判定|断定|证实|认定)(?:为|是否|是|有|存在|出现|\Z))"
)
_CAUSE = "(?:导致|造成|引起|引发|致使|使得|以致)"
# any of `_NOT` with any of `_FOUND`, since models deny in all ways: 没有看到, 未能发现, 不存在
_FINDS_NOT = (
    rf"(?:{_NOT}{_ADVERB}{{0,3}}{_FOUND}(?:过|到|其)?|(?:看|观察|检测|检查|找|见|辨认)不[到出见清]"
    # 没有未修补的裂缝: what follows is not the thing itself, yet all of it is denied
    r"|(?:没有|无)未)"
)
_MEND = "(?:处理|处置|修补|修复|修缮|封堵|整改|治理|维修|解决|消除|加固|清理|清除|剔除|铲除)"
# 未发现裂缝处渗水: the crack is there, the water is not
_BESIDE = "(?:处|部位|周边|周围|附近|两侧)(?:有|存在|出现|发生)?"
# nouns that may end what is denied, or what has a denial behind it, without changing what it is
_LIGHT = "(?:质量|缺陷|现象|问题|情况|迹象|痕迹|隐患|部位|病害)"

_GAP = re.compile(
    "|".join(
        (
            # what only looks like a denial; what has not been found is there
            "(?P<plain>(?:不|不能|无法|不可|尚?未|难以)(?:完全|彻底)?排除|无[处一时]?不|不得不|不仅|不但"
            f"|(?:并非|不是|未必|不一定|不代表|不等于|不意味着|不能说明?|不可能)就?(?:没有|无|{_FINDS_NOT})"
            f"|{_FINDS_NOT}的)",
            "(?P<question>(?:是否|是不是)(?:已经?|还|仍|会|可能|曾)?(?:有|存在|出现|发生|发现)|有无|有没有)",
            "(?P<bare_question>是否|是不是)",
            f"(?P<finding>{_FINDS_NOT}{_CAUSE}?)",
            r"(?P<denial>[未不](?:形成|产生|构成|属于|具有)|未有|未|没有|没|并不是|不是|不像是?|并非|无|排除了?|不\Z)",
            rf"(?P<stop>[{_STOPS}]|\.(?!\d)|但|却|而|仅|只|不过|可是|{_MEND}[了过好]?\Z)",
            "(?P<except>除(?![锈湿尘险去]))",
            "(?P<outside>以外|之外|外(?=的|其))",
            rf"(?P<link>[、/(和与]|及(?!时)|的\Z|{_BESIDE}\Z|\A{_CAUSE}的?\Z)",
            "(?P<either>或者?)",
            f"(?P<cause>{_CAUSE}(?!的))",
            f"(?P<filler>[所原现含]有|有[害关效]|(?:存在|出现|发生)(?=的?{_LIGHT}?[、及和与或])"
            "|明显|显著|任何|可见|肉眼|其他|其它|严重|较大|大面积|局部|细微|轻微|结构性?|贯[通穿]性?|[横竖纵斜]向|形式"
            f"|新增?|的|等|类|各种|什么|[一半][条处道个块片丝点]|[内外]墙面?"
            f"|{_LIGHT}|表面|墙面|墙体|墙砖|地砖|瓷砖|顶棚|天花板?|吊顶|地面|楼板"
            f"|抹灰层?|涂层|混凝土|门窗|窗框|[处上]|{'|'.join(word for words in ROOMS.values() for word in words)})",
            "(?P<verb>存在|出现|发生|发现|有)",
            "(?P<other>.)",
        )
    ),
    re.DOTALL,
)

_LONGEST_RUN = 14
"""How many characters may stand between 未发现 and what it denies, those of `filler` aside."""

_STAYS = re.compile(
    r"(?:以外|之外|外(?=[的其未没无,]))"
    "|(?:的|有|存在|明显|继续|进一步|持续|再次?|新的?|范围|面积)*"
    "(?:扩展|扩大|扩散|发展|延伸|蔓延|增[大多加宽长]|加[剧宽深重]|恶化|变[大宽深长化]|贯穿|贯通|影响|危及|是否"
    f"|原因|成因|走向|源头|来源|宽度|深度|长度|程度|类型|性质|{_MEND})"
)
"""What stands behind a thing that is there, though the statement about it is denied: 未发现裂缝扩展."""

_END = rf"(?=[{_STOPS}、).]|\Z)"
# only up to the end of the clause: 裂缝未见 is a denial, 裂缝未见发展 a crack
_DENIED_BEHIND = re.compile(
    f"等?(?:{_LIGHT}|检查|检测|排查|方面|项目?)*[均都也皆全]*(?:数量?|目前|是|为|暂时|暂|尚|仍|还|并|经检查|肉眼)*"
    rf"(?:{_FINDS_NOT}|没有|不可见|(?:已经?|均已|可以?|予以)?排除|不成立|不属实|吗?[:?(=\-—]*(?:{_FINDS_NOT}|没有|无|否|不是"
    r"|×|[0零][处条个]?)|[:(]?(?:是否(?:存在|有)|有无)?(?:无法|不能|难以)(?:判断|确定|确认|识别|判定)"
    rf"|是否(?:存在|有)[:?]?[否无]?)(?:了|过|存在|出现|发生|{_LIGHT})*的?{_END}"
)
_AFFIRMED_BEHIND = re.compile(rf"{_LIGHT}?吗?[:?(]+(?:是的?|有|存在|√){_END}")
_LISTED = re.compile(f"等?{_LIGHT}?(?:[、/和与或]|及|以及|或者)(?:明显|任何|其他|{_LIGHT}|墙面|地面|顶棚)*")
# what stands between a word and 未见异常: 裂缝检查：未见异常
_CHECKED = re.compile("(?:情况|检查|检测|排查|方面)*[:]|(?:情况|检查|检测|排查|方面)+")
_BESIDE_IT = re.compile(_BESIDE)
_HEADING = re.compile(r"(?<=缺陷|问题|异常|情况|现象)[^\S\n]*\n")
"""A line break that ends a clause; any other may be a cell's, within a word."""

_PLACES = frozenset(word for words in ROOMS.values() for word in words)


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
        """All that `text` names, in its order, and whether it is said not to be there.

        - A clause ends at a comma, full stop and the like, and at 但, 却, 而, 仅, 只, 不过; so does a denial.
        - Behind a negated finding (未发现, 没有看到, 不存在), a few characters may stand before what is denied:
          未发现外墙窗台渗水. Behind a bare 无, 没有, 未, 不 only what describes a defect may: 未封堵的裂缝 is a crack.
        - A denial holds for a list (未发现裂缝、空鼓等缺陷), not for what follows without 、, 和, 或 and the like.
        - It may stand behind, and holds for the list before it: 裂缝、空鼓均未发现, 裂缝：无; not 裂缝未处理.
        - What changes, has a cause or a repair is there, and so is an exception: 未发现裂缝扩展, 除裂缝外未见缺陷.
        - What is asked or left open counts as denied, since it is not affirmed: 无法判断是否有裂缝; not 是否有裂缝：是.
        - What a missing thing leads to is there (未做防水导致渗漏), and what has not been found (未发现的裂缝).
        - A word that holds a denial itself (未打胶) is not denied by it.
        - A room of `ROOMS` where nothing was found is still the room: 未发现卫生间渗水; not 未发现卫生间.
        """
        return list(self._mentions(_plain(_HEADING.sub("。", text))))

    def _mentions(self, plain: str) -> Iterator[Mention]:
        matches = list(self._pattern.finditer(plain))
        words = [match.group() for match in matches]
        ends = [0, *(match.end() for match in matches)]
        starts = [*(match.start() for match in matches), len(plain)]
        before, *behind = (plain[end:start] for end, start in zip(ends, starts, strict=True))
        denial = _Denial()
        following = [*words, ""][1:]
        postponed = _denied_behind(behind, following)
        for word, after, next_word, is_denied_behind in zip(words, behind, following, postponed, strict=True):
            denial.read(before)
            is_denied = denial.holds_for(word, after, next_word) or (is_denied_behind and word not in _PLACES)
            name = self._names[word]
            yield Mention(name, word, is_denied)
            denial.pass_by(name)
            before = after

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


@dataclass
class _Denial:
    """The denial that holds while a text is read from the left, gap by gap between the words of a vocabulary."""

    kind: str | None = None
    """The group of `_GAP` that began it: a `finding`, a `question` of its like, or one that only `filler` goes on."""

    run: int = 0
    has_named: bool = False
    is_linked: bool = False
    is_excepted: bool = False

    @property
    def is_finding(self) -> bool:
        return self.kind in {"finding", "question"}

    def read(self, gap: str) -> None:
        """Goes on over `gap`, up to a word."""
        self.is_linked = not gap
        for token in _GAP.finditer(gap):
            self._take(token.lastgroup or "", len(token.group()))
        if self.has_named and not self.is_linked:
            self.kind = None

    def _take(self, group: str, length: int) -> None:
        if group in {"finding", "question", "bare_question"} or (group == "denial" and not self._goes_on):
            self.kind, self.run, self.has_named, self.is_excepted = group, 0, False, False
        elif group in {"plain", "stop", "cause"} or (group == "verb" and self.has_named):
            self.kind = None
        elif group in {"except", "outside"}:
            self.is_excepted = group == "except"
        elif group in {"link", "either"}:
            self.is_linked = True
            # 未发现有裂缝或有空鼓 denies both, 没有裂缝和有空鼓 one
            self.has_named = self.has_named and group == "link"
        elif group in {"other", "denial"} or (group == "verb" and not self.kind):
            self._count(length)

    @property
    def _goes_on(self) -> bool:
        """Whether a bare negation belongs to what is denied: 未发现未处理的裂缝."""
        return self.is_finding and (not self.has_named or self.is_linked)

    def _count(self, length: int) -> None:
        self.run += length
        if not self.is_finding or self.run > _LONGEST_RUN:
            self.kind = None

    def holds_for(self, word: str, after: str, next_word: str) -> bool:
        """Whether `word`, which has been reached, is denied; `after` stands between it and `next_word`."""
        if self.kind is None or self.is_excepted or _STAYS.match(after):
            return False
        if next_word and _BESIDE_IT.fullmatch(after):
            return False
        if word in _PLACES and self.is_finding:
            # 未发现卫生间渗水 speaks of that room
            return (after or next_word or _STOPS)[0] in _STOPS
        return not (self.kind.endswith("question") and _AFFIRMED_BEHIND.match(after))

    def pass_by(self, name: str) -> None:
        """Goes on behind a word for `name`; what is listed behind 未发现明显缺陷 is denied like it."""
        self.has_named, self.run = True, 0
        if name == NO_DEFECT and self.kind is None:
            self.kind, self.is_excepted = "finding", False


def _denied_behind(gaps: Sequence[str], following: Sequence[str]) -> list[bool]:
    """For each word, by the gap behind it and the word that follows there, whether a denial stands behind it."""
    found: list[bool] = []
    for gap, word in zip(reversed(gaps), reversed(following), strict=True):
        # a list is read from its end: 裂缝、空鼓均未发现
        is_listed = bool(found) and found[-1] and bool(_LISTED.fullmatch(gap))
        is_checked = word in KINDS[NO_DEFECT] and bool(_CHECKED.fullmatch(gap))
        # with the word, since a gap that ends does not end the clause: 裂缝未发现渗水
        found.append(is_listed or is_checked or bool(_DENIED_BEHIND.match(gap + word)))
    return found[::-1]
