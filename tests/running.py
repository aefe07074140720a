"""Running the shipped recipes as a user does, inside the test's process or beside it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from riskva.cli import main

REPOSITORY = Path(__file__).resolve().parents[1]

SHORT_TRAINING = (
    "bf16=false",
    "report_to=none",
    "learning_rate=1e-3",
    "logging_steps=1",
    "dataloader_num_workers=0",
    "gradient_accumulation_steps=1",
    "lora_dropout=0",
)


def riskva_run(recipe: str, *overrides: object) -> int:
    """`riskva-run recipes/{recipe} …` in this process; the exit status."""
    return main([str(REPOSITORY / "recipes" / recipe), *map(str, overrides)])


def start(recipe: str, *overrides: object, own_group: bool = False) -> subprocess.Popen[str]:
    """`riskva-run recipes/{recipe} …` in a process of its own, with what it says kept."""
    command = [sys.executable, "-m", "riskva.cli", f"recipes/{recipe}", *map(str, overrides)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, text=True, stderr=subprocess.PIPE, start_new_session=own_group
    )


def log_of(output_dir: Path) -> list[dict[str, Any]]:
    """The entries of a run's trainer_log.jsonl."""
    return [json.loads(line) for line in (output_dir / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()]


def losses_of(output_dir: Path) -> list[float]:
    """The training losses that a run logged, step by step."""
    return [entry["loss"] for entry in log_of(output_dir) if "loss" in entry]
