"""Times `stage: prepare` on photos beside the least that any program must do with them. Prints a Markdown table.

    python scripts/bench_prepare.py                              # two minutes on two cores
    python scripts/bench_prepare.py --large 4 --small 100 --rounds 1     # half a minute
    python scripts/bench_prepare.py --folder photos --whole-job  # photos are drawn once; the job, too

Large photos are JPEGs of 4000 x 3000 pixels, 3 to 5 MB each; small ones, of 400 x 300, fit as they are. All ways take
turns in each round, so a drift of the machine's speed meets all of them; medians of the rounds are shown.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from command_line import count, folder_to_write
from drawn_defects.processes import for_each_number
from drawn_defects.table import Drawing, draw_table
from PIL import Image

from riskva.data.conversation import Photo
from riskva.data.images import reencode
from riskva.data.parallel import num_cores, ordered_map

LARGE, DRAWN = (4000, 3000), (1000, 750)
SMALL = (400, 300)
LARGE_QUALITY = 90
GRAIN = 6.0
LIMIT, QUALITY = (1024, 1024), 85

# The job says itself how much memory it needed: what the system tells of a child counts its parent's as well.
RUN_JOB = """
import json, pathlib, sys
from riskva.jobs import prepare
from riskva.recipe import PrepareRecipe
prepare.run(PrepareRecipe(**json.loads(sys.argv[1])))
print(pathlib.Path("/proc/self/status").read_text())
"""
PEAK = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)

Work = Callable[[Sequence[Path]], None]


@dataclass(frozen=True)
class Timing:
    """One pass over photos: its wall time in seconds and, for a process of its own, its peak memory in bytes."""

    seconds: float
    peak_bytes: int | None = None


# The photos


def make_photos(folder: Path, num_large: int, num_small: int, workers: int) -> dict[str, list[Path]]:
    """The photos by kind, drawn unless `folder` holds them from a run with the same counts; tables stand beside them.

    The same numbers give the same bytes.
    """
    wanted = {"large": (num_large, DRAWN), "small": (num_small, SMALL)}
    for kind, (number, size) in wanted.items():
        done = folder / kind / "drawn.txt"
        if not done.exists() or done.read_text() != str(number):
            done.unlink(missing_ok=True)
            draw_table(folder / kind, number, Drawing(size=size), workers)
            if kind == "large":
                for_each_number(partial(enlarge, folder / kind), number, workers, "large photos")
            done.write_text(str(number))
    return {kind: [photo_path(folder / kind, one) for one in range(number)] for kind, (number, _) in wanted.items()}


def photo_path(folder: Path, number: int) -> Path:
    """Where `draw_table` puts the photo of a row."""
    return folder / f"images/{number:05d}.jpg"


def enlarge(folder: Path, number: int) -> dict[str, str]:
    """Turn a drawn photo into one of 12 megapixels with a sensor's grain, without which it would be 0.5 MB."""
    path = photo_path(folder, number)
    with Image.open(path) as drawn:
        pixels = np.asarray(drawn.convert("RGB").resize(LARGE, Image.Resampling.BICUBIC), dtype=np.float32)
    rng = np.random.default_rng(number)
    grain = GRAIN * rng.standard_normal((*pixels.shape[:2], 1), dtype=np.float32)
    Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8)).save(path, quality=LARGE_QUALITY)
    return {}


# The ways


def plain_script(path: Path) -> bytes:
    """What a script does that thinks of nothing: decode in full, shrink if need be, save."""
    with Image.open(path) as image:
        pixels = image.convert("RGB")
    scale = min(LIMIT[0] / pixels.width, LIMIT[1] / pixels.height)
    if scale < 1:
        size = round(pixels.width * scale), round(pixels.height * scale)
        pixels = pixels.resize(size, Image.Resampling.LANCZOS)
    return to_jpeg(pixels)


def least_work(path: Path) -> int:
    """The ceiling: the cheapest decode that proves a photo whole; for a large one, shrink and encode. Its bytes."""
    with Image.open(path) as image:
        scale = min(LIMIT[0] / image.width, LIMIT[1] / image.height)
        if scale >= 1:
            image.draft("L", (64, 64))
            image.load()
            return 0
        size = round(image.width * scale), round(image.height * scale)
        image.draft("RGB", (size[0] * 3 // 2, size[1] * 3 // 2))
        return len(to_jpeg(image.resize(size, Image.Resampling.BICUBIC)))


def to_jpeg(pixels: Image.Image) -> bytes:
    """The picture as a JPEG of the quality that prepare uses."""
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def one_by_one(paths: Sequence[Path]) -> None:
    """The plain script's loop, in one thread."""
    for path in paths:
        plain_script(path)


def at_once(pool: Executor, paths: Sequence[Path]) -> None:
    """The least work, spread over a pool that is up already."""
    for _ in pool.map(least_work, paths, chunksize=1):
        pass


def as_riskva_does(workers: int, paths: Sequence[Path]) -> None:
    """`reencode` on as many threads as prepare uses."""
    photos = (Photo(path=path, name=path.name) for path in paths)
    for _ in ordered_map(lambda photo: reencode(photo, LIMIT, QUALITY), photos, workers):
        pass


@contextmanager
def ways(workers: int) -> Iterator[dict[str, Work]]:
    """All that is timed in this process, by name."""
    with ThreadPoolExecutor(workers) as threads, ProcessPoolExecutor(workers, get_context("spawn")) as processes:
        list(processes.map(time.sleep, [1.0] * workers))  # so that all are up before the clock runs
        yield {
            "plain script, one process": one_by_one,
            f"least work, {workers} threads (the ceiling)": partial(at_once, threads),
            f"least work, {workers} processes": partial(at_once, processes),
            f"reencode, {workers} threads": partial(as_riskva_does, workers),
        }


# The whole job


def whole_job(table_folder: Path, output_format: str, out: Path) -> Timing:
    """`stage: prepare` as a process of its own, from the start of Python to the last file, and its peak memory.

    Linux only. What the job prints on its standard error passes through.
    """
    keys = {
        "stage": "prepare",
        "csv_path": [str(table_folder / "metadata.csv")],
        "image_base_path": str(table_folder),
        "output_dir": str(out),
        "output_format": output_format,
        "max_image_size": LIMIT,
        "image_quality": QUALITY,
    }
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", RUN_JOB, json.dumps(keys)], stdout=subprocess.PIPE, text=True, check=False
    )
    seconds = time.perf_counter() - start
    peak = PEAK.search(done.stdout)
    if done.returncode or not peak:
        raise SystemExit(f"prepare ended with {done.returncode}; its message stands above")
    return Timing(seconds, 1024 * int(peak[1]))


def time_jobs(folder: Path, kind: str) -> dict[str, Timing]:
    """The whole job on one kind of photo, once for each form of output."""
    timings = {}
    for output_format in ("jsonl", "parquet"):
        with tempfile.TemporaryDirectory() as out:
            timings[f"whole job, {output_format}"] = whole_job(folder / kind, output_format, Path(out) / "data")
    return timings


# The table


def time_all(
    photos: dict[str, list[Path]], folder: Path, asked: argparse.Namespace
) -> dict[str, dict[str, list[Timing]]]:
    """For each kind of photo and each way, the timings of all rounds."""
    seen: dict[str, dict[str, list[Timing]]] = {kind: {} for kind in photos}
    with ways(asked.workers) as timed:
        for _ in range(asked.rounds):
            for kind, paths in photos.items():
                found = {name: timing(work, paths) for name, work in timed.items()}
                if asked.whole_job:
                    found |= time_jobs(folder, kind)
                for name, one in found.items():
                    seen[kind].setdefault(name, []).append(one)
    return seen


def timing(work: Work, paths: Sequence[Path]) -> Timing:
    """The wall time of `work` on all photos."""
    start = time.perf_counter()
    work(paths)
    return Timing(time.perf_counter() - start)


def lines(kind: str, num_photos: int, seen: dict[str, list[Timing]]) -> Iterator[str]:
    """The table of one kind of photo."""
    speeds = {name: num_photos / statistics.median(one.seconds for one in many) for name, many in seen.items()}
    script, ceiling = list(speeds.values())[:2]
    yield f"\n| {num_photos} {kind} photos | photos/s | worst to best | times the script | of the ceiling | peak MB |"
    yield "|---|---|---|---|---|---|"
    for name, many in seen.items():
        rounds = sorted(num_photos / one.seconds for one in many)
        peak = max((one.peak_bytes or 0) for one in many) / 1e6
        yield (
            f"| {name} | {speeds[name]:.1f} | {rounds[0]:.1f} to {rounds[-1]:.1f} | {speeds[name] / script:.2f} "
            f"| {speeds[name] / ceiling:.0%} | {f'{peak:.0f}' if peak else ''} |"
        )


def main() -> None:
    """Draw the photos that are missing, time all ways, and print a table for each kind of photo."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--large", type=count, default=24, help="photos of 12 megapixels")
    parser.add_argument("--small", type=count, default=1000, help="photos of 400 x 300 pixels")
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument(
        "--workers", type=count, default=num_cores(), help="threads, and processes, of all but the script"
    )
    parser.add_argument("--folder", type=folder_to_write, help="where the photos are kept; default: nowhere")
    parser.add_argument("--whole-job", action="store_true", help="time stage: prepare as well, with its peak memory")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        photos = make_photos(folder, asked.large, asked.small, asked.workers)
        megabytes = statistics.mean(path.stat().st_size for path in photos["large"]) / 1e6
        print(f"{asked.rounds} rounds, {num_cores()} cores; large photos are of {megabytes:.1f} MB on average")
        for kind, seen in time_all(photos, folder, asked).items():
            print("\n".join(lines(kind, len(photos[kind]), seen)))


if __name__ == "__main__":
    main()
