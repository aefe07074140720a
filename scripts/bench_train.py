"""RisKVA's training beside a plain loop of transformers' Trainer and PEFT, in one run on this machine's CPU.

    python scripts/bench_train.py [--precision float32 bfloat16] [--epochs 4] [--repeats 3] [--threads 2] [--out F.json]

Both sides train the same model of 75.8 M weights, of the 7B's proportions, on the same 16 rows with a photo each, in
the same order, 8 in each optimiser step, in the same precision and at the same learning rate, with LoRA on all linear
layers of the language model and no gradient checkpointing. Both read their rows through `riskva.encoding.encode`.

- plain: AutoModelForImageTextToText, PEFT, Trainer, batches padded on the right, the model's own loss. One line makes
  it comparable: Trainer is told to divide by the supervised tokens of the optimiser step. By itself it averages the
  means of micro-batches for this model, which is another loss.
- RisKVA: `riskva-run` with a recipe, `vision_cache: memory`; with `torch_compile` too in bfloat16.

Each training is a process of its own, and the sides take turns. Rates are medians over all later epochs of all repeats.
The first step counts from the end of the imports: opening the rows, loading the model, and what is compiled. Memory is
the most resident memory over what the process had after its imports. Exit status 1 if a bound of BOUNDS is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any
from unittest.mock import patch

import torch
from bench_shapes import SMALL, TINY, Size, write_model, write_rows
from command_line import count, file_to_write
from transformers import (
    AutoModelForImageTextToText,
    DefaultFlowCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from riskva.data.datasets import ConversationDataset, open_datasets
from riskva.encoding import Collator, encode, load_processor
from riskva.files import write_json
from riskva.training.throughput import matmul_rate

PLAIN, RISKVA, COMPILED_FIRST, COMPILED = "plain", "riskva", "riskva_compiled_first", "riskva_compiled"
NAMES = {
    PLAIN: "plain loop",
    RISKVA: "RisKVA",
    COMPILED_FIRST: "RisKVA, torch_compile, nothing kept",
    COMPILED: "RisKVA, torch_compile, later starts",
}
SIDES = {"float32": (PLAIN, RISKVA), "bfloat16": (PLAIN, RISKVA, COMPILED_FIRST, COMPILED)}
"""What is trained in each precision, in this order; COMPILED takes what COMPILED_FIRST has compiled."""

BOUNDS = {("float32", RISKVA): 1.5, ("bfloat16", RISKVA): 1.8, ("bfloat16", COMPILED): 3.5}
"""The least number of times the plain loop's samples a second, from the second epoch on."""
MOST_LOSS_DIFFERENCE = 1e-4
"""In float32, at any step."""

LORA_RANK, LORA_ALPHA, LEARNING_RATE, SEED = 8, 16, 5e-4, 42
PLAIN_BATCH, RISKVA_BATCH = (2, 4), (8, 1)
"""Rows of a micro-batch, and micro-batches of a step. As 8 x 1 the plain loop is no faster, because it pads more."""
LANGUAGE_MODEL = r".*language_model\..*_proj"


@dataclass(frozen=True)
class Job:
    """One training in a process of its own."""

    side: str
    precision: str
    folder: str
    """Where `model` and `rows` are."""
    epochs: int
    threads: int

    @property
    def bf16(self) -> bool:
        """Whether it computes in bfloat16, over weights in it."""
        return self.precision == "bfloat16"


@dataclass(frozen=True)
class Run:
    """What a training took."""

    side: str
    precision: str
    first_step: float
    """Seconds from the end of the imports to the end of the first optimiser step."""
    epochs: list[float]
    """Seconds of each epoch."""
    losses: list[float]
    """Of each optimiser step."""
    peak_bytes: int
    """The most resident memory over that of a process with its imports and nothing else."""


class StepClock(TrainerCallback):
    """Notes when steps and epochs end, and the losses that are logged."""

    def __init__(self) -> None:
        self._started = self._epoch_began = time.perf_counter()
        self.first_step = 0.0
        self.epochs: list[float] = []
        self.losses: list[float] = []

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """An epoch begins."""
        self._epoch_began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """An optimiser step is over."""
        self.first_step = self.first_step or time.perf_counter() - self._started

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """An epoch is over."""
        self.epochs.append(time.perf_counter() - self._epoch_began)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """The mean loss of a step comes with each."""
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


class PlainTrainer(Trainer):
    """transformers' own, made to divide by the supervised tokens of the optimiser step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True


@dataclass(frozen=True)
class PlainRows(torch.utils.data.Dataset[Any]):
    """Rows that are encoded when they are asked for."""

    rows: ConversationDataset
    processor: Any

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return encode(self.rows[index], self.processor)


def training_keys(job: Job) -> dict[str, Any]:
    """The fields of TrainingArguments that a side is given."""
    rows, accumulated = PLAIN_BATCH if job.side == PLAIN else RISKVA_BATCH
    return {
        "output_dir": f"{job.folder}/out_{job.side}_{job.precision}",
        "num_train_epochs": job.epochs,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulated,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "bf16": job.bf16,
        "use_cpu": True,
        "seed": SEED,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "dataloader_num_workers": 0,
        "disable_tqdm": True,
    }


def train_plain(job: Job) -> None:
    """As an engineer would write it."""
    from peft import LoraConfig, get_peft_model

    args = TrainingArguments(**training_keys(job), remove_unused_columns=False, label_names=["labels"])
    set_seed(SEED)
    processor = load_processor(Path(job.folder) / "model")
    rows = open_datasets(["rows"], Path(job.folder) / "rows")
    dtype = torch.bfloat16 if job.bf16 else torch.float32
    model = AutoModelForImageTextToText.from_pretrained(f"{job.folder}/model", dtype=dtype)
    lora = LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=LANGUAGE_MODEL, task_type="CAUSAL_LM")
    PlainTrainer(
        model=get_peft_model(model, lora),
        args=args,
        train_dataset=PlainRows(rows, processor),
        data_collator=Collator(processor),
    ).train()


def train_riskva(job: Job) -> None:
    """As a user runs it. Raises `RuntimeError` where `riskva-run` ends with another status than 0."""
    from riskva.cli import main as riskva_run

    recipe = Path(job.folder) / f"{job.side}_{job.precision}.json"  # JSON is YAML
    keys = {
        "stage": "sft",
        "model_name_or_path": f"{job.folder}/model",
        "dataset_dir": f"{job.folder}/rows",
        "dataset": "rows",
        "lora_rank": LORA_RANK,
        "lora_alpha": LORA_ALPHA,
        "gradient_checkpointing": False,
        "vision_cache": "memory",
        "vision_cache_gb": 1.0,
        "torch_compile": job.side in (COMPILED_FIRST, COMPILED),
        "plot_loss": False,
        "overwrite_output_dir": True,
    }
    write_json(recipe, keys | training_keys(job))
    if status := riskva_run([str(recipe)]):
        raise RuntimeError(f"riskva-run {recipe} ended with status {status}")


def train(job: Job) -> Run:
    """Train in this process, and say what it took."""
    import_all()
    torch.set_num_threads(job.threads)
    before, clock = memory("VmRSS"), StepClock()
    with patch("transformers.trainer.DEFAULT_CALLBACKS", [DefaultFlowCallback, clock]):
        (train_plain if job.side == PLAIN else train_riskva)(job)
    return Run(job.side, job.precision, clock.first_step, clock.epochs, clock.losses, memory("VmHWM") - before)


def import_all() -> None:
    """What either side imports, so that neither pays for it later."""
    import peft  # noqa: F401

    import riskva.jobs.sft  # noqa: F401


def memory(name: str) -> int:
    """Bytes of resident memory, `VmRSS`, or the most so far, `VmHWM`."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no line {name}")


def in_a_process(job: Job) -> Run:
    """`train` in a process of its own. Its output is shown if it fails."""
    result = Path(job.folder) / "run.json"
    kept = {"TORCHINDUCTOR_CACHE_DIR": f"{job.folder}/compiled_{job.precision}"}
    threads = {"OMP_NUM_THREADS": str(job.threads), "TOKENIZERS_PARALLELISM": "false"}
    offline = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, "--job", json.dumps(asdict(job)), "--out", str(result)]
    environment = os.environ | kept | threads | offline
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        sys.exit(f"{NAMES[job.side]} in {job.precision} failed:\n{done.stdout.decode(errors='replace')[-4000:]}")
    return Run(**json.loads(result.read_text("utf-8")))


def run_rounds(job: Job, sides: Sequence[str], repeats: int, show: Callable[[str], None]) -> Iterator[Run]:
    """All sides in turn, and again; what only a first start is like, once."""
    for number in range(repeats):
        for side in sides:
            if side == COMPILED_FIRST and number:
                continue
            show(f"{job.precision}, repeat {number + 1} of {repeats}: {NAMES[side]}")
            yield in_a_process(replace(job, side=side))


@dataclass(frozen=True)
class Summary:
    """Medians of one side in one precision."""

    side: str
    precision: str
    first_epoch: float
    """Samples a second."""
    later_epochs: float
    first_step: float
    """Seconds."""
    peak_bytes: float
    curves: list[list[float]]
    """The loss of each optimiser step, by repeat."""


def summarise(runs: Sequence[Run], num_rows: int) -> list[Summary]:
    """The medians over repeats, side by side in the order of the runs."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.precision, run.side), []).append(run)
    return [
        Summary(
            side,
            precision,
            num_rows / median(run.epochs[0] for run in some),
            num_rows / median(seconds for run in some for seconds in run.epochs[1:]),
            median(run.first_step for run in some),
            median(run.peak_bytes for run in some),
            [run.losses for run in some],
        )
        for (precision, side), some in groups.items()
    ]


def plain_beside(one: Summary, summaries: Sequence[Summary]) -> Summary:
    """The plain loop in the same precision."""
    return next(other for other in summaries if (other.precision, other.side) == (one.precision, PLAIN))


def loss_difference(one: Summary, other: Summary) -> float:
    """The largest at any step of any repeat, against the first of the other."""
    losses, beside = torch.tensor(one.curves, dtype=torch.float64), torch.tensor(other.curves[0], dtype=torch.float64)
    return float((losses - beside).abs().max())


def table(summaries: Sequence[Summary]) -> Iterator[str]:
    """The medians as lines, then the losses."""
    yield f"{'':46}{'samples/s of epoch':>22}{'':9}{'first step':>11}{'memory':>9}{'loss differs':>14}"
    yield f"{'':46}{'first':>11}{'later':>11}{'x plain':>9}{'s':>11}{'MB':>9}{'by at most':>14}"
    for one in summaries:
        plain = plain_beside(one, summaries)
        rates = f"{one.first_epoch:11.3f}{one.later_epochs:11.3f}{one.later_epochs / plain.later_epochs:9.2f}"
        rest = f"{one.first_step:11.1f}{one.peak_bytes / 1e6:9.0f}{loss_difference(one, plain):14.1e}"
        yield f"{one.precision:10}{NAMES[one.side]:36}{rates}{rest}"
    yield "\nlosses of each optimiser step, first repeat"
    for one in summaries:
        yield f"{one.precision:10}{NAMES[one.side]:36}" + " ".join(f"{loss:.5f}" for loss in one.curves[0])


def broken_bounds(summaries: Sequence[Summary], judges_speed: bool = True) -> list[str]:
    """What of BOUNDS and MOST_LOSS_DIFFERENCE is not kept."""
    broken = []
    for one in summaries:
        plain, name = plain_beside(one, summaries), f"{one.precision}, {NAMES[one.side]}"
        times, least = one.later_epochs / plain.later_epochs, BOUNDS.get((one.precision, one.side), 0.0)
        if judges_speed and times < least:
            broken.append(f"{name}: {times:.2f} times the plain loop's later epochs, at least {least:g}")
        difference = loss_difference(one, plain)
        if one.precision == "float32" and not difference <= MOST_LOSS_DIFFERENCE:
            broken.append(f"{name}: the loss differs by {difference:.1e}, at most {MOST_LOSS_DIFFERENCE:g}")
    return broken


def described(folder: Path, threads: int) -> dict[str, Any]:
    """The machine, the model and the rows that all of it was measured on."""
    processor = load_processor(folder / "model")
    rows = [encode(row, processor) for row in open_datasets(["rows"], folder / "rows")]
    torch.set_num_threads(threads)
    cpu, dtypes = torch.device("cpu"), (torch.float32, torch.bfloat16)
    return {
        "cpu": cpu_name(),
        "threads": threads,
        "torch": torch.__version__,
        "matmul_tflops": {str(one).removeprefix("torch."): matmul_rate(cpu, one) / 1e12 for one in dtypes},
        "rows": len(rows),
        "tokens_a_row": mean(len(row.input_ids) for row in rows),
        "supervised_a_row": mean(int((row.labels >= 0).sum()) for row in rows),
        "lora_rank": LORA_RANK,
        "batch": f"plain {PLAIN_BATCH[0]} x {PLAIN_BATCH[1]}, RisKVA {RISKVA_BATCH[0]} x {RISKVA_BATCH[1]}",
    }


def cpu_name() -> str:
    """The processor's name, as Linux has it."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def heading(about: dict[str, Any]) -> str:
    """The same in a line or two."""
    rates = ", ".join(f"{rate:.2f} TFLOP/s in {name}" for name, rate in about["matmul_tflops"].items())
    tokens = f"{about['tokens_a_row']:.0f} tokens a row, {about['supervised_a_row']:.0f} of them supervised"
    return (
        f"{about['cpu']}, {about['threads']} threads, torch {about['torch']}; matrix products: {rates}\n"
        f"{about['rows']} rows, {tokens}; LoRA r={about['lora_rank']}, batch {about['batch']}\n"
    )


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--precision", nargs="+", choices=tuple(SIDES), default=list(SIDES))
    parser.add_argument("--epochs", type=count, default=4)
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--threads", type=count, default=os.cpu_count())
    parser.add_argument("--rows", type=count, default=16)
    parser.add_argument("--sides", nargs="+", choices=tuple(NAMES), help="these beside the plain loop; default: all")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to see that all runs; speed is not judged")
    parser.add_argument("--out", type=file_to_write, help="all that was measured, as JSON")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.epochs < 2:
        parser.error("--epochs: at least 2, since the later ones are compared")
    return asked


def measure(asked: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[Run]]:
    """Write the model and the rows into the folder, and train on them in all ways."""
    size: Size = TINY if asked.tiny else SMALL
    write_model(folder / "model", size)
    write_rows(folder / "rows", size, asked.rows)
    about = described(folder, asked.threads)
    print(heading(about), flush=True)
    wanted = {PLAIN, *(asked.sides or NAMES)}
    runs: list[Run] = []
    for precision in asked.precision:
        job = Job("", precision, str(folder), asked.epochs, asked.threads)
        sides = [side for side in SIDES[precision] if side in wanted]
        runs += run_rounds(job, sides, asked.repeats, lambda text: print(text, file=sys.stderr, flush=True))
    return about, runs


def main() -> int:
    """Train in all ways, print the table, and compare with the bounds."""
    asked = options()
    if asked.job:
        write_json(asked.out, asdict(train(Job(**json.loads(asked.job)))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        about, runs = measure(asked, Path(folder))
    summaries = summarise(runs, asked.rows)
    print("\n".join(table(summaries)))
    broken = broken_bounds(summaries, judges_speed=not asked.tiny)
    print("\n".join(["", *broken]) if broken else "\nall bounds are kept")
    if asked.out:
        results = {"summaries": [asdict(one) for one in summaries], "runs": [asdict(one) for one in runs]}
        write_json(asked.out, {"about": about, **results, "broken": broken})
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
