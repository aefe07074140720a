"""A photo in the making: its pixels, its pen, and the shapes that several marks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
Mask = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Canvas:
    """The picture that a photo is drawn on, and the random numbers that it is drawn with.

    Places are shares of the width and the height, sizes are shares of `unit`, the shorter side in pixels: the same
    random numbers draw much the same photo at every size.
    """

    image: Image.Image
    rng: np.random.Generator

    @property
    def unit(self) -> int:
        return min(self.image.size)

    @property
    def pen(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.image)

    def spot(self, margin: float = 0.2) -> Point:
        """A random point in pixels, at least the share `margin` away from every edge."""
        x, y = self.rng.uniform(margin, 1 - margin, 2)
        return float(x) * self.image.width, float(y) * self.image.height

    def thickness(self, share: float) -> int:
        """`share` of the unit in whole pixels, at least one."""
        return max(1, round(share * self.unit))

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """A line through `points`, `width` as a share of the unit."""
        self.pen.line(list(points), fill=colour, width=self.thickness(width), joint="curve")

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """A filled rectangle; all four as pixels."""
        self.pen.rectangle((min(left, right), min(top, bottom), max(left, right), max(top, bottom)), fill=colour)

    def ellipse(self, centre: Point, wide: float, high: float, colour: Colour) -> None:
        """A filled ellipse of the half axes `wide` and `high`, shares of the unit."""
        (x, y), wide, high = centre, wide * self.unit, high * self.unit
        self.pen.ellipse((x - wide, y - high, x + wide, y + high), fill=colour)

    def polygon(self, centre: Point, radius: float, colour: Colour, corners: int = 8, roughness: float = 0.35) -> None:
        """A filled, ragged polygon about `centre`; `radius` as a share of the unit."""
        reach = radius * self.unit * self.rng.uniform(1 - roughness, 1 + roughness, corners)
        angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + self.rng.uniform(0, np.pi)
        outline = [
            (centre[0] + float(r * np.cos(a)), centre[1] + float(r * np.sin(a)))
            for r, a in zip(reach, angles, strict=True)
        ]
        self.pen.polygon(outline, fill=colour)

    def blend(self, mask: Mask, colour: Colour) -> None:
        """Lay `colour` over the picture, as strongly as `mask` (height, width), 0 to 1, says."""
        alpha = Image.fromarray((np.clip(mask, 0, 1) * 255).astype(np.uint8))
        self.image.paste(Image.new("RGB", self.image.size, colour), mask=alpha)

    def noise(self, cells: int) -> Mask:
        """Smooth noise (height, width) between 0 and 1, with `cells` humps along each side."""
        coarse = Image.fromarray((self.rng.random((cells, cells)) * 255).astype(np.uint8))
        return np.asarray(coarse.resize(self.image.size, Image.Resampling.BICUBIC), dtype=np.float32) / 255

    def blob(self, centre: Point, radius: float, roughness: float = 0.5) -> Mask:
        """How deep inside a ragged disc each pixel lies (height, width), as a share of the unit; negative outside."""
        y, x = np.mgrid[: self.image.height, : self.image.width].astype(np.float32)
        reach = np.hypot(x - centre[0], y - centre[1]) / self.unit
        depth: Mask = radius - reach + roughness * radius * 2 * (self.noise(7) - 0.5)
        return depth


def soft(depth: Mask, edge: float = 0.02) -> Mask:
    """`Canvas.blob`'s depth as a mask of 0 to 1 whose rim is `edge` wide, a share of the unit."""
    mask: Mask = np.clip(depth / edge, 0, 1)
    return mask
