"""Models and rows that training is measured on: files for `bench_train.py`, tensors for `bench_gpu.py`."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from make_tiny_model import build_tiny_model, mrope_section
from PIL import Image
from torch import Tensor
from transformers import Qwen2_5_VLConfig

from riskva.data.registry import prepared_entry
from riskva.encoding import IGNORED, Encoded
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport, default_question

WORDS = (
    *("墙面裂缝", "窗框渗水", "地面起砂", "抹灰空鼓", "饰面砖脱落", "插座无接地", "顶棚霉斑", "栏杆松动"),
    *("宽约两毫米", "建议尽快修补", "需进一步检测"),
)
SYSTEM = "You are a helpful assistant."


@dataclass(frozen=True)
class Size:
    """A model in a folder, and the rows that it is trained on."""

    model: dict[str, Any]
    """Arguments of `build_tiny_model`."""
    photo_sides: tuple[int, ...]
    """Pixels; each photo's width and height are drawn from them."""
    words: tuple[int, int]
    """The fewest and the most words of each of an answer's texts."""


SMALL = Size(
    {
        "hidden_size": 448,
        "intermediate_size": 2368,
        "num_hidden_layers": 9,
        "num_attention_heads": 7,
        "num_key_value_heads": 1,
        "vision_hidden_size": 160,
        "vision_depth": 10,
        "vision_num_heads": 2,
        "vision_intermediate_size": 428,
        "full_attention_blocks": (4, 9),
        "window_size": 112,
        "embedding_rows": 43_520,
        "initializer_range": 0.02,
        "head_range": 0.06,
    },
    photo_sides=(420, 448, 476, 504, 532, 560),
    words=(2, 13),
)
"""75.8 M weights: an eighth of the 7B's width, and its proportions. Its rows have about 518 tokens, 150 supervised."""

TINY = Size({}, photo_sides=(84, 112), words=(1, 4))
"""For a look at whether all runs."""


def write_model(folder: Path, size: Size) -> Path:
    """The model with its tokenizer and processor files, in float32."""
    return build_tiny_model(folder, **size.model)


def write_rows(folder: Path, size: Size, num_rows: int) -> Path:
    """A prepared data set called `rows`: noise photos as JPEG, reports of varying length."""
    folder.mkdir(parents=True)
    draw = random.Random(0)
    table = pa.Table.from_pylist([_row(number, size, draw) for number in range(num_rows)])
    pq.write_table(table, folder / "rows.parquet")
    (folder / "dataset_info.json").write_text(json.dumps({"rows": prepared_entry("rows.parquet", "images")}))
    return folder


def _row(number: int, size: Size, draw: random.Random) -> dict[str, Any]:
    texts = {label: "，".join(draw.choices(WORDS, k=draw.randint(*size.words))) for label in DEFAULT_FORMAT.text_labels}
    answer = DEFAULT_FORMAT.render(RiskReport(RiskLevel(number % 3), texts))
    turns = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "<image>" + default_question(DEFAULT_FORMAT)},
        {"role": "assistant", "content": answer},
    ]
    photo = noise_jpeg(number, draw.choice(size.photo_sides), draw.choice(size.photo_sides))
    return {"id": str(number), "messages": turns, "images": [{"bytes": photo, "path": f"{number}.jpg"}]}


def noise_jpeg(seed: int, width: int, height: int) -> bytes:
    """A photo of coarse and fine noise, whose file is about as large as a photograph's."""
    drawn = np.random.default_rng(seed)
    coarse = Image.fromarray(drawn.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = smooth + drawn.integers(-12, 13, (height, width, 1), dtype=np.int16)
    stream = BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def tiny_config() -> Qwen2_5_VLConfig:
    """A config for `sample` with next to no weights; windows of 4 x 4 patches."""
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 512,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_window_layers": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": mrope_section(16)},
            "bos_token_id": 1,
            "eos_token_id": 1,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "out_hidden_size": 64,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        image_token_id=5,
    )


def collator_tokens(config: Any) -> Any:
    """What the collators need of a processor, for a model without one."""
    merge = config.vision_config.spatial_merge_size
    return SimpleNamespace(
        pad_token_id=0, image_token_id=config.image_token_id, image_processor=SimpleNamespace(merge_size=merge)
    )


def sample(
    config: Any,
    grid: tuple[int, int, int],
    *,
    num_text: int,
    num_supervised: int,
    seed: int,
    features: Tensor | None = None,
) -> Encoded:
    """Random tokens around a photo of random patches; with `features` (tokens, H), these in place of the patches.

    `num_text` counts all tokens but the photo's; the last `num_supervised` of them are the answer.
    """
    draw = torch.Generator().manual_seed(seed)
    num_image = grid[1] * grid[2] // config.vision_config.spatial_merge_size**2
    words = range(10, min(config.text_config.vocab_size, 150_000))  # special tokens come before or after them
    text = torch.randint(words.start, words.stop, (num_text,), generator=draw)
    ids = torch.cat([text[:4], torch.full((num_image,), config.image_token_id), text[4:]])
    labels = torch.where(torch.arange(len(ids)) >= len(ids) - num_supervised, ids, IGNORED)
    pixels = (
        _patches(config, grid[1] * grid[2], seed % 4) if features is None else torch.empty(0, _patch_values(config))
    )
    kept: dict[str, Any] = {} if features is None else {"photo_features": (features,), "photo_keys": (str(seed),)}
    return Encoded(str(seed), ids, labels, pixels, torch.tensor([grid]), **kept)


def _patch_values(config: Any) -> int:
    vision = config.vision_config
    return int(vision.in_channels * vision.temporal_patch_size * vision.patch_size**2)


@cache
def _drawn(num_patches: int, num_values: int, seed: int) -> Tensor:
    return torch.randn(num_patches, num_values, generator=torch.Generator().manual_seed(seed))


def _patches(config: Any, number: int, seed: int) -> Tensor:
    return _drawn(number, _patch_values(config), seed)


def lengths_of(samples: Sequence[Encoded]) -> list[int]:
    """Tokens of each sample."""
    return [len(one.input_ids) for one in samples]
