"""Where each token of a sample stands: Qwen2.5-VL's M-RoPE (arXiv 2409.12191, section 2.1)."""

from __future__ import annotations

import torch
from torch import Tensor


def mrope_positions(is_image: Tensor, grids: Tensor, merge_size: int) -> Tensor:
    """(3, T): the time, height and width position of each of a sample's T tokens.

    `is_image` (T,) bool marks image tokens, `grids` (N, 3) are the patches of each image along time (1), height and
    width. Text counts up on all three axes; an image starts where the text before it ended, its rows count up in height
    and its columns in width; what follows starts after its longer side. The same as `get_rope_index` of transformers,
    without its walk over every token.
    """
    positions = torch.empty(3, len(is_image), dtype=torch.int64)
    token = position = 0
    image_starts = _run_starts(is_image, grids, merge_size)
    for start, (_, height, width) in zip(image_starts, (grids // merge_size).tolist(), strict=True):
        positions[:, token:start] = torch.arange(position, position + start - token)
        position += start - token
        token = start + height * width
        cells = torch.arange(height * width)
        positions[0, start:token] = position
        positions[1, start:token] = position + cells // width
        positions[2, start:token] = position + cells % width
        position += max(height, width)
    positions[:, token:] = torch.arange(position, position + len(is_image) - token)
    return positions


def _run_starts(is_image: Tensor, grids: Tensor, merge_size: int) -> list[int]:
    """The first token of each image; images may follow each other without a token between them."""
    places = is_image.nonzero().flatten()
    lengths = grids.prod(dim=1) // merge_size**2
    starts: list[int] = places[lengths.cumsum(0) - lengths].tolist()
    return starts
