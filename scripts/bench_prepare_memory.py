"""Peak memory of `stage: prepare` by the number of rows: it should hardly grow. Prints a Markdown table. Linux only.

python scripts/bench_prepare_memory.py                   # 1,000 and 10,000 drawn photos of 400 x 300, two minutes
python scripts/bench_prepare_memory.py --rows 500 2000
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench_prepare import SMALL, whole_job
from command_line import count
from drawn_defects.table import Drawing, draw_table

from riskva.data.parallel import num_cores


def peaks(rows: int, folder: Path) -> dict[str, int]:
    """Peak memory in bytes by form of output, of preparing so many rows."""
    draw_table(folder / "photos", rows, Drawing(size=SMALL), num_cores())
    found = {form: whole_job(folder / "photos", form, folder / form).peak_bytes for form in ("jsonl", "parquet")}
    return {form: peak for form, peak in found.items() if peak is not None}


def main() -> None:
    """Prepare each number of rows in both forms, each in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=count, nargs="+", default=[1000, 10_000])
    asked = parser.parse_args()
    print("| rows | JSONL, peak MB | Parquet, peak MB |\n|---|---|---|")
    for rows in asked.rows:
        with tempfile.TemporaryDirectory() as folder:
            found = peaks(rows, Path(folder))
        print(f"| {rows} | {found['jsonl'] / 1e6:.0f} | {found['parquet'] / 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    main()
