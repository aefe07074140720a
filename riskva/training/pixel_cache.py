"""`cache_images`: photos that were decoded once, for the epochs that follow.

What is kept is a photo's pixels at the size that the model sees, one file a row, in a folder that all DataLoader
workers and processes of a run on one machine share: in /dev/shm, which is memory, or on disk. Which rows are kept is
decided from their lengths beforehand, so the budget holds whoever comes first.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from riskva.distributed import decide_on_each_machine
from riskva.encoding import Pixels, Processor
from riskva.errors import DataError, RecipeError
from riskva.signals import sigterm_raises
from riskva.training.shared_folder import (
    SECONDS_TO_WAIT,
    SHARED_MEMORY,
    Place,
    free_bytes,
    is_full,
    memory_folder,
    own_folder,
)

DISK_FOLDER = "pixel_cache"
"""The folder in output_dir that `cache_images: disk` fills."""

_PAGE = 4096
_SECONDS_TO_WAIT = SECONDS_TO_WAIT


@dataclass(frozen=True)
class PixelCache:
    """The kept pixels of one data set: those of row i, where `keeps[i]`, in a file of `folder`."""

    folder: Path
    name: str
    keeps: NDArray[np.bool_]

    def pixels(self, index: int, make: Callable[[], list[Pixels]]) -> list[Pixels]:
        """Row `index`'s pixels: kept ones, or what `make` gives, kept from now on if the row is to be."""
        if not self.keeps[index]:
            return make()
        path = self.folder / f"{self.name}-{index}"
        try:
            return _read(path)
        except FileNotFoundError:
            pixels = make()
            _write(path, pixels)
            return pixels


@dataclass(frozen=True)
class CachePlan:
    """What `cache_images` is going to keep, and where; `num_bytes` is the most that it takes."""

    place: Place
    output_dir: Path
    keeps: Sequence[NDArray[np.bool_]]
    """Which rows of each data set."""
    num_bytes: int

    @property
    def folder(self) -> Path:
        """Where the files lie; one name on every machine, and no other run's."""
        return self.output_dir / DISK_FOLDER if self.place == "disk" else memory_folder(_all_runs(), self.output_dir)

    def cache(self, number: int) -> PixelCache:
        """The cache of data set `number`."""
        return PixelCache(self.folder, str(number), self.keeps[number])


def plan_cache(
    place: Place,
    output_dir: Path,
    gigabytes: float,
    photo_tokens: Sequence[Sequence[int]],
    processor: Processor,
) -> tuple[CachePlan, str]:
    """Which rows' pixels fit, and a line that says how many.

    `photo_tokens` are the image tokens of each row of each data set. Rows are taken in order as long as they fit, and
    of those that follow the ones that still do: the same choice each time. Nothing is written.
    """
    keeps, left = list[NDArray[np.bool_]](), int(gigabytes * 1e9)
    for tokens in photo_tokens:
        chosen, left = _fitting([_most_bytes(one, processor) for one in tokens], left)
        keeps.append(chosen)
    num_kept = sum(int(one.sum()) for one in keeps)
    num_rows = sum(one > 0 for tokens in photo_tokens for one in tokens)
    plan = CachePlan(place, output_dir, tuple(keeps), int(gigabytes * 1e9) - left)
    return plan, f"cache_images: the photos of {num_kept} of {num_rows} rows fit into {gigabytes:g} GB ({place})"


def require_room(plan: CachePlan) -> None:
    """Raise `RecipeError` unless the place of the plan exists and has room for all of it."""
    place = plan.output_dir if plan.place == "disk" else SHARED_MEMORY
    if plan.place == "memory" and not place.is_dir():
        raise RecipeError(f"cache_images: memory needs {place}, which this machine has not; set cache_images: disk")
    free = free_bytes(place)
    if free < plan.num_bytes:
        raise RecipeError(
            f"cache_images: {plan.place} needs {plan.num_bytes / 1e9:.2f} GB in {place}, which has {free / 1e9:.2f} GB "
            f"free; {_remedy(plan.place)}"
        )


@contextmanager
def opened(plan: CachePlan | None) -> Iterator[None]:
    """The plan's folder, empty and this run's alone; deleted at the end, also on an exception or SIGTERM.

    What killed runs have left in memory is deleted first, also without a plan. Every process of the run must enter.
    """
    with ExitStack() as stack:
        if plan is not None:
            stack.enter_context(sigterm_raises(SystemExit(128 + signal.SIGTERM)))
        own = own_folder(plan.folder if plan else None, _all_runs(), _SECONDS_TO_WAIT)
        decide_on_each_machine(lambda: stack.enter_context(own))
        yield


def _all_runs() -> Path:
    """The folder of all of this user's runs that keep pixels in memory."""
    return SHARED_MEMORY / f"riskva-pixels-{os.getuid()}"


def _fitting(sizes: Sequence[int], room: int) -> tuple[NDArray[np.bool_], int]:
    """Which rows fit into `room` bytes, and what is left of it; rows without a photo take nothing and are not kept."""
    keeps = np.zeros(len(sizes), dtype=np.bool_)
    for index, size in enumerate(sizes):
        if 0 < size <= room:
            keeps[index] = True
            room -= size
    return keeps, room


def _most_bytes(num_tokens: int, processor: Processor) -> int:
    """What the file of a row with so many image tokens takes at most, in whole pages; 0 without any."""
    image_processor = processor.image_processor
    side = image_processor.patch_size * image_processor.merge_size
    # A photo has one token at least, so that the sizes of all of them take no more than those of `num_tokens` photos.
    size = num_tokens * (3 * side * side + 16) + 8
    return -(-size // _PAGE) * _PAGE if num_tokens else 0


def _write(path: Path, pixels: Sequence[Pixels]) -> None:
    """The number of photos, their heights and widths (all int64), and their bytes; whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    sizes = [side for one in pixels for side in one.shape[:2]]
    try:
        with partial.open("wb") as stream:
            stream.write(np.array([len(pixels), *sizes], dtype=np.int64).tobytes())
            for one in pixels:
                stream.write(np.ascontiguousarray(one).data)
        partial.replace(path)
    except FileNotFoundError:
        if path.parent.is_dir():
            raise
        # Else the run is ending, and its first process has deleted the folder already.
    except OSError as error:
        partial.unlink(missing_ok=True)
        if not is_full(error):
            raise
        place: Place = "disk" if path.parent.name == DISK_FOLDER else "memory"
        raise DataError(f"cache_images: no room is left in {path.parent}; {_remedy(place)}") from error


def _read(path: Path) -> list[Pixels]:
    content = np.fromfile(path, dtype=np.uint8)
    num_photos = int(content[:8].view(np.int64)[0])
    start = 8 * (1 + 2 * num_photos)
    pixels = []
    for height, width in content[8:start].view(np.int64).reshape(-1, 2).tolist():
        end = start + height * width * 3
        pixels.append(content[start:end].reshape(height, width, 3))
        start = end
    return pixels


def _remedy(place: Place) -> str:
    if place == "disk":
        return "make room there or lower cache_images_gb"
    return "give the container more (docker run --shm-size=8g), lower cache_images_gb, or set cache_images: disk"
