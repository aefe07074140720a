"""How much the demo's fine-tune learns from how many rows: a picture and a table, over several seeds.

    python scripts/learning_curve.py build/learning_curve [--rows 60 120 247 500 1000] [--seeds 1 2 3]
        [--steps 930] [--jobs 1]

For every number of rows and every seed, the demo's recipes prepare, train and score: LoRA on the tiny base that ships
with RisKVA, the same number of optimiser steps whatever the number of rows, then 320 photos that were drawn with
another seed and show other houses. Writes learning_curve.json, .md and .png into the folder. A run that is there
already is not repeated, so an interrupted call goes on; a changed base, recipe or drawing makes all runs new.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
from command_line import count, folder_to_write
from drawn_defects.kind_score import kind_share
from drawn_defects.seeds import MEASURED_SEED, RESERVED_SEEDS
from drawn_defects.table import Drawing, draw_table

from evaluation.predictions import read_predictions
from riskva.console import progress
from riskva.errors import RiskvaError
from riskva.files import write_json, write_whole

REPOSITORY = Path(__file__).resolve().parents[1]
ROWS, SEEDS, STEPS = (60, 120, 247, 500, 1000), (1, 2, 3), 930
TEST_ROWS = 320
ROWS_PER_HOUSE = 6
WITHOUT_VALIDATION = ("eval_dataset=null", "eval_strategy=no", "save_strategy=no", "report_to=none")
ON_ONE_CORE = ("nproc_per_node=1", "per_device_train_batch_size=8")
DEPENDS_ON = ("recipes/demo/*.yaml", "recipes/sft_lora.yaml", "scripts/drawn_defects/*.py", "riskva/assets/**/*.*")

KIND = "kind"
LEVEL_NAMES = {
    "risk_level.macro_f1": "macro-F1 of the level",
    "risk_level.severe_recall": "recall of severe",
    KIND: "kind named rightly",
    "format.valid_rate": "reports that parse",
}
TEXT_NAMES = {
    "rouge.风险描述.rouge-l": "ROUGE-L of the risk",
    "rouge.纠正和预防建议.rouge-l": "ROUGE-L of the advice",
    "rouge.缺陷描述.rouge-l": "ROUGE-L of the description",
}
NAMES = LEVEL_NAMES | TEXT_NAMES
"""The scores that are followed, and what the picture calls them: its font has no Chinese."""

WITHOUT_FLOOR = ("risk_level.severe_recall", "format.valid_rate")
"""Scores whose constant answer says nothing: it has all of them or none."""


@dataclass(frozen=True)
class Score:
    """A score, and what one constant answer has, both as shares of 0 to 1; None where there is no such thing."""

    value: float
    floor: float | None


Scores = Mapping[str, Score]


class FineTuneError(RiskvaError, RuntimeError):
    """A job of the measurement failed."""


@dataclass(frozen=True)
class Cell:
    """One fine-tune: its number of training rows, its seed (of photos and training alike), its folder."""

    rows: int
    seed: int
    folder: Path


def fingerprint(steps: int) -> str:
    """Eight digits that change when the base, a recipe, the drawings or the number of steps do."""
    digest = hashlib.sha256(str(steps).encode())
    for path in sorted(path for pattern in DEPENDS_ON for path in REPOSITORY.glob(pattern) if path.is_file()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def measure(cell: Cell, test_data: Path, steps: int, log: Path) -> None:
    """Draw, prepare, train and score one cell, as far as that is not done."""
    trained, scored = cell.folder / "sft", cell.folder / "eval"
    if not (trained / "train_results.json").is_file():
        drawing = Drawing(cell.seed, houses=max(2, cell.rows // ROWS_PER_HOUSE))
        data = prepare(cell.folder, drawing, cell.rows, "train", log)
        places = (f"dataset_dir={data}", f"output_dir={trained}")
        run(log, "sft.yaml", *places, f"seed={cell.seed}", f"max_steps={steps}", *WITHOUT_VALIDATION, *ON_ONE_CORE)
    if not (scored / "metrics.json").is_file():
        places = (f"dataset_dir={test_data}", f"output_dir={scored}")
        run(log, "eval.yaml", f"adapter_name_or_path={trained}", "train_dataset=null", *places)


def prepare(folder: Path, drawing: Drawing, rows: int, split: str, log: Path) -> Path:
    """The data set of `rows` drawn photos, all in one split."""
    table = draw_table(folder / "photos", rows, drawing)
    places = (f"csv_path={table}", f"image_base_path={table.parent}", f"output_dir={folder / 'data'}")
    run(log, "prepare.yaml", *places, f"split={{{split}: 1.0}}")
    return folder / "data"


def run(log: Path, recipe: str, *overrides: str) -> None:
    """`riskva-run recipes/demo/RECIPE` in a process of its own, on one thread.

    Raises `FineTuneError`, naming the log, unless the job ends well.
    """
    command = [sys.executable, "-m", "riskva.cli", f"recipes/demo/{recipe}", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("a", encoding="utf-8") as stream:
        result = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=stream, stderr=stream, check=False)
    if result.returncode:
        raise FineTuneError(f"riskva-run {' '.join(command[3:])} ended with status {result.returncode}; see {log}")


def scores_of(folder: Path) -> dict[str, Score]:
    """The followed scores of an evaluation, by name; one that cannot be told, such as without any 严重, is 0."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    constant = metrics["baselines"]["constant"]
    found = {KIND: Score(*kind_share(read_predictions(folder / "generated_predictions.jsonl")))}
    for name in NAMES:
        if name != KIND:
            unit = 100 if name in TEXT_NAMES else 1
            floor = None if name in WITHOUT_FLOOR else constant[name] / unit
            found[name] = Score((_score_at(metrics, name) or 0.0) / unit, floor)
    return found


def _score_at(metrics: Any, name: str) -> float | None:
    """The score that the flat name spells."""
    for key in name.split("."):
        metrics = metrics[key]
    return metrics  # type: ignore[no-any-return]


def table(cells: Sequence[Cell], scores: Sequence[Scores]) -> str:
    """The scores as a Markdown table: the mean over the seeds, the lowest and the highest in brackets."""
    header = ["rows", *NAMES.values()]
    floors = [scores[0][name].floor for name in NAMES]
    lines = [
        header,
        ["---"] * len(header),
        *(_table_line(rows, of_rows) for rows, of_rows in _by_rows(cells, scores)),
        ["floor", *("–" if floor is None else f"{floor:.3f}" for floor in floors)],
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _table_line(rows: int, scores: Sequence[Scores]) -> list[str]:
    values = [[one[name].value for one in scores] for name in NAMES]
    return [str(rows), *(f"{mean(some):.3f} ({min(some):.3f}–{max(some):.3f})" for some in values)]


def _by_rows(cells: Sequence[Cell], scores: Sequence[Scores]) -> Iterator[tuple[int, list[Scores]]]:
    for rows in sorted({cell.rows for cell in cells}):
        yield rows, [one for cell, one in zip(cells, scores, strict=True) if cell.rows == rows]


def plot(path: Path, cells: Sequence[Cell], scores: Sequence[Scores]) -> None:
    """The picture: means over the seeds as lines, lowest to highest as bands, floors dashed."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True)
    by_rows = dict(_by_rows(cells, scores))
    for axis, title, names in zip(axes, ("level and kind", "texts"), (LEVEL_NAMES, TEXT_NAMES), strict=True):
        for name, label in names.items():
            _draw_line(axis, label, {rows: [one[name] for one in some] for rows, some in by_rows.items()})
        axis.set(title=title, xlabel="training rows", xscale="log", ylim=(0, 1.02))
        axis.set_xticks(list(by_rows), [str(rows) for rows in by_rows])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
        axis.legend(loc="lower right", fontsize=8.5)
    axes[0].set_ylabel(f"score on {TEST_ROWS} photos of unseen houses")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw_line(axis: Any, label: str, lines: Mapping[int, Sequence[Score]]) -> None:
    shares = {rows: [line.value for line in some] for rows, some in lines.items()}
    (drawn,) = axis.plot(list(shares), [mean(some) for some in shares.values()], marker="o", markersize=4, label=label)
    lowest, highest = [min(some) for some in shares.values()], [max(some) for some in shares.values()]
    axis.fill_between(list(shares), lowest, highest, color=drawn.get_color(), alpha=0.15, linewidth=0)
    floor = next(iter(lines.values()))[0].floor
    if floor is not None:
        axis.axhline(floor, color=drawn.get_color(), linestyle="--", linewidth=0.9)


def learning_curve(out: Path, sizes: Iterable[int], seeds: Sequence[int], steps: int, jobs: int) -> None:
    """Measure what is not measured yet, then write table, picture and all scores into `out`."""
    place = out / f"runs_{fingerprint(steps)}"
    place.mkdir(parents=True, exist_ok=True)
    cells = [Cell(rows, seed, place / f"rows_{rows:04d}_seed_{seed}") for rows in sizes for seed in seeds]
    test_data = place / "test" / "data"
    if not (test_data / "manifest.json").is_file():
        prepare(place / "test", Drawing(MEASURED_SEED), TEST_ROWS, "test", place / "test.log")
    with ThreadPoolExecutor(jobs) as pool:
        done = pool.map(lambda cell: measure(cell, test_data, steps, cell.folder.with_suffix(".log")), cells)
        for _ in progress(done, len(cells), "learning curve", "fine-tune"):
            pass
    scores = [scores_of(cell.folder / "eval") for cell in cells]
    write_json(out / "learning_curve.json", [_as_json(cell, one) for cell, one in zip(cells, scores, strict=True)])
    with write_whole(out / "learning_curve.md") as stream:
        stream.write(table(cells, scores))
    plot(out / "learning_curve.png", cells, scores)
    print(table(cells, scores))


def _as_json(cell: Cell, scores: Scores) -> dict[str, Any]:
    return {"rows": cell.rows, "seed": cell.seed, **{NAMES[name]: score.value for name, score in scores.items()}}


def main() -> int:
    """Measure the learning curve that the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=folder_to_write)
    parser.add_argument("--rows", type=count, nargs="+", default=ROWS)
    parser.add_argument("--seeds", type=count, nargs="+", default=SEEDS)
    parser.add_argument("--steps", type=count, default=STEPS, help="optimiser steps of every fine-tune")
    parser.add_argument("--jobs", type=count, default=1, help="fine-tunes at a time, one CPU thread each")
    asked = parser.parse_args()
    if seen := RESERVED_SEEDS & set(asked.seeds):
        parser.error(f"--seeds: {min(seen)} draws photos that are measured on, or that the base was trained on")
    try:
        learning_curve(asked.out.resolve(), sorted(set(asked.rows)), sorted(set(asked.seeds)), asked.steps, asked.jobs)
    except RiskvaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
