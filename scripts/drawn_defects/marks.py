"""How defects look: one function a kind, `draw(canvas, extent)`, with extent 0 (small), 1 or 2 (large).

An extent shows in size or in number, at steps of about two, so that a person can tell the three apart.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from drawn_defects.canvas import Canvas, Colour, Point, soft
from drawn_defects.things import bricks, railing, seal, socket, tile, window

MORTAR: Colour = (128, 124, 118)
DARK: Colour = (40, 36, 34)


def _crack_arm(canvas: Canvas, start: Point, heading: float, steps: int, width: float) -> None:
    """A line that wanders and thins out."""
    (x, y), length = start, canvas.unit * 0.055
    for step in range(steps):
        heading += canvas.rng.normal(0, 0.4)
        end = (x + float(np.cos(heading)) * length, y + float(np.sin(heading)) * length)
        canvas.line([(x, y), end], DARK, width * (1 - 0.6 * step / steps))
        x, y = end


def crack(canvas: Canvas, extent: int) -> None:
    """A dark wandering line; longer, wider and branching with the extent."""
    start, heading = canvas.spot(0.38), float(canvas.rng.uniform(0, 2 * np.pi))
    steps, width = (4, 8, 9)[extent], (0.016, 0.02, 0.036)[extent]
    for turn in (0.0, np.pi):  # it runs both ways from where it began
        _crack_arm(canvas, start, heading + turn, steps, width)
    for _ in range((0, 0, 4)[extent]):
        _crack_arm(canvas, start, float(canvas.rng.uniform(0, 2 * np.pi)), 7, width * 0.6)


def hollow(canvas: Canvas, extent: int) -> None:
    """A chalk ring around plaster that sounds hollow, hairlines inside it."""
    radius = (0.1, 0.19, 0.32)[extent]
    x, y = canvas.spot(0.4)
    chalk: Colour = ((38, 78, 190), (196, 40, 60))[canvas.rng.integers(2)]
    angles = np.linspace(0, 2 * np.pi, 40)
    wobble = radius * canvas.unit * (1 + 0.06 * np.sin(3 * angles + canvas.rng.uniform(0, 6)))
    ring = [(x + float(r * np.cos(a)), y + float(r * np.sin(a))) for r, a in zip(wobble, angles, strict=True)]
    canvas.line(ring, chalk, 0.022)
    for _ in range(2 + extent):
        heading = float(canvas.rng.uniform(0, 2 * np.pi))
        reach = radius * canvas.unit * 0.75
        end = (x + float(np.cos(heading)) * reach, y + float(np.sin(heading)) * reach)
        canvas.line([(x, y), end], (120, 116, 110), 0.006)


def see_through(canvas: Canvas, extent: int) -> None:
    """Strips as wide as a roller where the grey of the ground shows through the paint."""
    pitch, slant = canvas.unit * 0.115, canvas.unit * float(canvas.rng.uniform(-0.03, 0.03))
    number = (1, 3, 6)[extent]
    x = float(canvas.rng.uniform(0.08, 0.9 - 0.115 * number)) * canvas.image.width
    top, bottom = canvas.rng.uniform(0.05, 0.15), canvas.rng.uniform(0.75, 0.9)
    strips = Image.new("L", canvas.image.size)
    y0, y1 = top * canvas.image.height, bottom * canvas.image.height
    for strip in range(number):
        left, right = x + strip * pitch, x + (strip + 0.72) * pitch
        ImageDraw.Draw(strips).polygon([(left, y0), (right, y0), (right + slant, y1), (left + slant, y1)], fill=255)
    mask = np.asarray(strips, dtype=np.float32) / 255
    canvas.blend(mask * (0.45 + 0.35 * canvas.noise(12)), (132, 136, 142))


def peeling(canvas: Canvas, extent: int) -> None:
    """Flakes of paint that curl off: a lit edge, the ground behind them."""
    x0, y0 = canvas.spot(0.4)
    spread = canvas.unit * (0.07, 0.15, 0.24)[extent]
    for _ in range((4, 10, 24)[extent]):
        x, y = canvas.rng.normal((x0, y0), spread)
        radius = float(canvas.rng.uniform(0.045, 0.065))
        lift = 0.016 * canvas.unit
        canvas.polygon((x - lift, y - lift), radius, (255, 255, 252), corners=7)
        canvas.polygon((x, y), radius * 0.85, (122, 116, 108), corners=7)


def mould(canvas: Canvas, extent: int) -> None:
    """Greenish black dots in a cluster; more and wider with the extent."""
    centre = canvas.spot(0.36)
    spread = canvas.unit * (0.05, 0.1, 0.19)[extent]
    for _ in range((35, 120, 380)[extent]):
        x, y = canvas.rng.normal(centre, spread)
        shade = int(canvas.rng.integers(24, 66))
        radius = float(canvas.rng.uniform(0.004, 0.012))
        canvas.ellipse((x, y), radius, radius, (shade, shade + 16, shade - 6))


def damp(canvas: Canvas, extent: int) -> None:
    """A brownish stain with the dark rim that drying water leaves."""
    depth = canvas.blob(canvas.spot(0.4), (0.11, 0.2, 0.34)[extent])
    mask = soft(depth)
    canvas.blend(mask * 0.42, (158, 124, 70))
    rim = mask * (depth < 0.035)
    canvas.blend(rim * 0.75, (100, 72, 36))


def efflorescence(canvas: Canvas, extent: int) -> None:
    """White salt: a grainy cloud that is brightest inside."""
    depth = canvas.blob(canvas.spot(0.4), (0.12, 0.21, 0.36)[extent], roughness=0.8)
    canvas.blend(soft(depth, edge=0.1) * (0.35 + 0.75 * (canvas.noise(48) > 0.45)), (254, 254, 255))


def missing_corner(canvas: Canvas, extent: int) -> None:
    """A tile whose corner has broken off: a straight-edged dark notch."""
    (x, y), (across, down) = tile(canvas)
    reach = canvas.unit * (0.11, 0.2, 0.32)[extent]
    bite = float(canvas.rng.uniform(0.8, 1.1))
    inner = (x + across * reach * 0.45, y + down * reach * 0.5)
    canvas.pen.polygon([(x, y), (x + across * reach, y), inner, (x, y + down * reach * bite)], fill=(70, 62, 56))


def puddle(canvas: Canvas, extent: int) -> None:
    """Standing water: a flat, dark ellipse with a bright reflection."""
    x, y = canvas.spot(0.42)
    wide, high = (0.13, 0.25, 0.42)[extent], (0.055, 0.105, 0.18)[extent]
    canvas.ellipse((x, y), wide, high, (58, 76, 96))
    canvas.ellipse((x, y - 0.1 * high * canvas.unit), wide * 0.86, high * 0.8, (92, 122, 154))
    canvas.ellipse(
        (x - wide * 0.35 * canvas.unit, y - 0.3 * high * canvas.unit), wide * 0.25, high * 0.2, (236, 244, 250)
    )


def exposed_bars(canvas: Canvas, extent: int) -> None:
    """Rusty bars in a spall, rust running down from them; one, two or four bars."""
    number = (1, 2, 4)[extent]
    x, y = canvas.spot(0.42)
    gap, length = canvas.unit * 0.13, canvas.unit * (0.2, 0.26, 0.34)[extent]
    depth = canvas.blob((x, y), 0.16 + 0.055 * number, roughness=0.3)
    canvas.blend(soft(depth), (104, 98, 90))
    for bar in range(number):
        height = y + (bar - (number - 1) / 2) * gap
        canvas.line([(x - length, height), (x + length, height)], (164, 76, 24), 0.032)
        for drop in canvas.rng.uniform(-0.9, 0.9, 4):
            start = x + float(drop) * length
            canvas.line([(start, height), (start, height + canvas.unit * 0.06)], (196, 104, 40), 0.012)


def missing_seal(canvas: Canvas, extent: int) -> None:
    """A white joint of sealant that is gone for a fifth, half or nearly all of its length."""
    seal(canvas, missing=(0.2, 0.5, 0.92)[extent])


def broken_glass(canvas: Canvas, extent: int) -> None:
    """A window pane with a star of cracks, and with holes in it at the larger extents."""
    left, top, right, bottom = window(canvas)
    x = float(canvas.rng.uniform(0.42, 0.58)) * (right - left) + left
    y = float(canvas.rng.uniform(0.42, 0.58)) * (bottom - top) + top
    reach = (right - left) * (0.2, 0.36, 0.46)[extent]
    turn = float(canvas.rng.uniform(0, 1))
    for heading in np.linspace(0, 2 * np.pi, (5, 8, 11)[extent], endpoint=False) + turn:
        far = reach * float(canvas.rng.uniform(0.75, 1))
        canvas.line(
            [(x, y), (x + float(np.cos(heading)) * far, y + float(np.sin(heading)) * far)], (250, 252, 255), 0.012
        )
    if extent:
        canvas.polygon((x, y), (0, 0.055, 0.15)[extent], (24, 26, 30), corners=9)


def sanding(canvas: Canvas, extent: int) -> None:
    """Loose sand on a floor that wears off: yellow and brown grains in a patch."""
    centre, radius = canvas.spot(0.4), (0.14, 0.24, 0.42)[extent]
    canvas.blend(soft(canvas.blob(centre, radius, roughness=0.4), edge=0.08) * 0.55, (216, 186, 120))
    for _ in range((60, 170, 460)[extent]):
        reach, heading = radius * float(canvas.rng.uniform(0, 1)) ** 0.5, float(canvas.rng.uniform(0, 2 * np.pi))
        x = centre[0] + reach * canvas.unit * float(np.cos(heading))
        y = centre[1] + reach * canvas.unit * float(np.sin(heading))
        colour: Colour = ((120, 88, 44), (246, 226, 170))[canvas.rng.integers(2)]
        canvas.ellipse((x, y), 0.007, 0.007, colour)


def wide_bars(canvas: Canvas, extent: int) -> None:
    """A railing in which bars stand too far apart: one bar missing, three, or all but the outer ones."""
    railing(canvas, missing=(1, 3, 6)[extent])


def missing_plate(canvas: Canvas, extent: int) -> None:
    """Open socket boxes with coloured wires: one, two or three of three."""
    socket(canvas, num_open=1 + extent)


def missing_bricks(canvas: Canvas, extent: int) -> None:
    """Small facing bricks, some fallen off: dark mortar where they were."""
    bricks(canvas, gone=canvas.blob(canvas.spot(0.42), (0.12, 0.22, 0.36)[extent], roughness=0.3))


def blisters(canvas: Canvas, extent: int) -> None:
    """Bubbles under roofing felt: round, lit from above, shaded below; one, three or eight."""
    for x, y in _scattered(canvas, (1, 3, 8)[extent]):
        radius = float(canvas.rng.uniform(0.08, 0.1))
        canvas.ellipse((x, y + 0.02 * canvas.unit), radius * 1.15, radius, (44, 46, 50))
        canvas.ellipse((x, y), radius * 1.1, radius * 0.9, (132, 138, 144))
        light = (x - 0.3 * radius * canvas.unit, y - 0.35 * radius * canvas.unit)
        canvas.ellipse(light, radius * 0.45, radius * 0.3, (206, 212, 218))


def _scattered(canvas: Canvas, number: int) -> list[Point]:
    """`number` points that keep apart: one in each of as many cells of a 3 x 3 grid."""
    cells = canvas.rng.permutation(9)[:number]
    return [
        (
            (0.2 + 0.3 * (cell % 3) + float(canvas.rng.uniform(-0.04, 0.04))) * canvas.image.width,
            (0.2 + 0.3 * (cell // 3) + float(canvas.rng.uniform(-0.04, 0.04))) * canvas.image.height,
        )
        for cell in cells
    ]
