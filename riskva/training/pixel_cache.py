"""`cache_images`: photos that were decoded once, for the epochs that follow.

What is kept is a photo's pixels at the size that the model sees, one file a row, in a folder that all DataLoader
workers and processes of a run on one machine share: in /dev/shm, which is memory, or on disk. Which rows are kept is
decided from their lengths beforehand, so the budget holds whoever comes first.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from riskva.encoding import Pixels, Processor
from riskva.errors import DataError, RecipeError
from riskva.signals import sigterm_raises
from riskva.training.distributed import decide_on_each_machine

Place = Literal["memory", "disk"]

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux has memory as files."""

DISK_FOLDER = "pixel_cache"
"""The folder in output_dir that `cache_images: disk` fills."""

_PAGE = 4096
_SECONDS_TO_WAIT = 30
"""The workers of a killed run hold its lock for some seconds more."""


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
        return self.output_dir / DISK_FOLDER if self.place == "disk" else _memory_folder(self.output_dir)

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
    existing = next(path for path in (place, *place.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
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
        decide_on_each_machine(lambda: stack.enter_context(_folder(plan)))
        yield


@contextmanager
def _folder(plan: CachePlan | None) -> Iterator[None]:
    with ExitStack() as stack:
        if _all_runs().is_dir() or (plan is not None and plan.place == "memory"):
            stack.enter_context(_place_in_memory(plan.folder if plan and plan.place == "memory" else None))
        if plan is not None:
            _delete(plan.folder)  # what a killed run has left on disk
            plan.folder.mkdir(parents=True)
            stack.callback(_delete, plan.folder)
        yield


@contextmanager
def _place_in_memory(folder: Path | None) -> Iterator[None]:
    """The right to `folder`, for as long as this process lives; folders that no living process has are deleted.

    One lock is held while others are taken or deleted, so that none is deleted that another run has just opened.
    """
    _all_runs().mkdir(mode=0o700, exist_ok=True)
    with FileLock(_all_runs() / ".lock"):
        for abandoned in [path for path in _all_runs().iterdir() if path.is_dir() and path != folder]:
            _delete_abandoned(abandoned)
        own = _claimed(folder) if folder is not None else None
    try:
        yield
    finally:
        if own is not None:
            with FileLock(_all_runs() / ".lock"):
                own.release()
                Path(own.lock_file).unlink(missing_ok=True)


def _claimed(folder: Path) -> FileLock:
    lock = _lock_of(folder)
    try:
        lock.acquire(timeout=_SECONDS_TO_WAIT)
    except Timeout as error:
        raise RecipeError(f"{folder} belongs to another run with the same output_dir; let it end, or end it") from error
    return lock


def _delete_abandoned(folder: Path) -> None:
    lock = _lock_of(folder)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return  # its run lives
    _delete(folder)
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)


def _lock_of(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f"{folder.name}.lock"))


def _all_runs() -> Path:
    """The folder of all of this user's runs that keep pixels in memory."""
    return SHARED_MEMORY / f"riskva-pixels-{os.getuid()}"


def _memory_folder(output_dir: Path) -> Path:
    return _all_runs() / hashlib.sha256(os.fsencode(output_dir.resolve())).hexdigest()[:16]


def _delete(folder: Path) -> None:
    if not folder.is_dir():
        return
    # Under another name first, so that a worker that is still busy can add nothing while it is emptied.
    leaving = folder.with_name(f"{folder.name}.{os.getpid()}.leaving")
    folder.replace(leaving)
    shutil.rmtree(leaving)


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
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
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
