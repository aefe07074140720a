"""One drawn photo: what is in it (a label), and how it was taken (which means nothing)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from drawn_defects.canvas import Canvas, Colour
from drawn_defects.catalogue import KINDS, MINOR, NO_DEFECT, NO_DEFECT_FINDING, Finding, Kind
from drawn_defects.rooms import ROOMS, background
from drawn_defects.things import WHOLE_THINGS
from riskva.report import RiskLevel

LONGEST_DRAWN_SIDE = 1024
SMALL_SIDE = 512

Size = tuple[int, int]


@dataclass(frozen=True)
class Scene:
    """What a photo shows. `kind` is None where there is no defect; `extent` is 0, 1 or 2."""

    room: str
    kind: Kind | None
    extent: int = 0

    @property
    def level(self) -> RiskLevel:
        return self.kind.level(self.extent, self.room) if self.kind else MINOR

    @property
    def finding(self) -> Finding:
        return self.kind.findings[self.level] if self.kind else NO_DEFECT_FINDING

    @property
    def description(self) -> str:
        return self.kind.description(self.extent, self.room) if self.kind else f"{self.room}{NO_DEFECT}。"


SCENES = (
    *(Scene(room, kind, extent) for kind in KINDS for room in kind.rooms for extent in range(3)),
    *(Scene(room, None) for room in ROOMS),
)
"""Every scene that there is."""


def dealt_scene(seed: int, number: int) -> Scene:
    """Scene `number` of an endless row that deals out all `SCENES`, shuffles them anew, and deals again.

    So a few hundred rows hold every kind in each of its rooms and extents about equally often, as a firm's own choice
    of photos to learn from would.
    """
    time, place = divmod(number, len(SCENES))
    return SCENES[np.random.default_rng((seed, 1_000_000_009, time)).permutation(len(SCENES))[place]]


def random_scene(rng: np.random.Generator) -> Scene:
    """A scene of any kind, or of none, each as likely; then its room and extent."""
    choice = int(rng.integers(len(KINDS) + 1))
    if choice == len(KINDS):
        return Scene(str(rng.choice(list(ROOMS))), None)
    kind = KINDS[choice]
    return Scene(str(rng.choice(kind.rooms)), kind, int(rng.integers(3)))


def draw_photo(scene: Scene, size: Size, house_tint: Colour, rng: np.random.Generator) -> Image.Image:
    """`scene` as a photo of `size` (width, height) in pixels.

    Small photos are drawn at twice the size and shrunk, for smooth edges; large ones at 1,024 px and enlarged, with
    noise at full size.
    """
    canvas = background(ROOMS[scene.room], _drawn_size(size), house_tint, rng)
    if scene.kind:
        scene.kind.draw(canvas, scene.extent)
    elif rng.random() < 0.6:
        WHOLE_THINGS[rng.integers(len(WHOLE_THINGS))](canvas)
    if rng.random() < 0.25:
        _tape(canvas)
    return _as_taken(canvas.image.resize(size, Image.Resampling.LANCZOS), rng)


def _drawn_size(size: Size) -> Size:
    longest = max(size)
    scale = 2.0 if longest <= SMALL_SIDE else min(1.0, LONGEST_DRAWN_SIDE / longest)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _tape(canvas: Canvas) -> None:
    """A strip of coloured tape near the upper edge, as inspectors stick it: it means nothing."""
    colour: Colour = ((196, 52, 48), (52, 96, 190), (222, 190, 60), (60, 150, 80))[canvas.rng.integers(4)]
    x = float(canvas.rng.uniform(0, 0.7)) * canvas.image.width
    y = float(canvas.rng.uniform(0.01, 0.05)) * canvas.image.height
    canvas.rectangle(x, y, x + 0.25 * canvas.unit, y + 0.045 * canvas.unit, colour)


def _as_taken(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """`image` with what a camera does to it: light from one side, exposure, white balance, blur, noise."""
    blur = float(rng.uniform(0, 0.005)) * min(image.size)
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), dtype=np.float32)
    left, right = rng.uniform(0.85, 1.12, 2)
    light = np.linspace(left, right, pixels.shape[1], dtype=np.float32)[None, :, None]
    balance = (rng.uniform(0.88, 1.1) * rng.uniform(0.97, 1.03, 3)).astype(np.float32)
    strength = np.float32(rng.uniform(1, 5))
    grain = rng.standard_normal(pixels.shape, dtype=np.float32) * strength
    return Image.fromarray(np.clip(pixels * light * balance + grain, 0, 255).astype(np.uint8))
