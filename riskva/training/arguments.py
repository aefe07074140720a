"""A recipe becomes transformers' TrainingArguments."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from transformers import TrainingArguments

from riskva.data.parallel import num_photo_workers
from riskva.errors import RecipeError
from riskva.recipe import SftRecipe


def build_arguments(recipe: SftRecipe) -> TrainingArguments:
    """The recipe's TrainingArguments, with what RisKVA's data path needs and defaults that are safe for it.

    Raises `RecipeError` when transformers refuses a value.
    """
    num_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    num_workers = recipe.training.get("dataloader_num_workers", num_photo_workers(num_processes))
    values = {**_defaults(num_workers), **recipe.training, **_fixed(recipe)}
    if values.get("deepspeed") and not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if recipe.logging_dir is not None:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(recipe.logging_dir)  # transformers 5 reads it from here alone
    try:
        args = TrainingArguments(**values)
    except (ValueError, TypeError, KeyError) as error:
        raise RecipeError(f"transformers refuses the training keys: {error}") from error
    if args.deepspeed:
        _tell_deepspeed_of_the_processes()
    return args


def compute_dtype(recipe: SftRecipe) -> torch.dtype:
    """The dtype that the frozen weights are loaded in."""
    if recipe.training.get("bf16"):
        return torch.bfloat16
    return torch.float16 if recipe.training.get("fp16") else torch.float32


def _tell_deepspeed_of_the_processes() -> None:
    """Let DeepSpeed know the process group: on a CPU accelerate sets up torch's alone, and ZeRO-3 would count one."""
    import deepspeed.comm

    if not deepspeed.comm.is_initialized():
        deepspeed.comm.init_distributed("nccl" if torch.cuda.is_available() else "gloo", verbose=False)


def _defaults(num_workers: int) -> dict[str, Any]:
    return {
        "report_to": "none",
        # Photos are decoded by the workers; without them the accelerator waits.
        "dataloader_num_workers": num_workers,
        # They stay over the epochs, so that they need not be started again.
        "dataloader_persistent_workers": num_workers > 0,
        "disable_tqdm": not sys.stderr.isatty(),
        "use_cpu": not torch.accelerator.is_available(),
        # Every trainable weight takes part in every batch (see always_runs_tower of the model).
        "ddp_find_unused_parameters": False,
        # Trainer would log a loss that is not a number as 0.
        "logging_nan_inf_filter": False,
    }


def _fixed(recipe: SftRecipe) -> dict[str, Any]:
    return {
        "output_dir": str(recipe.output_dir),
        "do_train": True,
        "do_eval": bool(recipe.eval_dataset or recipe.val_size),
        "remove_unused_columns": False,
        "label_names": ["labels"],
    }
