"""What one sees in a drawn photo who knows nothing of buildings: questions and answers that a base model learns from.

The words, sentences and questions are others than those of a risk report, and no level occurs: what a line of black
dots is called, and how bad it is, is left for the fine-tune to teach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from drawn_defects.photos import Scene
from drawn_defects.rooms import ROOMS

LOOKS: Mapping[str, str] = {
    "裂缝": "弯弯曲曲的黑色线条",
    "空鼓": "粉笔画的彩色圆圈",
    "透底": "竖着的灰色刷痕",
    "起皮": "翘起来的白边碎片",
    "霉斑": "聚在一起的墨绿小点",
    "渗水": "深色边缘的黄褐色水印",
    "泛碱": "像雪一样的白色粉末",
    "缺角": "白色方块少了一个尖",
    "积水": "反光的扁圆形蓝色水面",
    "露筋锈蚀": "橙红色的横条",
    "打胶缺失": "中间断开的白色横带",
    "玻璃破损": "蓝色方框里的星形白线",
    "起砂": "黄色的细颗粒",
    "杆距过大": "竖条之间的空当",
    "面板缺失": "露出彩色线的黑盒子",
    "饰面砖脱落": "红色小方砖上的灰洞",
    "卷材起鼓": "发亮的圆包",
}
SIZES = ("一点点", "一些", "一大片")
NOTHING, NO_SIZE = "没有别的东西", "干干净净"

QUESTIONS = ("看图说话。", "先说东西，再说背景。", "画的是什么？有多大？", "大小怎样？在什么上面？")


@dataclass(frozen=True)
class Caption:
    """A question, about a photo or not, and its answer."""

    question: str
    answer: str


def caption(scene: Scene, rng: np.random.Generator) -> Caption:
    """One of four questions about `scene`: the mark, its size and the background, in several orders."""
    number = int(rng.integers(len(QUESTIONS)))
    return Caption(QUESTIONS[number], _answers(scene)[number])


def _answers(scene: Scene) -> tuple[str, str, str, str]:
    ground = ROOMS[scene.room].look
    mark, size = (LOOKS[scene.kind.name], SIZES[scene.extent]) if scene.kind else (NOTHING, NO_SIZE)
    return (
        f"背景是{ground}，上面有{size}{mark}。",
        f"{mark}，{size}；背景是{ground}。",
        f"{size}{mark}。",
        f"{size}，在{ground}上面，是{mark}。",
    )


def phrases() -> list[str]:
    """Every phrase that answers are made of."""
    looks = [*LOOKS.values(), *(room.look for room in ROOMS.values())]
    return [*looks, *SIZES, NOTHING, NO_SIZE, "背景是", "上面有", "上面，是"]
