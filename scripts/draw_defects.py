"""Drawn photos of building defects with a table in the form that `stage: prepare` takes; for tests and the demo.

    python scripts/draw_defects.py OUT [--rows 300] [--seed 0] [--size 112] [--houses 48]
    python scripts/draw_defects.py OUT --rows 20 --size 4000x3000 --turned     # large, under any EXIF orientation

Writes OUT/metadata.csv and OUT/images/. The rule behind the levels stands in drawn_defects/catalogue.py. No file name,
tag or size in pixels tells a label; exposure, blur, noise, JPEG quality, tape and paint vary and mean nothing.
"""

from __future__ import annotations

import argparse

from command_line import count, folder_to_write, size
from drawn_defects.table import Drawing, draw_table

from riskva.data.parallel import num_cores


def main() -> None:
    """Draw the photos that the command line asks for."""
    drawing = Drawing()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=folder_to_write, help="the folder to write")
    parser.add_argument("--rows", type=count, default=300)
    parser.add_argument("--seed", type=int, default=drawing.seed, help="other seeds draw other photos of other houses")
    parser.add_argument("--size", type=size, default=drawing.size, help="pixels: 112 or 4000x3000")
    parser.add_argument("--houses", type=count, default=drawing.houses)
    parser.add_argument(
        "--turned", action="store_true", help="store photos turned or mirrored, with the EXIF tag that says so"
    )
    parser.add_argument("--workers", type=count, default=num_cores(), help="processes")
    asked = parser.parse_args()
    try:
        drawing = Drawing(asked.seed, asked.size, asked.houses, asked.turned)
    except ValueError as error:
        parser.error(str(error))
    try:
        print(draw_table(asked.out, asked.rows, drawing, asked.workers))
    except OSError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
