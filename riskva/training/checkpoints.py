"""Checkpoints that a run can go on from."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from riskva.console import warn
from riskva.errors import OutputFolderError

ALWAYS_NEEDED = ("trainer_state.json", "training_args.bin", "scheduler.pt")
WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")


def checkpoints_in(output_dir: Path) -> list[Path]:
    """`checkpoint-N` folders, the furthest step first (by number: times of files lie after a copy)."""
    found = [(int(match[1]), path) for path in output_dir.glob("checkpoint-*") if (match := _step(path))]
    return [path for _, path in sorted(found, reverse=True)]


def _step(path: Path) -> re.Match[str] | None:
    return re.fullmatch(r"checkpoint-(\d+)", path.name) if path.is_dir() else None


def missing_parts(checkpoint: Path) -> list[str]:
    """What a checkpoint lacks to be resumed exactly: transformers would go on without it, with other results."""
    names = {path.name for path in checkpoint.iterdir()}
    missing = [name for name in ALWAYS_NEEDED if name not in names]
    if not names.intersection(WEIGHTS):
        missing.append("model weights")
    elif "config.json" not in names and "adapter_model.safetensors" not in names:
        missing.append("config.json")
    if "optimizer.pt" not in names and not any(path.is_dir() for path in checkpoint.glob("global_step*")):
        missing.append("optimizer state")
    if not any(name.startswith("rng_state") for name in names):
        missing.append("random number state")
    return missing + [f"whole {path.name}" for path in sorted(checkpoint.iterdir()) if _is_torn(path)]


def _is_torn(path: Path) -> bool:
    """Whether a file ends before its format says that it does; its contents are not read."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="pt"):  # opening compares the header with the file's size
                pass
        elif path.suffix in (".pt", ".pth", ".bin"):
            return not zipfile.is_zipfile(path)  # torch saves zip archives, whose directory comes last
    except (ValueError, OSError, SafetensorError):
        return True
    return False


def is_at_the_end(checkpoint: Path) -> bool:
    """Whether the run that saved a whole checkpoint had no step left to take."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return bool(state["global_step"] >= state["max_steps"])


def newest_whole_checkpoint(output_dir: Path) -> Path | None:
    """The furthest checkpoint that has all its parts; damaged ones are passed over with a warning."""
    for checkpoint in checkpoints_in(output_dir):
        missing = missing_parts(checkpoint)
        if not missing:
            return checkpoint
        warn(f"{checkpoint} is incomplete (no {', '.join(missing)}) and is passed over")
    return None


def require_whole(checkpoint: Path) -> Path:
    """`checkpoint`, or `OutputFolderError` when it cannot be resumed exactly."""
    if not checkpoint.is_dir():
        raise OutputFolderError(f"resume_from_checkpoint: no folder {checkpoint}")
    missing = missing_parts(checkpoint)
    if missing:
        raise OutputFolderError(f"resume_from_checkpoint: {checkpoint} lacks {', '.join(missing)}")
    return checkpoint
