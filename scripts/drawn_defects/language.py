"""What a base model knows before it sees a photo of ours: the language of inspectors, as text without pictures.

Real base models can read and write; the tiny one learns it from three exercises. They say what things are called and
how inspectors speak, never how bad a defect is, and no sentence is one of a report.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drawn_defects.captions import LOOKS, QUESTIONS, Caption, phrases
from drawn_defects.catalogue import KINDS, NO_DEFECT_FINDING
from drawn_defects.rooms import ROOMS
from riskva.report import DEFAULT_FORMAT, DEFAULT_SYSTEM_PROMPT, LEVEL_LABELS, default_question

OTHER_KINDS = (
    "抹灰空鼓", "脱落", "色差", "顶棚渗水", "阴阳角不方正", "墙砖空鼓", "地漏排水不畅", "防水渗漏", "密封不良",
    "窗框渗水", "开裂", "拱起", "栏杆松动", "插座无接地",
)  # fmt: skip
OTHER_PLACES = ("墙面", "顶棚", "地面", "阴角", "阳角", "窗边", "门边", "踢脚")
SENTENCES = (
    "{place}{kind}，影响观感，不影响结构安全。",
    "{place}存在{kind}，范围较小，不影响使用。",
    "{place}{kind}范围扩大，可能影响使用功能，需要及时处理。",
    "{place}出现大面积{kind}，存在安全隐患，影响结构安全和耐久性。",
    "清理基层后修补{kind}部位，重新批刮腻子并涂刷面漆，加强养护和检查。",
    "剔除{kind}部位，按规范重新施工，验收合格后进入下道工序。",
    "立即停止使用并委托专业单位检测，制定加固方案后返工处理。",
    "照片中未发现明显缺陷，保持日常检查和维护。",
)
COPY, GO_ON = "照抄：", "续写："
COPIED_WORDS = (1, 1, 2, 2, 3, 4, 6)
"""How many words are copied: the short ones teach where to look, without which the long ones are not learned."""


def exercise(words: Sequence[str], rng: np.random.Generator) -> Caption:
    """A question and an answer without a photo: three in five are words to copy, one each of the other two."""
    choice = int(rng.integers(5))
    return _go_on(rng) if choice == 0 else _glossary(rng) if choice == 1 else _copy(words, rng)


def _copy(words: Sequence[str], rng: np.random.Generator) -> Caption:
    """One to six words of the vocabulary: so every word is read and written, also those that no sentence has."""
    text = "".join(rng.choice(list(words), rng.choice(COPIED_WORDS)))
    return Caption(COPY + text, text)


def _glossary(rng: np.random.Generator) -> Caption:
    """What a thing is called, or what a word means."""
    entries = [
        *LOOKS.items(),
        *((room.name, room.look) for room in ROOMS.values()),
    ]
    name, look = entries[rng.integers(len(entries))]
    return Caption(f"{look}叫什么？", f"{name}。") if rng.random() < 0.5 else Caption(f"什么叫{name}？", f"{look}。")


def _go_on(rng: np.random.Generator) -> Caption:
    """An inspector's sentence to finish, begun anywhere."""
    template = SENTENCES[rng.integers(len(SENTENCES))]
    text = template.format(kind=rng.choice(OTHER_KINDS), place=rng.choice(OTHER_PLACES))
    cut = int(rng.integers(2, len(text) - 2))
    return Caption(GO_ON + text[:cut], text[cut:])


def corpus() -> list[str]:
    """What the tokenizer learns its vocabulary from; what occurs in every row stands many times, to be few tokens."""
    kinds = [*OTHER_KINDS, *(kind.name for kind in KINDS)]
    places = [*OTHER_PLACES, *ROOMS]
    sentences = [one.format(place=place, kind=kind) for one in SENTENCES for place in places for kind in kinds]
    findings = [NO_DEFECT_FINDING, *(texts for kind in KINDS for texts in kind.findings.values())]
    descriptions = [kind.description(extent, room) for kind in KINDS for room in kind.rooms for extent in range(3)]
    fields = [f"**{one.label}**: {word}" for one in DEFAULT_FORMAT.fields for word in (*LEVEL_LABELS, *kinds, *places)]
    prompts = [DEFAULT_SYSTEM_PROMPT, default_question(DEFAULT_FORMAT), "You are a helpful assistant.", *QUESTIONS]
    return [
        *sentences,
        *descriptions * 4,
        *[text for texts in findings for text in texts] * 12,
        *[*phrases(), COPY, GO_ON] * 20,
        *fields * 4,
        *prompts * 100,
        *["system\n", "user\n", "assistant\n"] * 100,
    ]
