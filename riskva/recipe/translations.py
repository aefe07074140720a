"""Keys that go by another name here: those that transformers 5 renamed, and LLaMA-Factory's for the same thing.

A layer (a file, the command line) is translated before layers are merged, so that `warmup_ratio` in a recipe replaces
`warmup_steps` of the recipe that it extends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from riskva.recipe.document import Entry, Layers, with_parts
from riskva.recipe.faults import COMMAND_LINE, Fault
from riskva.recipe.values import Schema
from riskva.recipe.yaml_text import compose

NO_VALUE = object()
"""What `Translation.convert` returns for a value that leaves the key at its default."""


@dataclass(frozen=True)
class Translation:
    """An old name of `key`. `schema` is the old name's own, where its values differ; `convert` turns them."""

    key: str
    schema: Schema | None = None
    convert: Callable[[Any], Any] = lambda value: value


_ATTENTION = {"auto": NO_VALUE, "disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2"}
_BOOLEAN = {"type": "boolean"}

_ONLY_WHEN_TRUE = ("group_by_length", "adafactor", "neat_packing")
"""Names whose `false` says nothing of the key."""

TRANSLATIONS: Mapping[str, Translation] = {
    "output_path": Translation("output_dir"),
    "evaluation_strategy": Translation("eval_strategy"),
    "include_inputs_for_metrics": Translation(
        "include_for_metrics", _BOOLEAN, lambda value: ["inputs"] if value else NO_VALUE
    ),
    "no_cuda": Translation("use_cpu"),
    "adafactor": Translation("optim", _BOOLEAN, lambda value: "adafactor" if value else NO_VALUE),
    "activation_checkpointing": Translation("gradient_checkpointing"),
    "disable_gradient_checkpointing": Translation(
        "gradient_checkpointing", _BOOLEAN, lambda value: False if value else NO_VALUE
    ),
    "group_by_length": Translation(
        "train_sampling_strategy", _BOOLEAN, lambda value: "group_by_length" if value else NO_VALUE
    ),
    "neat_packing": Translation("packing"),  # rows that are packed here never see each other
    "warmup_ratio": Translation(
        "warmup_steps", {"type": "number", "minimum": 0, "exclusiveMaximum": 1}, lambda value: value or NO_VALUE
    ),
    "flash_attn": Translation(
        "attn_implementation", {"type": "string", "enum": list(_ATTENTION)}, lambda value: _ATTENTION[value]
    ),
}

REMOVED: Mapping[str, tuple[Any, str]] = {
    "save_safetensors": (True, "transformers 5 always writes safetensors"),
    "use_mps_device": (False, "transformers 5 finds the device itself; use_cpu: true keeps it on the CPU"),
    "use_ipex": (False, "transformers 5 has no IPEX"),
    "jit_mode_eval": (False, "transformers 5 has no jit_mode_eval"),
    "half_precision_backend": ("auto", "transformers 5 has one backend for half precision"),
    "fp16_backend": ("auto", "transformers 5 has one backend for half precision"),
    "fp16_opt_level": ("O1", "transformers 5 has no apex"),
    "past_index": (-1, "transformers 5 has no past_index"),
    "torchdynamo": (None, "use torch_compile"),
    "ray_scope": ("last", "RisKVA searches no hyperparameters"),
    "mp_parameters": ("", "transformers 5 has no SageMaker model parallelism"),
    "tpu_num_cores": (None, "transformers 5 has no tpu_num_cores"),
    "dispatch_batches": (None, "use accelerator_config"),
    "split_batches": (None, "use accelerator_config"),
    "include_tokens_per_second": (False, "use include_num_input_tokens_seen"),
    "use_legacy_prediction_loop": (False, "transformers 5 has one prediction loop"),
    "push_to_hub_token": (None, "use hub_token"),
    "push_to_hub_model_id": (None, "use hub_model_id"),
    "push_to_hub_organization": (None, "use hub_model_id"),
}
"""Fields of TrainingArguments that transformers 5 dropped: the value that still holds, and what to do instead."""


def key_of(entry: Entry) -> str:
    """The name that RisKVA gives the entry's key."""
    translation = TRANSLATIONS.get(entry.key)
    return translation.key if translation else entry.key


def merge_layers(layers: Layers, defaults: Mapping[str, Any]) -> tuple[dict[str, Entry], list[Fault]]:
    """The entry that counts for each of RisKVA's keys, later layers over earlier ones.

    The faults name keys of one layer that say two different things about one. Of `warmup_ratio` and `warmup_steps`, one
    that is 0 yields to the other, as it did in transformers 4. A dotted override changes a part of what the files say,
    or of the default.
    """
    merged: dict[str, Entry] = {}
    faults: list[Fault] = []
    for layer in layers.layers:
        seen: dict[str, Entry] = {}
        for entry in layer:
            key = key_of(entry)
            outcome = (
                _with_part(merged.get(key), entry, defaults.get(key)) if entry.parts else _pick(seen.get(key), entry)
            )
            if isinstance(outcome, Fault):
                faults.append(outcome)
            else:
                seen[key] = merged[key] = outcome
    return merged, faults


def _with_part(old: Entry | None, entry: Entry, default: Any) -> Entry | Fault:
    base = old.node if old else compose(json.dumps(default), COMMAND_LINE) if default is not None else None
    node = with_parts(base, entry)
    return node if isinstance(node, Fault) else Entry(entry.key, node, entry.place)


def _pick(other: Entry | None, entry: Entry) -> Entry | Fault:
    if other is None or other.key == entry.key or _says_nothing(other):
        return entry
    if _says_nothing(entry) or (
        _is_mere_rename(entry) and _is_mere_rename(other) and entry.node.value == other.node.value
    ):
        return other
    text = f"{entry.key}: contradicts {other.key} ({other.place}); both set {key_of(entry)}, keep one"
    return Fault(entry.place, text)


def _says_nothing(entry: Entry) -> bool:
    value = str(entry.node.value).lower()
    if key_of(entry) == "warmup_steps":
        return value in ("0", "0.0", "", "null", "~")
    return value in ("", "null", "~") or (entry.key in _ONLY_WHEN_TRUE and value == "false")


def _is_mere_rename(entry: Entry) -> bool:
    return entry.key not in TRANSLATIONS or TRANSLATIONS[entry.key].schema is None
