"""Drawn photos as an inspection firm has them: a CSV in the form that `stage: prepare` takes, photos beside it."""

from __future__ import annotations

import csv
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from drawn_defects.canvas import Colour
from drawn_defects.photos import Scene, Size, draw_photo, random_scene
from riskva.console import progress

COLUMNS = (
    "image_id", "image_path", "data_风险", "data_纠正和预防建议", "data_风险等级", "data_缺陷描述", "房屋",
)  # fmt: skip

ORIENTATION_TAG = 0x0112
# How a camera stores an upright photo under each EXIF orientation: what turns it back, inverted
STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class Drawing:
    """What to draw: `size` is (width, height) of the upright photos, `turned` stores them as phones do, with EXIF.

    Every seed has houses of its own: no house of one seed is among another's.
    """

    seed: int = 0
    size: Size = (112, 112)
    houses: int = 48
    turned: bool = False

    def row(self, number: int) -> tuple[Scene, int, np.random.Generator]:
        """The scene of a row, the number of its house, and the random numbers that its photo is drawn with."""
        rng = np.random.default_rng((self.seed, number))
        return random_scene(rng), int(rng.integers(self.houses)), rng

    def house_name(self, house: int) -> str:
        """Building, unit and flat; a hundred buildings a seed, eight flats a building."""
        return f"{self.seed * 100 + house // 8 + 1}-{house // 4 % 2 + 1}-{house % 4 + 1}01"

    def tint(self, house: int) -> Colour:
        """What the painter of a house mixed: photos of one house look alike, and it says nothing about defects."""
        red, green, blue = np.random.default_rng((self.seed, 1_000_000_007, house)).integers(-12, 13, 3)
        return int(red), int(green), int(blue)


def draw_table(out: Path, rows: int, drawing: Drawing, workers: int = 1) -> Path:
    """The table `out/metadata.csv` of `rows` drawn photos, with the photos under `out/images`.

    The same drawing gives the same bytes, row by row, whatever the number of rows and of `workers` (processes).
    """
    (out / "images").mkdir(parents=True, exist_ok=True)
    draw = partial(_draw_row, out, drawing)
    if workers == 1:
        written = list(progress(map(draw, range(rows)), rows, "photos"))
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            written = list(progress(pool.map(draw, range(rows), chunksize=16), rows, "photos"))
    table = out / "metadata.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(written)
    return table


def _draw_row(out: Path, drawing: Drawing, number: int) -> dict[str, str]:
    scene, house, rng = drawing.row(number)
    photo = draw_photo(scene, drawing.size, drawing.tint(house), rng)
    image_path = f"images/{number:05d}.jpg"
    _save(photo, out / image_path, drawing.turned, rng)
    risk, advice = scene.finding
    return {
        "image_id": f"photo_{drawing.seed}_{number:05d}",
        "image_path": image_path,
        "data_风险": f"{scene.room}{risk}。",
        "data_纠正和预防建议": f"{advice}。",
        "data_风险等级": scene.level.label,
        "data_缺陷描述": scene.description,
        "房屋": drawing.house_name(house),
    }


def _save(photo: Image.Image, path: Path, turned: bool, rng: np.random.Generator) -> None:
    quality = int(rng.integers(72, 96))
    if not turned:
        photo.save(path, quality=quality)
        return
    orientation = int(rng.integers(1, 9))
    stored_as = STORED_AS[orientation]
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    (photo if stored_as is None else photo.transpose(stored_as)).save(path, quality=quality, exif=exif)
