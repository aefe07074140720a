"""Drawn photos of mixed sizes, for what is measured or tried on prompts of different lengths."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from drawn_defects.table import Drawing

SEED = 77
"""Of photos that no demo model was trained on."""


def draw_mixed_photos(folder: Path, number: int, sides: Sequence[int]) -> list[Path]:
    """`number` photos in `folder`, their widths and heights in pixels taken from `sides` at random; always the same."""
    folder.mkdir(parents=True, exist_ok=True)
    draw, paths = random.Random(SEED), []
    for one in range(number):
        drawn = Drawing(SEED, (draw.choice(sides), draw.choice(sides))).photo(one)
        paths.append(folder / f"{one:05d}.jpg")
        drawn.save(paths[-1])
    return paths
