"""What a photo shows behind the defect: the eight rooms, each of its own look, tinted by the house."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from drawn_defects.canvas import Canvas, Colour


@dataclass(frozen=True)
class Room:
    """A room: its name, and what paints it over an empty canvas in the house's tint."""

    name: str
    paint: Callable[[Canvas, Colour], None]


def background(room: Room, size: tuple[int, int], house_tint: Colour, rng: np.random.Generator) -> Canvas:
    """An empty photo of `room`, `size` (width, height) in pixels; what a house looks like is added to every colour."""
    canvas = Canvas(Image.new("RGB", size), rng)
    room.paint(canvas, house_tint)
    return canvas


def _fill(canvas: Canvas, colour: Colour, tint: Colour) -> None:
    canvas.image.paste(shifted(colour, tint), (0, 0, *canvas.image.size))


def shifted(colour: Colour, tint: Colour) -> Colour:
    """`colour` with `tint` added, kept within 0 to 255."""
    red, green, blue = (max(0, min(255, one + by)) for one, by in zip(colour, tint, strict=True))
    return red, green, blue


def _grid(canvas: Canvas, pitch: float, colour: Colour, width: float = 0.012) -> None:
    """Joints of square tiles, `pitch` apart (a share of the unit), begun anywhere."""
    step = pitch * canvas.unit
    x, y = canvas.rng.uniform(0, step, 2)
    while x < canvas.image.width:
        canvas.line([(x, 0), (x, canvas.image.height)], colour, width)
        x += step
    while y < canvas.image.height:
        canvas.line([(0, y), (canvas.image.width, y)], colour, width)
        y += step


def _band(canvas: Canvas, top: float, bottom: float, colour: Colour) -> None:
    """A band across the picture from `top` to `bottom`, shares of the height."""
    canvas.rectangle(0, top * canvas.image.height, canvas.image.width, bottom * canvas.image.height, colour)


def _kitchen(canvas: Canvas, tint: Colour) -> None:
    _fill(canvas, (226, 224, 216), tint)
    _grid(canvas, 0.27, (186, 182, 172))
    edge = canvas.rng.uniform(0.86, 0.9)
    _band(canvas, edge, 1, (72, 62, 58))


def _bathroom(canvas: Canvas, tint: Colour) -> None:
    _fill(canvas, (186, 212, 222), tint)
    _grid(canvas, 0.135, (232, 240, 244), width=0.014)


def _living_room(canvas: Canvas, tint: Colour) -> None:
    _fill(canvas, (230, 214, 182), tint)
    edge = canvas.rng.uniform(0.86, 0.9)
    _band(canvas, edge, 1, (152, 102, 62))
    _band(canvas, edge - 0.025, edge, (244, 240, 230))


def _bedroom(canvas: Canvas, tint: Colour) -> None:
    _fill(canvas, (222, 208, 220), tint)
    step = canvas.unit * 0.16
    x = float(canvas.rng.uniform(-step, 0))
    while x < canvas.image.width:
        canvas.rectangle(x, 0, x + step / 2, canvas.image.height, shifted((208, 188, 208), tint))
        x += step


def _balcony(canvas: Canvas, tint: Colour) -> None:
    _fill(canvas, (192, 150, 122), tint)
    _grid(canvas, 0.36, (142, 108, 88), width=0.018)


def _facade(canvas: Canvas, tint: Colour) -> None:
    _fill(canvas, (206, 192, 160), tint)
    step, shift = canvas.unit * 0.2, False
    y = float(canvas.rng.uniform(-step, 0))
    while y < canvas.image.height:
        canvas.line([(0, y), (canvas.image.width, y)], (170, 156, 126), 0.014)
        for x in np.arange(step if shift else 0, canvas.image.width, 2 * step):
            canvas.line([(float(x), y), (float(x), y + step)], (170, 156, 126), 0.014)
        y, shift = y + step, not shift


def _roof(canvas: Canvas, tint: Colour) -> None:
    _fill(canvas, (104, 108, 114), tint)
    canvas.blend(0.3 * (canvas.noise(40) > 0.6), (84, 88, 94))
    step = canvas.unit * 0.42
    y = float(canvas.rng.uniform(0.05, 0.35)) * canvas.unit
    while y < canvas.image.height:
        canvas.line([(0, y), (canvas.image.width, y)], (70, 74, 80), 0.02)
        y += step


def _stairwell(canvas: Canvas, tint: Colour) -> None:
    _fill(canvas, (222, 226, 218), tint)
    edge = canvas.rng.uniform(0.52, 0.6)
    _band(canvas, edge, 1, shifted((134, 166, 138), tint))
    _band(canvas, edge - 0.012, edge + 0.012, (96, 126, 102))


ROOMS: Mapping[str, Room] = {
    room.name: room
    for room in (
        Room("厨房", _kitchen),
        Room("卫生间", _bathroom),
        Room("客厅", _living_room),
        Room("卧室", _bedroom),
        Room("阳台", _balcony),
        Room("外墙", _facade),
        Room("屋面", _roof),
        Room("楼梯间", _stairwell),
    )
}
