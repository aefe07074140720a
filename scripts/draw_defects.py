"""Drawn photos of building defects with a table in the form that `stage: prepare` takes; for tests and the demo.

    python scripts/draw_defects.py OUT [--rows 120] [--seed 0] [--size 112] [--houses 12]

Writes OUT/metadata.csv and OUT/images/. The level follows a written rule, and all that it rests on can be seen:

    score = seriousness of the kind + extent (0, 1, 2) + 1 where the place makes that kind worse
    0-1 轻微, 2 中等, 3 and above 严重

Wet rooms are tiled, outer places are bare concrete, the rest is painted. Exposure, blur, noise, JPEG quality and a
strip of tape vary and mean nothing. No file name tells a label. The same arguments draw the same pixels, row by row:
row 7 is the same photo whether 10 rows are asked for or 1000.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from riskva.report import RiskLevel

COLUMNS = (
    "image_id", "image_path", "data_风险", "data_纠正和预防建议", "data_风险等级", "data_缺陷描述", "房屋",
)  # fmt: skip

WET_ROOMS = ("厨房", "卫生间")
OUTER_PLACES = ("外墙", "屋面", "阳台")
DRY_ROOMS = ("客厅", "卧室", "楼梯间")

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Canvas:
    """A photo in the making: the picture, its pen, its side in pixels and the row's own random numbers."""

    image: Image.Image
    pen: ImageDraw.ImageDraw
    side: int
    rng: np.random.Generator

    def spot(self, margin: float = 0.2) -> tuple[float, float]:
        """A random point in pixels, at least `margin` of the side away from every edge."""
        x, y = self.rng.uniform(margin, 1 - margin, 2) * self.side
        return float(x), float(y)

    def blend(self, mask: NDArray[np.floating[Any]], colour: Colour) -> None:
        """Lay `colour` over the picture, as strongly as `mask` (side, side), 0 to 1, says."""
        alpha = Image.fromarray((np.clip(mask, 0, 1) * 255).astype(np.uint8))
        self.image.paste(Image.new("RGB", self.image.size, colour), mask=alpha)


def _noise(canvas: Canvas, cells: int) -> NDArray[np.floating[Any]]:
    """Smooth noise (side, side) between 0 and 1 with features of about side / cells pixels."""
    coarse = (canvas.rng.random((cells, cells)) * 255).astype(np.uint8)
    fine = Image.fromarray(coarse).resize((canvas.side, canvas.side), Image.Resampling.BICUBIC)
    return np.asarray(fine, dtype=np.float64) / 255


def _round_mask(canvas: Canvas, radius: float, roughness: float = 0.5) -> NDArray[np.floating[Any]]:
    """A ragged disc (side, side) about a random spot: 1 well inside, 0 outside; `radius` as a share of the side."""
    x0, y0 = canvas.spot(0.35)
    y, x = np.mgrid[: canvas.side, : canvas.side]
    reach = np.hypot(x - x0, y - y0) / canvas.side + roughness * radius * (_noise(canvas, 7) - 0.5) * 2
    mask: NDArray[np.floating[Any]] = np.clip((radius - reach) / 0.03, 0, 1)
    return mask


def _crack(canvas: Canvas, extent: int) -> None:
    x, y = canvas.spot(0.3)
    start, heading = (x, y), canvas.rng.uniform(0, 2 * np.pi)
    for turn in (0.0, np.pi):  # it runs both ways from where it began
        _crack_arm(canvas, start, heading + turn, steps=4 + 5 * extent, width=1 + 2.5 * extent)
    for _ in range(2 * extent):
        _crack_arm(canvas, start, canvas.rng.uniform(0, 2 * np.pi), steps=3 + 2 * extent, width=1 + extent)


def _crack_arm(canvas: Canvas, start: tuple[float, float], heading: float, steps: int, width: float) -> None:
    x, y = start
    for step in range(steps):
        heading += canvas.rng.normal(0, 0.45)
        length = canvas.side * 0.05
        end = (x + np.cos(heading) * length, y + np.sin(heading) * length)
        thickness = max(1, round(width * (1 - step / steps) * canvas.side / 224))
        canvas.pen.line([(x + 1, y + 1), (end[0] + 1, end[1] + 1)], fill=(210, 206, 200), width=thickness)
        canvas.pen.line([(x, y), end], fill=(38, 34, 32), width=thickness)
        x, y = end


def _damp(canvas: Canvas, extent: int) -> None:
    mask = _round_mask(canvas, 0.12 + 0.13 * extent, roughness=0.7)
    inner = np.asarray(Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(6))) / 255
    canvas.blend(mask * 0.45, (150, 122, 78))
    canvas.blend(mask * (inner < 0.8) * 0.6, (104, 78, 44))  # the rim where the water dried


def _mould(canvas: Canvas, extent: int) -> None:
    x0, y0 = canvas.spot(0.3)
    spread = canvas.side * (0.06 + 0.06 * extent)
    for _ in range(40 + 130 * extent):
        x, y = canvas.rng.normal((x0, y0), spread)
        radius = canvas.rng.uniform(0.5, 2.6) * canvas.side / 224
        shade = int(canvas.rng.integers(20, 70))
        canvas.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(shade, shade + 12, shade))


def _peeling(canvas: Canvas, extent: int) -> None:
    for _ in range(2 + 4 * extent):
        x0, y0 = canvas.spot(0.15)
        corners = int(canvas.rng.integers(6, 10))
        reach = canvas.side * (0.04 + 0.025 * extent) * canvas.rng.uniform(0.6, 1.4, corners)
        angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
        flake = [(float(x0 + r * np.cos(a)), float(y0 + r * np.sin(a))) for r, a in zip(reach, angles, strict=True)]
        canvas.pen.polygon([(x - 2, y - 2) for x, y in flake], fill=(250, 250, 246))  # the lit edge
        canvas.pen.polygon(flake, fill=(128, 124, 118))


def _puddle(canvas: Canvas, extent: int) -> None:
    x, y = canvas.spot(0.35)
    wide, high = canvas.side * (0.12 + 0.13 * extent), canvas.side * (0.06 + 0.07 * extent)
    canvas.pen.ellipse((x - wide, y - high, x + wide, y + high), fill=(78, 92, 104))
    canvas.pen.ellipse((x - wide * 0.85, y - high * 0.8, x + wide * 0.8, y + high * 0.75), fill=(104, 122, 138))
    canvas.pen.ellipse((x - wide * 0.5, y - high * 0.5, x - wide * 0.1, y - high * 0.2), fill=(232, 240, 246))


def _exposed_bar(canvas: Canvas, extent: int) -> None:
    canvas.blend(_round_mask(canvas, 0.16 + 0.09 * extent), (92, 86, 78))
    for bar in range(1 + extent):
        y = canvas.side * (0.42 + 0.1 * bar) + canvas.rng.normal(0, 3)
        thickness = max(2, round(canvas.side * 0.022))
        canvas.pen.line([(canvas.side * 0.25, y), (canvas.side * 0.75, y)], fill=(150, 72, 28), width=thickness)
        for x in canvas.rng.uniform(0.28, 0.72, 4 + 2 * extent) * canvas.side:
            drop = canvas.side * canvas.rng.uniform(0.03, 0.09)
            canvas.pen.line([(x, y), (x, y + drop)], fill=(186, 98, 36), width=max(1, thickness // 2))


@dataclass(frozen=True)
class Kind:
    """A kind of defect: its name, how serious it is as such, where it occurs, where it is worse, how it looks.

    `risks` and `advice` hold a text for each level; `sizes` words the extent.
    """

    name: str
    seriousness: int
    places: tuple[str, ...]
    worse_in: tuple[str, ...]
    draw: Callable[[Canvas, int], None]
    sizes: tuple[str, str, str]
    risks: tuple[str, str, str]
    advice: tuple[str, str, str]


KINDS = (
    Kind(
        "裂缝", 1, (*DRY_ROOMS, "外墙"), ("外墙",), _crack, ("细微", "较长", "贯通且分叉的"),
        ("影响观感，不影响结构安全", "裂缝可能扩展，影响使用功能", "裂缝贯通，可能影响结构安全"),
        ("清理基层后用腻子修补并涂刷面漆", "沿裂缝开槽，嵌填弹性材料并贴网格布", "委托专业单位检测，制定方案后加固"),
    ),
    Kind(
        "渗水", 1, (*WET_ROOMS, "客厅", "屋面"), WET_ROOMS, _damp, ("小块", "片状", "大面积"),
        ("水渍影响观感", "持续渗水会损坏装修面层", "渗漏严重，影响结构耐久性和用电安全"),
        ("查明水源，干燥后修补面层", "重做渗水部位防水层，闭水试验合格后恢复", "立即停用并断电，全面重做防水层"),
    ),
    Kind(
        "霉斑", 0, (*WET_ROOMS, "卧室"), WET_ROOMS, _mould, ("零星", "成片", "密集"),
        ("影响观感", "潮湿发霉，影响居住环境", "霉菌密集，危害居住者健康"),
        ("清除霉斑，涂刷防霉涂料", "查明潮湿原因，铲除面层后做防霉处理", "铲除全部受损面层，改善通风并重做防潮层"),
    ),
    Kind(
        "脱落", 0, (*DRY_ROOMS, "外墙"), ("外墙",), _peeling, ("零星", "多处", "大面积"),
        ("涂层脱落，影响观感", "脱落范围扩大，基层受潮", "面层大面积脱落，坠落物可能伤人"),
        ("铲除松动涂层，重新批刮腻子并涂刷", "铲除空鼓面层，涂界面剂后重新施工", "设置警戒区，铲除松动面层后返工"),
    ),
    Kind(
        "积水", 0, (*WET_ROOMS, "阳台", "屋面"), WET_ROOMS, _puddle, ("少量", "较多", "大范围"),
        ("局部积水，使用不便", "排水不畅，长期积水会造成渗漏", "大范围积水，可能渗漏到下层"),
        ("清扫积水，疏通地漏", "调整地面坡度并疏通地漏", "拆除面层，重新找坡并重做防水层"),
    ),
    Kind(
        "露筋锈蚀", 2, ("阳台", "外墙", "楼梯间"), (), _exposed_bar, ("局部", "多处", "大范围"),
        ("钢筋外露，影响观感", "钢筋锈蚀，影响构件耐久性", "钢筋锈蚀严重，构件承载力下降"),
        ("除锈后用砂浆修补保护层", "凿除松散混凝土，除锈后用修补砂浆恢复", "停止使用，检测承载力并加固"),
    ),
)  # fmt: skip


def risk_level(kind: Kind, extent: int, place: str) -> RiskLevel:
    """The level by the rule at the head of this file."""
    score = kind.seriousness + extent + (place in kind.worse_in)
    return RiskLevel.MINOR if score <= 1 else RiskLevel.MODERATE if score == 2 else RiskLevel.SEVERE


def draw_defects(out: Path, rows: int, seed: int = 0, size: int = 112, houses: int = 12) -> Path:
    """The table `out/metadata.csv` of `rows` drawn photos (`size` x `size` pixels) of `houses` houses (column 房屋)."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    table = out / "metadata.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for row in range(rows):
            writer.writerow(_draw_row(out, row, np.random.default_rng((seed, row)), size, houses))
    return table


def _draw_row(out: Path, row: int, rng: np.random.Generator, size: int, houses: int) -> dict[str, str]:
    kind = KINDS[rng.integers(len(KINDS))]
    place, extent = str(rng.choice(kind.places)), int(rng.integers(3))
    image_path = f"images/{row:05d}.jpg"
    quality = int(rng.integers(70, 96))
    _photo(kind, place, extent, size, rng).save(out / image_path, quality=quality)
    level, house = risk_level(kind, extent, place), int(rng.integers(houses))
    return {
        "image_id": f"photo_{row:05d}",
        "image_path": image_path,
        "data_风险": f"{place}{kind.risks[level]}。",
        "data_纠正和预防建议": f"{kind.advice[level]}。",
        "data_风险等级": level.label,
        "data_缺陷描述": f"{place}存在{kind.sizes[extent]}{kind.name}。",
        "房屋": f"{house // 4 + 1}-{house // 2 % 2 + 1}-{house + 1}01",
    }


def _photo(kind: Kind, place: str, extent: int, size: int, rng: np.random.Generator) -> Image.Image:
    side = 2 * size  # drawn large and shrunk: smooth edges
    image = _background(place, side, rng)
    kind.draw(Canvas(image, ImageDraw.Draw(image), side, rng), extent)
    if rng.random() < 0.2:
        _tape(image, rng)
    return _as_taken(image.resize((size, size), Image.Resampling.LANCZOS), rng)


def _background(place: str, side: int, rng: np.random.Generator) -> Image.Image:
    if place in OUTER_PLACES:
        tone = int(rng.integers(135, 170))
        return Image.new("RGB", (side, side), (tone, tone - 3, tone - 8))
    tint = rng.integers(-10, 11, 3)
    red, green, blue = (int(value) for value in np.array((214, 210, 200)) + tint)
    image = Image.new("RGB", (side, side), (red, green, blue))
    if place in WET_ROOMS:
        pen, tile = ImageDraw.Draw(image), side // 4
        for line in range(int(rng.integers(tile)), side, tile):
            pen.line([(line, 0), (line, side)], fill=(168, 172, 176), width=3)
            pen.line([(0, line), (side, line)], fill=(168, 172, 176), width=3)
    return image


def _tape(image: Image.Image, rng: np.random.Generator) -> None:
    """A strip of coloured tape near the edge, as inspectors stick it: it means nothing here."""
    colour = ((196, 52, 48), (52, 96, 190), (222, 190, 60))[rng.integers(3)]
    x = int(rng.integers(image.width // 2))
    ImageDraw.Draw(image).rectangle((x, 6, x + image.width // 4, 16), fill=colour)


def _as_taken(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """`image` with what a camera does to it: uneven light, exposure, a little blur, noise."""
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.7))))
    pixels = np.asarray(image, dtype=np.float64)
    left, right = rng.uniform(0.85, 1.1, 2)
    light = np.linspace(left, right, pixels.shape[1])[None, :, None]
    noisy = pixels * light * rng.uniform(0.85, 1.1) + rng.normal(0, rng.uniform(1, 5), pixels.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def main() -> None:
    """Draw the photos that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=112, help="side of a photo in pixels")
    parser.add_argument("--houses", type=int, default=12)
    asked = parser.parse_args()
    print(draw_defects(asked.out, asked.rows, asked.seed, asked.size, asked.houses))


if __name__ == "__main__":
    main()
