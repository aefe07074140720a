"""How many tokens a photo takes, by arithmetic alone: importing transformers for it would take prepare seconds.

The rule is Qwen2-VL's, as transformers' `smart_resize` has it; the tests hold this against that.
"""

from __future__ import annotations

import math

from riskva.data.images import MAX_ASPECT_RATIO

PIXELS_PER_TOKEN_SIDE = 28
"""A patch is 14 pixels wide and high, and two by two patches become one token."""


def num_image_tokens(size: tuple[int, int], min_pixels: int, max_pixels: int) -> int:
    """Tokens that a photo of `size` (width, height) becomes within these limits.

    Raises `ValueError` for one that transformers refuses: a side is over 200 times the other.
    """
    if max(size) > MAX_ASPECT_RATIO * min(size):
        raise ValueError(f"{size[0]} x {size[1]} px: one side is over {MAX_ASPECT_RATIO} times the other")
    width, height = (round(side / PIXELS_PER_TOKEN_SIDE) for side in size)
    pixels = width * height * PIXELS_PER_TOKEN_SIDE**2
    if pixels > max_pixels:
        scale = math.sqrt(size[0] * size[1] / max_pixels)
        width, height = (max(1, math.floor(side / scale / PIXELS_PER_TOKEN_SIDE)) for side in size)
    elif pixels < min_pixels:
        scale = math.sqrt(min_pixels / (size[0] * size[1]))
        width, height = (math.ceil(side * scale / PIXELS_PER_TOKEN_SIDE) for side in size)
    return width * height
