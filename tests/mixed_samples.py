"""Samples of every kind, for one micro-batch: text alone, one photo, several photos, several turns."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from user_rows import drawn_photo

from riskva.data.conversation import Conversation, Message
from riskva.encoding import Encoded
from riskva.recipe import SftRecipe

PHOTO_SIZES = ((112, 84), (200, 131), (57, 170), (84, 84), (300, 60), (140, 113))
"""Odd ones, so that grids have a narrow window at their end or are one token high."""

TUNINGS = {
    "lora": {"lora_rank": 4},
    "full": {"finetuning_type": "full"},
    "full with tower": {
        "finetuning_type": "full",
        "freeze_vision_tower": False,
        "freeze_multi_modal_projector": False,
    },
}
"""Recipe keys by what trains."""


def recipe(**keys: object) -> SftRecipe:
    """A recipe of which only `keys` matter."""
    return SftRecipe(stage="sft", model_name_or_path="m", output_dir=Path("o"), dataset=("d",), **keys)  # type: ignore[arg-type]


def mixed_conversations() -> list[Conversation]:
    """Seven samples with 0, 1, 3, 0, 2, 0 and 0 photos; the last two are of one length."""
    photos = [drawn_photo(number, *size) for number, size in enumerate(PHOTO_SIZES)]
    return [
        _sample("0", ("什么是空鼓？", "抹灰层与基层脱开，敲击有空响。"), []),
        _sample("1", ("<image>看图", "墙面裂缝，宜尽快修补，并观察是否继续发展。"), photos[:1]),
        _sample("2", ("<image><image>比较，再看<image>", "第二张更重。"), photos[1:4]),
        _sample("3", ("渗水怎么办？", "先找水源。", "然后呢？", "做防水，再修饰面。"), []),
        _sample("4", ("<image>一", "渗水", "再看<image>", "窗框渗水，地面起砂"), photos[4:]),
        _sample("5", ("裂缝多长？", "裂缝长12厘米。"), []),
        _sample("6", ("裂缝多长？", "裂缝长37厘米。"), []),
    ]


def with_features(
    rows: Sequence[Encoded], features: Mapping[str, Tensor], is_kept: Mapping[str, bool]
) -> list[Encoded]:
    """The rows as a cache gives them that holds some of the photos' `features`, which are in the photos' order."""
    numbers = iter(features)
    cached = []
    for row in rows:
        keys = tuple(next(numbers) for _ in row.image_grid_thw)
        parts = row.pixel_values.split(row.image_grid_thw.prod(dim=1).tolist())
        unseen = [part for key, part in zip(keys, parts, strict=True) if not is_kept[key]]
        found = tuple(features[key] if is_kept[key] else None for key in keys)
        values = torch.cat([row.pixel_values[:0], *unseen])
        cached.append(dataclasses.replace(row, pixel_values=values, photo_features=found, photo_keys=keys))
    return cached


def _sample(name: str, texts: Sequence[str], photos: Sequence[object]) -> Conversation:
    roles = ("user", "assistant") * (len(texts) // 2)
    turns = tuple(Message(role, text) for role, text in zip(roles, texts, strict=True))  # type: ignore[arg-type]
    return Conversation(name, turns, tuple(photos))  # type: ignore[arg-type]
