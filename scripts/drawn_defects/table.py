"""Drawn photos as an inspection firm has them: a CSV in the form that `stage: prepare` takes, photos beside it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from drawn_defects.canvas import Colour
from drawn_defects.photos import Scene, Size, dealt_scene, draw_photo
from drawn_defects.processes import for_each_number
from drawn_defects.seeds import DEMO_SEED
from riskva.files import write_whole

COLUMNS = (
    "image_id", "image_path", "data_风险", "data_纠正和预防建议", "data_风险等级", "data_缺陷描述", "房屋",
)  # fmt: skip

MOST_HOUSES = 800
SHORTEST_SIDE, LONGEST_SIDE = 28, 20_000
JPEG_QUALITIES = (72, 96)
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
class Drawn:
    """A drawn photo: what it shows, the number of its house, its pixels, and the random numbers that come next."""

    scene: Scene
    house: int
    image: Image.Image
    rng: np.random.Generator

    def save(self, path: Path, turned: bool = False) -> None:
        """As a JPEG of any quality; `turned` stores it as phones do, with an EXIF tag that says how to turn it back."""
        quality = int(self.rng.integers(*JPEG_QUALITIES))
        if not turned:
            self.image.save(path, quality=quality)
            return
        orientation = int(self.rng.integers(1, 9))
        stored_as = STORED_AS[orientation]
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = orientation
        stored = self.image if stored_as is None else self.image.transpose(stored_as)
        stored.save(path, quality=quality, exif=exif)


@dataclass(frozen=True)
class Drawing:
    """What to draw: `size` is (width, height) of the upright photos in pixels, `turned` stores them as phones do.

    Every seed has houses of its own: no house of one seed is among another's. Raises `ValueError` for a seed below 0,
    houses outside 1 to 800, sides outside 28 to 20,000 pixels.
    """

    seed: int = DEMO_SEED
    size: Size = (112, 112)
    houses: int = 48
    turned: bool = False

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed {self.seed}: expected 0 or more")
        if not 1 <= self.houses <= MOST_HOUSES:
            raise ValueError(f"{self.houses} houses: expected 1 to {MOST_HOUSES}")
        if not all(SHORTEST_SIDE <= side <= LONGEST_SIDE for side in self.size):
            raise ValueError(f"size {self.size}: expected sides of {SHORTEST_SIDE} to {LONGEST_SIDE} pixels")

    def photo(self, number: int) -> Drawn:
        """The photo of a row; its pixels depend on nothing but the drawing and the row's number."""
        return self.draw(dealt_scene(self.seed, number), np.random.default_rng((self.seed, number)))

    def draw(self, scene: Scene, rng: np.random.Generator) -> Drawn:
        """A photo of `scene` in any of the houses."""
        house = int(rng.integers(self.houses))
        return Drawn(scene, house, draw_photo(scene, self.size, self.tint(house), rng), rng)

    def house_name(self, house: int) -> str:
        """Building, unit and flat; a hundred buildings a seed, eight flats a building."""
        return f"{self.seed * 100 + house // 8 + 1}-{house // 4 % 2 + 1}-{house % 4 + 1}01"

    def tint(self, house: int) -> Colour:
        """What the painter of a house mixed: photos of one house look alike, and it says nothing about defects."""
        red, green, blue = np.random.default_rng((self.seed, 1_000_000_007, house)).integers(-12, 13, 3)
        return int(red), int(green), int(blue)


def draw_table(out: Path, rows: int, drawing: Drawing, workers: int = 1) -> Path:
    """The table `out/metadata.csv` of `rows` drawn photos, with the photos under `out/images`.

    The same drawing gives the same bytes, row by row, whatever the number of rows and of `workers` (processes). The
    table is there only when all photos are. Raises `FileExistsError` where a table stands that was not drawn.
    """
    table = out / "metadata.csv"
    if table.exists() and not _is_drawn(table):
        raise FileExistsError(f"{table} is no table of drawn photos and would be lost; name another folder")
    (out / "images").mkdir(parents=True, exist_ok=True)
    table.unlink(missing_ok=True)
    written = for_each_number(partial(_draw_row, out, drawing), rows, workers, "photos")
    with write_whole(table) as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(written)
    return table


def _is_drawn(table: Path) -> bool:
    with table.open(encoding="utf-8", errors="replace") as stream:
        return stream.readline().strip() == ",".join(COLUMNS) and stream.readline().startswith("photo_")


def _draw_row(out: Path, drawing: Drawing, number: int) -> dict[str, str]:
    drawn = drawing.photo(number)
    image_path = f"images/{number:05d}.jpg"
    drawn.save(out / image_path, drawing.turned)
    scene = drawn.scene
    risk, advice = scene.finding
    return {
        "image_id": f"photo_{drawing.seed}_{number:05d}",
        "image_path": image_path,
        "data_风险": f"{scene.room}{risk}。",
        "data_纠正和预防建议": f"{advice}。",
        "data_风险等级": scene.level.label,
        "data_缺陷描述": scene.description,
        "房屋": drawing.house_name(drawn.house),
    }
