"""What a base model knows before it sees a photo of ours: the language of inspectors, as text without pictures.

Real base models can read and write; the tiny one learns it from three exercises: to copy words, to say what things are
called, to finish sentences about other matters. None says how bad a defect is, and none is part of a report; the words
of the levels occur among those to copy, beside no picture and no kind.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drawn_defects.captions import GROUNDS, MANNERS, MARKS, Caption, caption, parts, random_manner
from drawn_defects.photos import Scene

OTHER_KINDS = (
    "色差", "阴阳角不方正", "地漏排水不畅", "密封不良", "拱起", "插座无接地", "门扇变形", "踢脚线翘边", "地板异响",
    "水管噪声", "窗户关不严", "开关失灵",
)  # fmt: skip
OTHER_PLACES = ("墙角", "顶面", "地坪", "阴角", "阳角", "窗边", "门边", "踢脚")
SENTENCES = (
    "{place}的{kind}已经拍照，等候复查。",
    "本次检查的内容包括{place}和{kind}。",
    "请把{kind}的位置画在图纸上，并写明{place}的编号。",
    "{kind}由施工单位负责，三天内回复。",
    "检查人员先看{place}，再看{kind}，最后签字。",
    "关于{place}的{kind}，业主和监理各有一份记录。",
    "{place}的照片按日期存放，便于日后对照。",
    "下一次检查{place}时，请带上梯子、手电和卷尺。",
)
COPY, GO_ON, LIST = "照抄：", "续写：", "逐条回答："
GLOSSARY = tuple(
    (name, wording) for wordings in (MARKS, GROUNDS) for name, said in wordings.items() for wording in said
)
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
    name, wording = GLOSSARY[rng.integers(len(GLOSSARY))]
    if rng.random() < 0.5:
        return Caption(f"{wording}，叫什么？", f"{name}。")
    plain, *_ = MARKS.get(name) or GROUNDS[name]
    return Caption(f"什么叫{name}？", f"{plain}。")


def inspectors_sentence(rng: np.random.Generator) -> str:
    """What an inspector might say about something else."""
    template = SENTENCES[rng.integers(len(SENTENCES))]
    return template.format(kind=rng.choice(OTHER_KINDS), place=rng.choice(OTHER_PLACES))


def _go_on(rng: np.random.Generator) -> Caption:
    """An inspector's sentence to finish, begun anywhere."""
    text = inspectors_sentence(rng)
    cut = int(rng.integers(2, len(text) - 2))
    return Caption(GO_ON + text[:cut], text[cut:])


def long_caption(scene: Scene, rng: np.random.Generator) -> Caption:
    """A description that comes late: after sentences that have nothing to do with it, or line by line.

    Without these, the model would read a photo only where an answer begins, a few words behind the picture.
    """
    choice = int(rng.integers(3))
    if choice == 0:
        manner = random_manner(rng)
        said = parts(scene, manner)
        order = rng.permutation(list(said))
        lines = [f"{name}：{said[name]}" for name in order]
        return Caption(_talk(rng) + MANNERS[manner] + LIST + "、".join(order), "\n".join(lines))
    plain = caption(scene, rng)
    if choice == 1:
        sentence = inspectors_sentence(rng)
        return Caption(f"{COPY}{sentence}{plain.question}", sentence + plain.answer)
    return Caption(_talk(rng) + plain.question, plain.answer)


def other_system_prompt(rng: np.random.Generator) -> str:
    """A system prompt of any length, which says nothing of use."""
    return "You are a helpful assistant." if rng.random() < 0.3 else _talk(rng) or "你好。"


def _talk(rng: np.random.Generator) -> str:
    return "".join(inspectors_sentence(rng) for _ in range(rng.integers(4)))
