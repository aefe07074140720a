"""The keys that LLaMA-Factory has and RisKVA has not, so that its recipes run here or say exactly why not.

`llamafactory_keys.json` holds them by argument class with LLaMA-Factory's own default values. A key at its default (or
null) asks for nothing and passes; a key whose meaning cannot touch the result is ignored with a warning; any other
value is an error, because a recipe must never quietly do something else than it says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

OTHER_STAGES = ("pt", "rm", "ppo", "dpo", "kto")

_PHOTOS_ONLY = "RisKVA reads photos only"
_DOWNLOADS = "set it in the environment of huggingface_hub"

IGNORED: Mapping[str, str] = {
    "trust_remote_code": "RisKVA never runs code from a model's repository",
    "overwrite_cache": "RisKVA keeps lengths alone, and measures again what has changed",
    "data_shared_file_system": "RisKVA's main process measures the rows for all",
    "preprocessing_batch_size": "RisKVA encodes rows one by one",
    "video_max_pixels": _PHOTOS_ONLY,
    "video_min_pixels": _PHOTOS_ONLY,
    "video_fps": _PHOTOS_ONLY,
    "video_maxlen": _PHOTOS_ONLY,
    "use_audio_in_video": _PHOTOS_ONLY,
    "audio_sampling_rate": _PHOTOS_ONLY,
    "export_legacy_format": "RisKVA always writes safetensors",
    "use_fast_tokenizer": "transformers 5 has one tokenizer for each model",
    "low_cpu_mem_usage": "transformers 5 always loads this way",
    "offload_folder": "RisKVA offloads nothing to disk",
    "print_param_status": "RisKVA prints which parameters train",
    "include_effective_tokens_per_second": "RisKVA's training log always has the rate",
    "enable_thinking": "Qwen2.5-VL has no thinking mode",
    "preserve_thinking": "Qwen2.5-VL has no thinking mode",
    "pad_to_multiple_of": "padding never changes the result; RisKVA pads to the longest row of a batch",
    "cache_dir": f"{_DOWNLOADS} (HF_HUB_CACHE)",
    "hf_hub_token": f"{_DOWNLOADS} (HF_TOKEN)",
}
"""Keys that are accepted whatever their value, with the reason that the warning gives."""

_NO_QUANTISED_EXPORT = "an export is proven to answer as base + adapter does, which a quantised one does not"

NOT_OFFERED: Mapping[str, str] = dict.fromkeys(
    (f"export_quantization_{name}" for name in ("bit", "dataset", "nsamples", "maxlen")), _NO_QUANTISED_EXPORT
)
"""Keys that RisKVA leaves out on purpose, with the reason."""


@cache
def foreign_keys() -> Mapping[str, Any]:
    """LLaMA-Factory's keys that RisKVA has not, with LLaMA-Factory's defaults."""
    text = files("riskva.recipe").joinpath("llamafactory_keys.json").read_text(encoding="utf-8")
    return {name: default for group in json.loads(text).values() for name, default in group.items()}


def asks_for_nothing(key: str, value: Any) -> bool:
    """Whether `value` leaves the foreign key as if it were not there: null, or LLaMA-Factory's default."""
    default = foreign_keys()[key]
    if value is None or (value is False and default is None):
        return True
    return bool(isinstance(value, bool) == isinstance(default, bool) and value == default)
