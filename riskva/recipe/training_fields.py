"""The fields of transformers' TrainingArguments as JSON schemas, read from `training_arguments.json`.

The file is written by scripts/dump_training_arguments.py, so that a recipe is checked without importing transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

Schema = Mapping[str, Any]

# transformers checks few ranges, and those only after torch is loaded.
_LIMITS: Mapping[str, Schema] = {
    "learning_rate": {"minimum": 0},
    "num_train_epochs": {"exclusiveMinimum": 0},
    "per_device_train_batch_size": {"minimum": 1},
    "per_device_eval_batch_size": {"minimum": 1},
    "gradient_accumulation_steps": {"minimum": 1},
    "eval_accumulation_steps": {"minimum": 1},
    "warmup_steps": {"minimum": 0},
    "weight_decay": {"minimum": 0},
    "adam_beta1": {"minimum": 0, "exclusiveMaximum": 1},
    "adam_beta2": {"minimum": 0, "exclusiveMaximum": 1},
    "adam_epsilon": {"exclusiveMinimum": 0},
    "max_grad_norm": {"minimum": 0},
    "label_smoothing_factor": {"minimum": 0, "exclusiveMaximum": 1},
    "logging_steps": {"exclusiveMinimum": 0},
    "eval_steps": {"exclusiveMinimum": 0},
    "save_steps": {"exclusiveMinimum": 0},
    "save_total_limit": {"minimum": 1},
    "dataloader_num_workers": {"minimum": 0},
    "dataloader_prefetch_factor": {"minimum": 1},
    "torch_empty_cache_steps": {"minimum": 1},
    "ddp_timeout": {"minimum": 1},
    "seed": {"minimum": 0},
    "data_seed": {"minimum": 0},
}

# `resume_from_checkpoint: true` means the newest checkpoint in the output folder, as `Trainer.train` takes it.
_MORE_TYPES: Mapping[str, tuple[str, ...]] = {"resume_from_checkpoint": ("boolean",)}

RISKVA_SETS: Mapping[str, tuple[Any, str]] = {
    "remove_unused_columns": (False, "the collator needs every column of a row"),
    "label_names": (["labels"], "the collator names the labels"),
    "push_to_hub": (False, "RisKVA uploads nothing; export the model and upload it yourself"),
    "batch_eval_metrics": (False, "evaluation gives the loss without logits; predict_with_generate scores reports"),
    "local_rank": (-1, "the launcher tells every process its rank"),
    "parallelism_config": (None, "it cannot be written in YAML"),
    "gradient_checkpointing_kwargs": ({"use_reentrant": False}, "checkpointing is never reentrant"),
    "activation_checkpointing_kwargs": ({"use_reentrant": False}, "checkpointing is never reentrant"),
    "torch_compile_backend": ("inductor", "torch_compile: true compiles with inductor"),
    "torch_compile_mode": ("default", "torch_compile: true compiles with inductor's default settings"),
    "use_liger_kernel": (False, "RisKVA's own loss and attention stand in its place"),
}
"""Fields that a recipe does not choose: the one value that it may repeat, and why there is no other."""

_RECIPE_KEYS = (
    "output_dir",
    "do_train",
    "do_eval",
    "do_predict",
    "gradient_checkpointing",
    "activation_checkpointing",
    "torch_compile",
)


@cache
def training_schemas() -> Mapping[str, Schema]:
    """The JSON schema of every field that a recipe may set, by name; `output_dir` is a key of the recipe itself."""
    text = files("riskva.recipe").joinpath("training_arguments.json").read_text(encoding="utf-8")
    fields = json.loads(text)["fields"]
    return {name: _schema(name, one) for name, one in fields.items() if name not in {*_RECIPE_KEYS, *RISKVA_SETS}}


def _schema(name: str, field: Mapping[str, Any]) -> Schema:
    options: list[dict[str, Any]] = []
    for kind in (*_MORE_TYPES.get(name, ()), *field["types"]):
        option: dict[str, Any] = {"type": kind}
        if kind == "string" and "choices" in field:
            option["enum"] = field["choices"]
        if kind in ("integer", "number"):
            option |= _LIMITS.get(name, {})
        options.append(option)
    if field["nullable"]:
        options.append({"type": "null"})
    return options[0] if len(options) == 1 else {"anyOf": options}
