"""Things that photos show, whole or damaged: a window, sockets, a railing, a sealed joint, bricks, a tile.

Photos without a defect show them whole, so that a thing in the picture is no sign of a defect.
"""

from __future__ import annotations

from collections.abc import Callable

from drawn_defects.canvas import Canvas, Colour, Mask, Point

NUM_SOCKETS = 3
NUM_BARS = 9

Box = tuple[float, float, float, float]


def window(canvas: Canvas) -> Box:
    """A window with a white frame; returns its pane (left, top, right, bottom) in pixels."""
    half = canvas.unit * float(canvas.rng.uniform(0.3, 0.36))
    x, y = canvas.spot(0.46)
    frame = canvas.unit * 0.035
    glass: Colour = (112, int(canvas.rng.integers(150, 170)), int(canvas.rng.integers(182, 204)))
    canvas.rectangle(x - half, y - half, x + half, y + half, (246, 246, 244))
    pane = (x - half + frame, y - half + frame, x + half - frame, y + half - frame)
    canvas.rectangle(*pane, glass)
    canvas.line([(x - half * 0.75, y + half * 0.1), (x - half * 0.2, y - half * 0.7)], (164, 196, 214), 0.02)
    return pane


def socket(canvas: Canvas, num_open: int = 0) -> None:
    """Three socket plates side by side; `num_open` of them are off, and show the box and its wires."""
    side, gap = canvas.unit * 0.21, canvas.unit * 0.04
    x = canvas.image.width / 2 - 1.5 * side - gap + canvas.unit * float(canvas.rng.uniform(-0.06, 0.06))
    y = canvas.unit * float(canvas.rng.uniform(0.25, 0.5))
    is_open = canvas.rng.permutation(NUM_SOCKETS) < num_open
    for place in range(NUM_SOCKETS):
        left = x + place * (side + gap)
        if is_open[place]:
            _open_box(canvas, left, y, side)
        else:
            canvas.rectangle(left, y, left + side, y + side, (150, 150, 148))
            edge = canvas.unit * 0.01
            canvas.rectangle(left + edge, y + edge, left + side - edge, y + side - edge, (250, 250, 248))
            for slot in (0.35, 0.65):
                canvas.line(
                    [(left + slot * side, y + 0.4 * side), (left + slot * side, y + 0.6 * side)], (90, 90, 90), 0.012
                )


def _open_box(canvas: Canvas, left: float, top: float, side: float) -> None:
    canvas.rectangle(left, top, left + side, top + side, (22, 22, 24))
    wires: tuple[Colour, ...] = ((206, 44, 40), (46, 86, 200), (232, 200, 50))
    for place, colour in enumerate(wires):
        x = left + side * (0.25 + 0.25 * place)
        canvas.line([(x, top + side * 0.1), (x + side * 0.08, top + side * 0.55), (x, top + side * 0.9)], colour, 0.018)


def railing(canvas: Canvas, missing: int = 0) -> None:
    """Nine upright bars between two rails; `missing` neighbouring ones are left out."""
    steel: Colour = (52, 56, 64)
    top, bottom = 0.18 * canvas.image.height, 0.86 * canvas.image.height
    pitch = 0.86 * canvas.image.width / (NUM_BARS - 1)
    left = 0.07 * canvas.image.width + canvas.unit * float(canvas.rng.uniform(-0.03, 0.03))
    first = 1 + int(canvas.rng.integers(NUM_BARS - 1 - missing))
    canvas.line([(0, top), (canvas.image.width, top)], steel, 0.04)
    canvas.line([(0, bottom), (canvas.image.width, bottom)], steel, 0.03)
    for bar in range(NUM_BARS):
        if not first <= bar < first + missing:
            x = left + bar * pitch
            canvas.line([(x, top), (x, bottom)], steel, 0.024)


def seal(canvas: Canvas, missing: float = 0.0) -> None:
    """A white bead of sealant along a dark joint; the share `missing` of it is gone, in one piece."""
    y = float(canvas.rng.uniform(0.35, 0.65)) * canvas.image.height
    slope = float(canvas.rng.uniform(-0.05, 0.05)) * canvas.image.height
    width, start = canvas.image.width, float(canvas.rng.uniform(0, 1 - missing))

    def along(share: float) -> tuple[float, float]:
        return share * width, y + slope * (share - 0.5)

    canvas.line([along(0), along(1)], (150, 150, 146), 0.075)
    canvas.line([along(0), along(1)], (252, 252, 250), 0.055)
    if missing:
        canvas.line([along(start), along(start + missing)], (18, 16, 16), 0.065)


def bricks(canvas: Canvas, gone: Mask | None = None) -> None:
    """A wall of small facing bricks; where `gone` (height, width) is above 0 there is dark mortar in place of one."""
    rows, columns = 9, 6
    x0, y0 = 0.08 * canvas.image.width, 0.08 * canvas.image.height
    wide, high = 0.84 * canvas.image.width / columns, 0.84 * canvas.image.height / rows
    brick: Colour = ((164, 72, 52), (178, 92, 60))[canvas.rng.integers(2)]
    joint = canvas.unit * 0.012
    canvas.rectangle(x0, y0, x0 + wide * columns, y0 + high * rows, (206, 196, 184))
    for row in range(rows):
        for column in range(columns):
            left, top = x0 + column * wide, y0 + row * high
            is_gone = gone is not None and gone[int(top + high / 2), int(left + wide / 2)] > 0
            colour = (84, 80, 78) if is_gone else brick
            canvas.rectangle(left + joint, top + joint, left + wide - joint, top + high - joint, colour)


def tile(canvas: Canvas) -> tuple[Point, Point]:
    """A white tile; returns one of its corners, and the way from there to the opposite one (1 or -1 for x and y)."""
    x, y = canvas.spot(0.3)
    side = canvas.unit * 0.36
    across, down = (1, -1)[canvas.rng.integers(2)], (1, -1)[canvas.rng.integers(2)]
    outline = [(x, y), (x + across * side, y), (x + across * side, y + down * side), (x, y + down * side)]
    canvas.pen.polygon(outline, fill=(240, 238, 232))
    canvas.line([*outline, outline[0]], (110, 106, 100), 0.014)
    return (x, y), (across, down)


WHOLE_THINGS: tuple[Callable[[Canvas], object], ...] = (window, socket, railing, seal, bricks, tile)
