"""A contact sheet of the drawn kinds: a column a kind (the last without a defect), a row an extent, each twice.

    python scripts/draw_contact_sheet.py docs/drawn_defects.jpg [--seed 0]

Photos are framed in the colour of their level: green 轻微, amber 中等, red 严重.
"""

from __future__ import annotations

import argparse

import numpy as np
from command_line import file_to_write
from drawn_defects.catalogue import KINDS
from drawn_defects.photos import Scene, draw_photo
from drawn_defects.rooms import ROOMS
from drawn_defects.table import Drawing
from PIL import Image, ImageOps

SIDE, FRAME = 112, 4
FRAME_COLOURS = ((70, 150, 80), (230, 165, 40), (200, 50, 45))
TIMES = 2
NUM_EXTENTS = 3


def contact_sheet(seed: int) -> Image.Image:
    """The sheet: `len(KINDS) + 1` columns, six rows."""
    drawing = Drawing(seed)
    cell = SIDE + 2 * FRAME
    sheet = Image.new("RGB", (cell * (len(KINDS) + 1), cell * NUM_EXTENTS * TIMES), "white")
    for column, kind in enumerate((*KINDS, None)):
        for row in range(NUM_EXTENTS * TIMES):
            rng = np.random.default_rng((seed, column, row))
            room = str(rng.choice(kind.rooms if kind else list(ROOMS)))
            scene = Scene(room, kind, row // TIMES)
            photo = draw_photo(scene, (SIDE, SIDE), drawing.tint(row), rng)
            framed = ImageOps.expand(photo, FRAME, FRAME_COLOURS[scene.level])
            sheet.paste(framed, (column * cell, row * cell))
    return sheet


def main() -> None:
    """Write the sheet to the file that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=file_to_write)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    try:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(asked.seed).save(asked.out, quality=88)
    except (OSError, ValueError) as error:  # a seed below 0, a file name that says no picture format
        parser.error(str(error))
    print(asked.out)


if __name__ == "__main__":
    main()
