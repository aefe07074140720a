"""What one sees in a drawn photo who knows nothing of buildings: questions and answers that a base model learns from.

A photo is described in three manners: plainly, by a comparison, by colour and shape. Having to say one thing in several
ways, a model comes to know the thing, and a fourth way, the report's, is learned from few rows. The words, sentences
and questions are others than those of a report, and no level occurs: how bad a cluster of black dots is, and what is to
be done about it, is left for the fine-tune to teach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from drawn_defects.photos import Scene

Wordings = tuple[str, str, str]
"""The same thing said in each manner of `MANNERS`."""

MANNERS: Wordings = ("", "打个比方，", "只讲颜色形状，")
"""What a question begins with, to be answered plainly, by a comparison, or by colour and shape."""

MARKS: Mapping[str, Wordings] = {
    "裂缝": ("弯弯曲曲的黑色线条", "像干枯的树枝", "黑色长线"),
    "空鼓": ("粉笔画的彩色圆圈", "像套圈用的圈", "红蓝圆环"),
    "透底": ("竖着的灰色刷痕", "像拖把留下的印", "灰色竖带"),
    "起皮": ("翘起来的白边碎片", "像碎蛋壳", "白色碎块"),
    "霉斑": ("聚在一起的墨绿小点", "像一把芝麻", "墨绿密点"),
    "渗水": ("深色边缘的黄褐色水印", "像打翻的茶", "黄褐云团"),
    "泛碱": ("粗糙的白色粉末", "像落了一层雪", "白色雪花"),
    "缺角": ("白色方块少了一个尖", "像咬过的饼干", "白色缺口方块"),
    "积水": ("反光的扁圆形水面", "像一面镜子", "蓝色扁圆"),
    "露筋锈蚀": ("生锈颜色的横条", "像烤肉的架子", "橙色横杆"),
    "打胶缺失": ("中间断开的白色横带", "像断了的鞋带", "白色断带"),
    "玻璃破损": ("方框里的星形白线", "像蜘蛛网", "白色星形"),
    "起砂": ("撒开的黄色细颗粒", "像一片沙滩", "黄色细粒"),
    "杆距过大": ("竖条之间的空当", "像掉了齿的梳子", "黑色疏条"),
    "面板缺失": ("露出彩色线的黑盒子", "像拆开的收音机", "黑色方盒"),
    "饰面砖脱落": ("红色小方块上的灰洞", "像少了几块的拼图", "红色残格"),
    "卷材起鼓": ("发亮的圆包", "像煎饼上的泡", "亮灰圆包"),
}
SIZES: tuple[Wordings, Wordings, Wordings] = (
    ("一点点", "像硬币", "小"),
    ("一些", "像手掌", "不大不小"),
    ("很多", "像桌面", "大"),
)
NOTHING: Wordings = ("没有别的东西", "像一张白纸", "没有颜色形状")
NO_SIZE: Wordings = ("干干净净", "什么都不像", "没有")
GROUNDS: Mapping[str, Wordings] = {
    "厨房": ("浅色大方格和一条深色台面", "像棋盘放在黑桌上", "白格黑边"),
    "卫生间": ("淡蓝色小方格", "像练习本", "蓝色细格"),
    "客厅": ("米黄色平面和一条棕色木头", "像沙丘下的木船", "米黄棕边"),
    "卧室": ("淡紫色竖条纹", "像条纹睡衣", "淡紫竖纹"),
    "阳台": ("砖红色大方格", "像巧克力板", "砖红大格"),
    "外墙": ("土黄色错缝石块", "像古城", "土黄错缝"),
    "屋面": ("深灰色粗糙表面", "像柏油路", "深灰糙面"),
    "楼梯间": ("上白下绿两种颜色", "像雪山和草地", "上白下绿"),
}

QUESTIONS = ("看图说话。", "先说东西，再说背景。", "画的是什么？有多大？", "大小怎样？在什么上面？")


@dataclass(frozen=True)
class Caption:
    """A question, about a photo or not, and its answer."""

    question: str
    answer: str


def caption(scene: Scene, rng: np.random.Generator) -> Caption:
    """One of four questions about `scene`, in one of three manners: the mark, its size and the background."""
    manner, number = random_manner(rng), int(rng.integers(len(QUESTIONS)))
    return Caption(MANNERS[manner] + QUESTIONS[number], _answers(scene, manner)[number])


def random_manner(rng: np.random.Generator) -> int:
    """An index of `MANNERS`."""
    return int(rng.integers(len(MANNERS)))


def parts(scene: Scene, manner: int) -> dict[str, str]:
    """What there is to say about `scene`: the mark, its size and the background."""
    mark, size = (MARKS[scene.kind.name], SIZES[scene.extent]) if scene.kind else (NOTHING, NO_SIZE)
    return {"东西": mark[manner], "大小": size[manner], "背景": GROUNDS[scene.room][manner]}


def _answers(scene: Scene, manner: int) -> tuple[str, str, str, str]:
    mark, size, ground = parts(scene, manner).values()
    return (
        f"背景：{ground}；上面：{mark}，{size}。",
        f"{mark}，{size}；背景：{ground}。",
        f"{mark}，{size}。",
        f"{size}；在{ground}上面；{mark}。",
    )


def phrases() -> list[str]:
    """Every phrase that answers are made of."""
    wordings = [*MARKS.values(), *SIZES, NOTHING, NO_SIZE, *GROUNDS.values()]
    return [*(phrase for manners in wordings for phrase in manners), "背景：", "上面：", *filter(None, MANNERS)]
