"""How long a start over many rows takes, with kept lengths and without, and how much memory.

Writes rows with one-colour photos and answers of realistic length to a temporary folder, then opens them as `stage:
sft` does, each time in a process of its own: first without lengths, then with those that the first one kept. Prints
the seconds that each part took and the largest resident memory of the process; at last two whole runs of riskva-run
that end after one step, start of the interpreter included:

    python scripts/bench_large_start.py [--rows 100000] [--format parquet|jsonl] [--packing]

The model is the tiny one that ships with RisKVA unless `--model` names another.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from command_line import count
from PIL import Image

from riskva.data.registry import LENGTHS_FOLDER, prepared_entry
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport, default_question

REPOSITORY = Path(__file__).resolve().parents[1]
TINY_MODEL = REPOSITORY / "riskva" / "assets" / "tiny-qwen2.5-vl"
ROWS_PER_GROUP = 64
ROWS_PER_FILE = 20_000
SIDES = (56, 84, 112)
WORDS = (
    *("墙面裂缝", "窗框渗水", "地面起砂", "抹灰空鼓", "饰面砖脱落", "插座无接地", "顶棚霉斑", "栏杆松动"),
    *("宽约两毫米", "建议尽快修补", "需进一步检测"),
)


def main() -> None:
    """Write the rows, start over them in all ways, print the table."""
    options = _options()
    if options.measure is not None:
        _measure(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        _write(data, options.rows, options.format)
        print(f"{options.rows:,} rows in {options.format}, {os.cpu_count()} cores")
        for name in ("first start", "second start"):
            print(f"{name}: {_in_a_process(options, data)}", flush=True)
        for kept in (data / LENGTHS_FOLDER).iterdir():
            print(f"kept lengths: {kept.stat().st_size / 1e6:.2f} MB")
            kept.unlink()
        for name in ("without lengths", "with kept lengths"):
            print(
                f"riskva-run to its first step and end, {name}: {_whole_run(options, data, folder):.1f} s", flush=True
            )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=count, default=100_000)
    parser.add_argument("--format", choices=("parquet", "jsonl"), default="parquet")
    parser.add_argument("--packing", action="store_true", help="the whole runs pack, too")
    parser.add_argument("--model", type=Path, default=TINY_MODEL)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_a_process(options: argparse.Namespace, data: Path) -> str:
    command = [sys.executable, __file__, "--measure", str(data), "--model", str(options.model)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def _measure(options: argparse.Namespace) -> None:
    """Open the rows as the job does, and print what it took."""
    started = time.perf_counter()
    from riskva.encoding import load_processor
    from riskva.recipe import load_recipe
    from riskva.training.packing import PackingSampler
    from riskva.training.rows import open_rows

    recipe: Any = load_recipe(_recipe(options.measure, options.model), []).recipe
    processor = load_processor(options.model)
    before, times = _memory(), {"imports": time.perf_counter() - started}
    rows = _timed(times, "open_rows", lambda: open_rows(recipe, processor, 42, "size"))
    lengths = rows.train_lengths
    assert lengths is not None
    sampler = _timed(
        times,
        "PackingSampler",
        lambda: PackingSampler(lengths, 2048, bins_per_batch=2, num_processes=2, seed=42),
    )
    num_bins = _timed(times, "an epoch of bins", lambda: sum(1 for _ in sampler))
    sent = _timed(times, "pickled for other processes", lambda: len(pickle.dumps(rows)))
    fill = lengths.totals.sum() / 2048 / num_bins
    print(", ".join(f"{name} {seconds:.2f} s" for name, seconds in times.items()), end="; ")
    print(f"{sent / 1e6:.1f} MB pickled; {num_bins} bins, {100 * fill:.1f} % full; ", end="")
    print(f"memory {before:.0f} MB before the rows, at most {_memory():.0f} MB")


def _timed(times: dict[str, float], name: str, work: Any) -> Any:
    start = time.perf_counter()
    result = work()
    times[name] = time.perf_counter() - start
    return result


def _memory() -> float:
    """The most resident memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _whole_run(options: argparse.Namespace, data: Path, folder: str) -> float:
    """The seconds of a whole process that trains one step and saves nothing on the way."""
    keys = [f"output_dir={folder}/out", "max_steps=1", "save_strategy=no", "overwrite_output_dir=true"]
    keys += ["use_cpu=true", "bf16=false", "plot_loss=false", *(["packing=true"] if options.packing else [])]
    command = [sys.executable, "-m", "riskva.cli", str(_recipe(data, options.model)), *keys]
    start = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=REPOSITORY)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return time.perf_counter() - start


def _recipe(data: Path, model: Path) -> Path:
    path = data.parent / "sft.yaml"
    lines = ["stage: sft", f"model_name_or_path: {model}", f"dataset_dir: {data}", "dataset: rows"]
    path.write_text("\n".join([*lines, f"output_dir: {data.parent}/out", "cutoff_len: 2048", ""]), encoding="utf-8")
    return path


def _write(folder: Path, num_rows: int, form: str) -> None:
    """A data set called `rows` in `folder`, as `stage: prepare` writes it."""
    folder.mkdir()
    photos = {side: _photo(side) for side in SIDES}
    if form == "jsonl":
        _write_jsonl(folder, num_rows, photos)
    else:
        _write_parquet(folder, num_rows, photos)
    name = "rows.jsonl" if form == "jsonl" else "rows-*.parquet"
    (folder / "dataset_info.json").write_text(json.dumps({"rows": prepared_entry(name, "images")}), encoding="utf-8")


def _write_jsonl(folder: Path, num_rows: int, photos: dict[int, bytes]) -> None:
    (folder / "photos").mkdir()
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as stream:
        for number, (messages, side) in enumerate(_rows(num_rows)):
            name = f"photos/{number}.jpg"
            (folder / name).write_bytes(photos[side])
            row = {"id": str(number), "messages": messages, "images": [name]}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_parquet(folder: Path, num_rows: int, photos: dict[int, bytes]) -> None:
    rows = list(_rows(num_rows))
    for start in range(0, num_rows, ROWS_PER_FILE):
        part = [
            {"id": str(number), "messages": messages, "images": [{"bytes": photos[side], "path": f"{number}.jpg"}]}
            for number, (messages, side) in enumerate(rows[start : start + ROWS_PER_FILE], start)
        ]
        path = folder / f"rows-{start // ROWS_PER_FILE:05d}.parquet"
        pq.write_table(pa.Table.from_pylist(part), path, row_group_size=ROWS_PER_GROUP)


def _rows(num_rows: int) -> Iterator[tuple[list[dict[str, str]], int]]:
    """The turns of each row, and how many pixels wide and high its photo is."""
    draw = random.Random(0)
    question = "<image>" + default_question(DEFAULT_FORMAT)
    for _ in range(num_rows):
        texts = {label: "，".join(draw.choices(WORDS, k=draw.randint(2, 12))) for label in DEFAULT_FORMAT.text_labels}
        answer = DEFAULT_FORMAT.render(RiskReport(RiskLevel(draw.randrange(3)), texts))
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        yield turns, draw.choice(SIDES)


def _photo(side: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (side, side), (120, 130, 140)).save(stream, "JPEG")
    return stream.getvalue()


if __name__ == "__main__":
    main()
