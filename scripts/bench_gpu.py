"""LoRA training of Qwen2.5-VL on one accelerator: a plain loop, and RisKVA with one lever after the other switched on.

    python scripts/bench_gpu.py --out bench_gpu.json [--minutes 9] [--models 7B 3B] [--photos 1024 448]
    python scripts/bench_gpu.py --out /tmp/tiny.json --device cpu --tiny        # does it run?

The models have the published shapes and random weights, made on the device in bfloat16; the network is not needed, nor
any file but this repository's. LoRA of rank 64 is on all linear layers of the language model. A row is a photo of
random patches, a question, and an answer of 100 tokens on average. A step is one micro-batch forward and backward and
AdamW; micro-batches are as large as the memory allows, up to --max-tokens. Each line is a process of its own, and the
median of --steps steps after a warm-up.

    plain      transformers' model, PEFT, gradient checkpointing as Trainer switches it on, padding, the model's loss
    packed     RisKVA's model. Three things come together with it: samples in one row and no padding, attention by a
               kernel for sequences of different lengths (windows of the tower too), logits of supervised positions only
    no_grad    + the frozen tower is not run backwards
    cached     + the photos' features come from the vision cache: what the second epoch and all later ones are
    as_needed  + gradient checkpointing in as few layers as the memory asks for
    compiled   + torch_compile

MFU is `riskva.modeling.flops.model_flops` (what the step needs, without what is computed twice, without a tower whose
output is cached) over the rate of a large matrix product, measured in the same process. First of all it is checked on
the device that packed, cached and padded samples have the same loss and gradients.

Results are added to --out as they come; a second call with the same file does what is missing, and what failed, again.
The most telling lines come first, and what is not done when --minutes are over is left out. Exit status 1 if a check
or a line failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from command_line import count, file_to_write
from gpu_bench.checks import Check, check, kernel_name
from gpu_bench.models import LEVERS, Line
from gpu_bench.trials import Settings, measure

from riskva.files import write_json

TELLING = ("plain", "compiled", "as_needed")
PAIRS = (("7B", 1024), ("3B", 448), ("3B", 1024), ("7B", 448))
"""Models and photos' sides, the most telling first."""

SECONDS_OF_A_LINE = 40
"""No line is begun with less time left."""


def lines_in_order(models: Sequence[str], photos: Sequence[int], levers: Sequence[str]) -> Iterator[Line]:
    """The most telling first: two pairs of model and photo with few levers, the same with all, then the other pairs."""
    pairs = [pair for pair in PAIRS if pair[0] in models and pair[1] in photos]
    others = [lever for lever in LEVERS if lever not in TELLING]
    for some in (pairs[:2], pairs[2:]):
        for which in (TELLING, others):
            yield from (Line(*pair, lever) for pair in some for lever in which if lever in levers)


class Results:
    """What is known so far, in a file that is whole at any time."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self._path = path
        found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {"about": about}
        if found["about"] != about:
            sys.exit(f"{path} holds results of {found['about']}, and this is {about}: name another file")
        self._about = about
        self.done: dict[str, Any] = {key: one for key, one in found.get("done", {}).items() if "error" not in one}

    def add(self, key: str, value: dict[str, Any]) -> None:
        """Keep a line's numbers, the checks, or an error."""
        self.done[key] = value
        write_json(self._path, {"about": self._about, "done": self.done})


CHECKS = "checks"


def in_a_process(name: str, job: dict[str, Any], seconds: float) -> dict[str, Any] | None:
    """What `do` gives in a process of its own, or its error; None if it was not done in time."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, __file__, "--job", json.dumps(job), "--out", str(result)]
        environment = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "HF_HUB_OFFLINE": "1", **os.environ}
        try:
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            print(f"{name}: cut off, the time is over", flush=True)
            return None
        if done.returncode:
            return {"error": done.stdout.decode(errors="replace")[-2000:]}
        found: dict[str, Any] = json.loads(result.read_text("utf-8"))
        return found


def do(job: dict[str, Any]) -> dict[str, Any]:
    """The checks, or one line, in this process."""
    settings = Settings(**job["settings"])
    if job["line"] is None:
        found = check(torch.device(settings.device), settings.is_tiny)
        return {"checks": [{**asdict(one), "holds": one.holds} for one in found]}
    return asdict(measure(Line(**job["line"]), settings))


def do_all(asked: argparse.Namespace, settings: Settings, results: Results) -> None:
    """The checks and the lines that are missing, until the time is over."""
    end = time.monotonic() + 60 * asked.minutes
    jobs: list[tuple[str, Line | None]] = [(CHECKS, None)]
    jobs += [(line.key, line) for line in lines_in_order(asked.models, asked.photos, asked.levers)]
    for key, line in jobs:
        left = end - time.monotonic()
        if key in results.done:
            continue
        if left < SECONDS_OF_A_LINE:
            print(f"{key}: left out, the time is over", flush=True)
            continue
        job = {"settings": asdict(settings), "line": asdict(line) if line else None}
        found = in_a_process(key, job, left)
        if found is not None:
            results.add(key, found)
            print(shown(key, found), flush=True)


def shown(key: str, found: dict[str, Any]) -> str:
    """A result as lines."""
    if "error" in found:
        return f"{key}: failed\n{found['error']}"
    if key == CHECKS:
        lines = [Check(one["name"], one["difference"], one["allowed"]) for one in found["checks"]]
        return "\n".join(
            f"{'' if one.holds else 'NOT KEPT: '}{one.name}: {one.difference:.1e}, at most {one.allowed:g}"
            for one in lines
        )
    return f"{key}: {found['samples_per_second']:.2f} samples/s, MFU {found['mfu']:.1%}"


def table(done: dict[str, Any], levers: Sequence[str] = LEVERS) -> Iterator[str]:
    """All lines, by model and photo."""
    batch = f"{'batch':>7}{'tokens':>8}{'twice':>7}"
    yield f"{'':28}{'samples/s':>10}{'x plain':>9}{'MFU':>7}{batch}{'GB':>7}{'planned':>9}"
    for model, photo in PAIRS:
        plain = done.get(Line(model, photo, "plain").key, {}).get("samples_per_second")
        for lever in levers:
            one = done.get(Line(model, photo, lever).key)
            if one and "error" not in one:
                yield f"{f'{model}, {photo} x {photo}':17}{lever:11}" + row_of(one, plain)


def row_of(one: dict[str, Any], plain: float | None) -> str:
    """A line's numbers in columns."""
    times = f"{one['samples_per_second'] / plain:9.2f}" if plain else f"{'':9}"
    planned = f"{one['estimated_bytes'] / 1e9:9.1f}" if one["estimated_bytes"] else ""
    size = f"{one['samples']:7}{one['samples'] * one['tokens_a_sample']:8.0f}{one['layers_checkpointed']:7}"
    return f"{one['samples_per_second']:10.2f}{times}{one['mfu']:7.1%}{size}{one['peak_bytes'] / 1e9:7.1f}{planned}"


EXPLAINED = """\
batch    samples of a micro-batch; tokens: of all of them without padding; twice: layers that are computed twice
GB       most memory of tensors; planned: as riskva.modeling.memory estimates it"""


def about_this(settings: Settings) -> dict[str, Any]:
    """What all results of a file have in common."""
    is_cuda = torch.device(settings.device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if is_cuda else settings.device,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "kernel": kernel_name(torch.device(settings.device)),
        "settings": asdict(settings),
    }


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--out", type=file_to_write, required=True, help="results, as JSON; what it holds is not redone"
    )
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--models", nargs="+", choices=("7B", "3B"), default=["7B", "3B"])
    parser.add_argument("--photos", nargs="+", type=int, choices=(1024, 448), default=[1024, 448])
    parser.add_argument("--levers", nargs="+", choices=LEVERS, default=list(LEVERS))
    parser.add_argument("--steps", type=count, default=5)
    parser.add_argument("--samples", type=count, help="of a micro-batch; default: what the memory allows")
    parser.add_argument("--max-tokens", type=count, default=32768, help="of a micro-batch; more makes nothing faster")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to see that all runs")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.job:
        return asked
    if torch.device(asked.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is here; --device cpu --tiny tries whether the script runs")
    if torch.device(asked.device).type == "cpu" and asked.samples is None:
        asked.samples = 2  # a CPU's memory has no end that is found by trying
    return asked


def main() -> int:
    """Measure what is asked for and missing, and print all that is known."""
    asked = options()
    if asked.job:
        write_json(asked.out, do(json.loads(asked.job)))
        return 0
    settings = Settings(asked.device, asked.tiny, asked.steps, asked.samples, asked.max_tokens)
    results = Results(asked.out, about_this(settings))
    do_all(asked, settings, results)
    print("\n".join(["", *table(results.done), EXPLAINED]))
    failed = [key for key, one in results.done.items() if "error" in one]
    broken = [one["name"] for one in results.done.get(CHECKS, {}).get("checks", []) if not one["holds"]]
    print("\n".join([f"failed: {name}" for name in (*failed, *broken)]))
    return 1 if failed or broken else 0


if __name__ == "__main__":
    sys.exit(main())
