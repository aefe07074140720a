"""M-RoPE positions against transformers' own, and by hand where transformers' own fails."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from riskva.encoding.positions import mrope_positions

MERGE = 2


@pytest.fixture(scope="module")
def theirs(tiny_model: Path) -> Any:
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model).model


def layout(random: np.random.Generator, num_images: int) -> tuple[Tensor, Tensor]:
    """(T,) which tokens are an image's, and the grids: text of 0 to 9 tokens around images of 1 to 12 cells a side."""
    sides = random.integers(1, 13, (num_images, 2))
    parts = [torch.zeros(int(random.integers(0, 10)), dtype=torch.bool)]
    for height, width in sides.tolist():
        parts.append(torch.ones(height * width, dtype=torch.bool))
        parts.append(torch.zeros(int(random.integers(1, 10)), dtype=torch.bool))
    grids = torch.tensor([(1, MERGE * height, MERGE * width) for height, width in sides.tolist()], dtype=torch.int64)
    return torch.cat(parts), grids.reshape(-1, 3)


@pytest.mark.parametrize("seed", range(100))
def test_positions_are_those_of_transformers(seed: int, theirs: Any) -> None:
    random = np.random.default_rng(seed)
    is_image, grids = layout(random, num_images=int(random.integers(0, 6)))
    if not len(is_image):
        is_image = torch.zeros(1, dtype=torch.bool)
    ids = torch.zeros(1, len(is_image), dtype=torch.int64)
    expected, _ = theirs.get_rope_index(ids, is_image[None].int(), image_grid_thw=grids)
    assert torch.equal(mrope_positions(is_image, grids, MERGE), expected[:, 0])


def test_images_without_a_token_between_them() -> None:
    """transformers takes their tokens for one image. By the rule: the second starts after the first's longer side."""
    is_image = torch.tensor([False, True, True, True, True, True, False])
    found = mrope_positions(is_image, torch.tensor([[1, 2, 6], [1, 4, 2]]), MERGE)  # 1 x 3 cells, then 2 x 1
    assert found.tolist() == [
        [0, 1, 1, 1, 4, 4, 6],
        [0, 1, 1, 1, 4, 5, 6],
        [0, 1, 2, 3, 4, 4, 6],
    ]


def test_text_alone_counts_up() -> None:
    found = mrope_positions(torch.zeros(5, dtype=torch.bool), torch.empty(0, 3, dtype=torch.int64), MERGE)
    assert found.tolist() == [[0, 1, 2, 3, 4]] * 3
