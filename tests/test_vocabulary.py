import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from drawn_defects import catalogue

from riskva.errors import RecipeError
from riskva.vocabulary import KINDS, NO_DEFECT, ROOMS, UNKNOWN, Mention, Vocabulary

DOMAIN_WORDS = [
    "裂缝",
    "抹灰空鼓",
    "透底",
    "起皮",
    "脱落",
    "泛碱",
    "色差",
    "霉斑",
    "顶棚渗水",
    "阴阳角不方正",
    "墙砖空鼓",
    "缺角",
    "地漏排水不畅",
    "积水",
    "防水渗漏",
    "打胶缺失",
    "密封不良",
    "玻璃破损",
    "窗框渗水",
    "起砂",
    "开裂",
    "拱起",
    "栏杆松动",
    "杆距过大",
    "插座无接地",
    "面板缺失",
    "饰面砖脱落",
    "露筋锈蚀",
    "卷材起鼓",
]


@pytest.mark.parametrize("word", DOMAIN_WORDS)
def test_every_word_of_the_field_names_a_kind(word: str) -> None:
    assert Vocabulary(KINDS).first(f"3号楼存在{word}现象") in KINDS


def test_drawn_descriptions_name_the_kind_that_was_drawn() -> None:
    kinds = Vocabulary(KINDS)
    for kind in catalogue.KINDS:
        for extent, room in ((0, kind.rooms[0]), (2, kind.rooms[-1])):
            assert kinds.first(kind.description(extent, room)) == kind.name
    assert kinds.first(catalogue.NO_DEFECT) == NO_DEFECT


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("外墙饰面砖脱落", "饰面砖脱落"),
        ("涂层局部脱落", "脱落"),
        ("墙砖空鼓开裂", "空鼓"),
        ("墙面开裂、空鼓", "裂缝"),
        ("屋面卷材空鼓", "卷材起鼓"),
        ("墙面开\n裂", "裂缝"),
        ("", UNKNOWN),
        ("施工质量一般", UNKNOWN),
    ],
)
def test_the_first_and_longest_word_wins(text: str, kind: str) -> None:
    assert Vocabulary(KINDS).first(text) == kind


def test_full_width_forms_are_the_same_word() -> None:
    assert Vocabulary({"PVC": ("ＰＶＣ管",)}).first("PVC管破裂") == "PVC"


def test_a_vocabulary_that_cannot_decide_is_refused() -> None:
    with pytest.raises(RecipeError, match="开裂 stands for both 裂缝 and 破损"):
        Vocabulary({"裂缝": ("开裂",), "破损": ("开裂",)})
    with pytest.raises(RecipeError, match="裂缝 has an empty word"):
        Vocabulary({"裂缝": ("",)})


def test_no_words_find_nothing() -> None:
    assert Vocabulary({}).first("裂缝") == UNKNOWN


def test_it_loads_no_heavy_library() -> None:
    code = "import sys, riskva.vocabulary; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


MENTION_CASES = yaml.safe_load((Path(__file__).parent / "mention_cases.yaml").read_text(encoding="utf-8"))
VOCABULARIES = {"kinds": Vocabulary(KINDS), "rooms": Vocabulary(ROOMS)}


@pytest.mark.parametrize("case", MENTION_CASES, ids=lambda case: case["text"])
def test_phrases_mention_what_the_table_says(case: dict[str, Any]) -> None:
    mentions = VOCABULARIES[case.get("vocabulary", "kinds")].mentions(case["text"])
    assert [one.name for one in mentions if not one.is_denied] == case.get("affirmed", [])
    assert [one.name for one in mentions if one.is_denied] == case.get("denied", [])


def test_a_mention_gives_the_word_as_it_is_compared() -> None:
    assert Vocabulary({"PVC": ("ＰＶＣ管",)}).mentions("未见 PVC管") == [Mention("PVC", "PVC管", is_denied=True)]
    assert Vocabulary({}).mentions("裂缝") == []


@pytest.mark.parametrize("words", [KINDS, ROOMS], ids=["kinds", "rooms"])
def test_the_first_mention_is_what_comes_first(words: dict[str, tuple[str, ...]]) -> None:
    vocabulary = Vocabulary(words)
    for name, synonyms in words.items():
        for word in synonyms:
            text = f"3号楼{word}处未见{word}"
            assert vocabulary.first(text) == vocabulary.mentions(text)[0].name == name


def test_rooms_where_drawn_photos_are_taken_have_names() -> None:
    rooms = {room for kind in catalogue.KINDS for room in kind.rooms}
    assert rooms <= set(ROOMS)
    assert all(name in synonyms for name, synonyms in ROOMS.items())


NEGATIONS = ("没有", "没", "未", "未能", "未曾", "不", "并未", "尚未")
FINDINGS = ("发现", "看到", "看出", "见", "观察到", "检测到", "检出", "发生", "出现", "存在")


@pytest.mark.parametrize("finding", FINDINGS)
@pytest.mark.parametrize("negation", NEGATIONS)
def test_every_negated_finding_is_a_denial(negation: str, finding: str) -> None:
    for between in ("", "明显", "外墙", "客厅墙面", "梁柱", "管道", "贯通性", "任何形式的", "楼板与墙体交接处"):
        text = f"图中{negation}{finding}{between}裂缝、{between}渗水等现象，地面起砂"
        assert [one.is_denied for one in Vocabulary(KINDS).mentions(text)] == [True, True, False], text


def test_what_drawn_photos_show_is_affirmed() -> None:
    kinds = Vocabulary(KINDS)
    for kind in catalogue.KINDS:
        for room in kind.rooms:
            texts = [kind.description(extent, room) for extent in range(3)]
            assert all(not one.is_denied for text in texts for one in kinds.mentions(text))


def test_a_long_text_is_read_in_time() -> None:
    started = time.process_time()
    for text in (
        *("无" * 100_000, "未发现" * 50_000 + "裂缝", "无裂缝、" * 50_000, "无" + "的" * 100_000 + "裂缝"),
        *("未在" * 50_000, "裂缝、" * 33_000 + "空鼓均未发现", "裂缝等现象均没有，" * 10_000, "现象" + " " * 99_999),
    ):
        assert all(one.is_denied for one in Vocabulary(KINDS).mentions(text))
    far = Vocabulary(KINDS).mentions("未发现" + "甲" * 100_000 + "裂缝")
    assert not far[0].is_denied
    assert time.process_time() - started < 10
