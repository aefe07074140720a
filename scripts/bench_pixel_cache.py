"""How fast rows are read with `cache_images` and without it.

Reads 1024 x 768 JPEGs, prepared as Parquet, through EncodedDataset and a DataLoader in random order, an epoch that
fills the cache and one that is read from it, and prints the medians of the rows per second, both sides in one run:

    python scripts/bench_pixel_cache.py [--rows 64] [--repeats 5] [--workers 0 2]

The model, whose tokenizer and image processor are used, is the tests' tiny one unless `--model` names another.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import DataLoader

from riskva.data.datasets import ConversationDataset, open_datasets
from riskva.data.registry import prepared_entry
from riskva.encoding import Encoded, Processor, load_processor, measure
from riskva.training.dataset import EncodedDataset
from riskva.training.pixel_cache import CachePlan, opened, plan_cache

SIZE = (1024, 768)
ROWS_PER_GROUP = 10  # 2 MB of such photos, as `stage: prepare` writes them


def main() -> None:
    """Draw the photos, read them both ways, print the table."""
    options = _options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or _tiny_model(Path(folder) / "model")
        processor = load_processor(model)
        rows = _written(Path(folder) / "data", options.rows)
        tokens = [measure(row, processor).num_image_tokens for row in rows]
        print(f"{len(rows)} photos of {SIZE[0]} x {SIZE[1]}, {tokens[0]} image tokens each, {os.cpu_count()} cores")
        print(f"{'rows a second, median of ' + str(options.repeats):36}{'first epoch':>12}{'second':>12}")
        for workers in options.workers:
            for place in (None, "memory", "disk"):
                plan = plan_cache(place, Path(folder) / "out", 100, [tokens], processor)[0] if place else None
                times = [_two_epochs(rows, processor, plan, workers) for _ in range(options.repeats)]
                rates = [len(rows) / median(one) for one in zip(*times, strict=True)]
                print(f"{f'{workers} workers, cache_images: {place or False}':36}{rates[0]:12.1f}{rates[1]:12.1f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--model", type=Path)
    return parser.parse_args()


def _tiny_model(folder: Path) -> Path:
    from make_tiny_model import build_tiny_model

    return build_tiny_model(folder)


def _written(folder: Path, num_rows: int) -> ConversationDataset:
    folder.mkdir()
    table = pa.Table.from_pylist([_row(number) for number in range(num_rows)])
    pq.write_table(table, folder / "rows.parquet", row_group_size=ROWS_PER_GROUP, use_dictionary=False)
    (folder / "dataset_info.json").write_text(json.dumps({"rows": prepared_entry("rows.parquet", "images")}))
    return open_datasets(["rows"], folder)


def _row(number: int) -> dict[str, Any]:
    turns = [{"role": "user", "content": "<image>请检查"}, {"role": "assistant", "content": "墙面裂缝，中等风险。"}]
    return {"id": str(number), "messages": turns, "images": [{"bytes": _jpeg(number), "path": f"{number}.jpg"}]}


def _jpeg(seed: int) -> bytes:
    """Coarse and fine noise, which makes files of some 200 KB, as photos have."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
        SIZE, Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse, dtype=np.int16) + random.integers(-12, 13, (SIZE[1], SIZE[0], 1), dtype=np.int16)
    stream = BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def _two_epochs(
    rows: ConversationDataset, processor: Processor, plan: CachePlan | None, workers: int
) -> tuple[float, float]:
    """Seconds of the first and the second epoch, workers' start included."""
    dataset = EncodedDataset(rows, processor, cache=plan.cache(0) if plan else None)
    with opened(plan):
        return _epoch(dataset, workers, 0), _epoch(dataset, workers, 1)


def _epoch(dataset: EncodedDataset, workers: int, seed: int) -> float:
    order = np.random.default_rng(seed).permutation(len(dataset)).tolist()
    loader: DataLoader[Encoded] = DataLoader(dataset, batch_size=None, sampler=order, num_workers=workers)
    start = time.perf_counter()
    assert sum(1 for _ in loader) == len(dataset)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
