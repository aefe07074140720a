"""Model folders become models: found, checked, loaded whole."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from transformers import BitsAndBytesConfig

from riskva.console import note
from riskva.errors import ModelError
from riskva.modeling.context import FILE_NAME as CONTEXT_FILE
from riskva.modeling.context import ModelContext
from riskva.modeling.model import Qwen2_5_VLForConditionalGeneration

SUPPORTED_MODEL_TYPE = "qwen2_5_vl"

ADAPTER_CONFIG = "adapter_config.json"

MOST_BYTES_OF_NOTHING = 4096
"""A safetensors file of no more than this holds no model: it is what is written of weights that are split."""


def locate_model(name_or_path: str) -> Path:
    """The local folder of a model: the one named, or the hub's files, fetched or from the cache.

    Raises `ModelError` in one line when there is neither, or when the model is no Qwen2.5-VL.
    """
    folder = Path(name_or_path).expanduser()
    if not folder.is_dir():
        folder = _fetch(name_or_path)
    config_path = folder / "config.json"
    if not config_path.is_file():
        hint = " (it holds an adapter: name it as adapter_name_or_path)" if is_adapter(folder) else ""
        raise ModelError(f"{folder}: no config.json, so this is no model folder{hint}")
    try:
        model_type = json.loads(config_path.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{config_path}: damaged ({error}); copy it again") from error
    if model_type != SUPPORTED_MODEL_TYPE:
        raise ModelError(f"{folder}: model_type is {model_type!r}; RisKVA trains {SUPPORTED_MODEL_TYPE!r} (Qwen2.5-VL)")
    together = f"put them together with `python {folder}/zero_to_fp32.py {folder} {folder} --safe_serialization`, or "
    _require_whole_weights(folder, "*.safetensors", together)
    return folder


def locate_adapter(name_or_path: str) -> Path:
    """The local folder of a LoRA adapter. Raises `ModelError` when it is not there or holds none."""
    folder = Path(name_or_path).expanduser()
    if not folder.is_dir():
        raise ModelError(f"adapter_name_or_path: no folder {name_or_path}; train one first with stage: sft")
    if not is_adapter(folder):
        raise ModelError(f"{folder}: no {ADAPTER_CONFIG}, so this is no adapter; a full model is model_name_or_path")
    return folder


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds a PEFT adapter."""
    return (folder / ADAPTER_CONFIG).is_file()


def locate_model_and_adapter(
    model_name_or_path: str, adapter_name_or_path: str | None = None
) -> tuple[Path, Path | None]:
    """The local folders of a model and of the adapter on top of it, None where there is none.

    A model may also be named by its adapter's folder alone (a training run's output, a checkpoint): then the base is
    the one that the adapter's `riskva.json`, or else its `adapter_config.json`, names. Raises `ModelError`, with the
    file and what it says, when that base is not found.
    """
    if adapter_name_or_path:
        return locate_model(model_name_or_path), locate_adapter(adapter_name_or_path)
    folder = Path(model_name_or_path).expanduser()
    if not is_adapter(folder) or (folder / "config.json").is_file():
        return locate_model(model_name_or_path), None
    named_in, base = _base_of(folder)
    try:
        return locate_model(base), folder
    except ModelError as error:
        raise ModelError(
            f"{named_in}: the adapter's base is {base}, which is not found ({error}); name the base as "
            f"model_name_or_path and {model_name_or_path} as adapter_name_or_path"
        ) from error


def _base_of(adapter: Path) -> tuple[Path, str]:
    """The file that names the adapter's base, and the name."""
    context = ModelContext.load(adapter)
    if context is not None:
        return adapter / CONTEXT_FILE, context.base_model
    path = adapter / ADAPTER_CONFIG
    try:
        name = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{path}: damaged ({error}); copy it again") from error
    if not name or not isinstance(name, str):
        raise ModelError(
            f"{path}: does not say which base the adapter is for; name it as model_name_or_path, and {adapter} as "
            "adapter_name_or_path"
        )
    return path, name


def _require_whole_weights(folder: Path, pattern: str, remedy: str = "") -> None:
    """Raise `ModelError` for what ZeRO-3 leaves when it is not told to gather: the processes' parts alone.

    `remedy` comes before the one that always helps.
    """
    parts = sorted(path.name for path in folder.glob("global_step*") if path.is_dir())
    if parts and not any(path.stat().st_size > MOST_BYTES_OF_NOTHING for path in folder.glob(pattern)):
        raise ModelError(
            f"{folder}: has no whole weights, only ZeRO-3's parts of them in {parts[-1]}; {remedy}train on from here "
            "with stage3_gather_16bit_weights_on_model_save: true in the DeepSpeed file, which saves them whole"
        )


def _fetch(name: str) -> Path:
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(f"model_name_or_path: no folder {name}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    note(f"no folder {name} here: looking for a model of that name on the hub")
    try:
        patterns = ["*.json", "*.txt", "*.jinja", "*.safetensors"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except HfHubHTTPError as error:
        reason = f"the hub answers {error.response.status_code}; is the name right, and is access granted?"
        raise ModelError(f"model_name_or_path: {name} is no folder here, and {reason}") from error
    except (OSError, ValueError) as error:  # no network, offline mode, a name that no hub would accept
        raise ModelError(
            f"model_name_or_path: there is no folder {name}, and a model of that name cannot be fetched from the hub "
            f"({type(error).__name__}); connect to the network, or download the model elsewhere and name its folder"
        ) from error


def load_model(
    folder: Path,
    dtype: torch.dtype | None = None,
    attn_implementation: str = "sdpa",
    quantization_config: BitsAndBytesConfig | None = None,
) -> Qwen2_5_VLForConditionalGeneration:
    """The model with every weight read from the folder, in `dtype` or the one that it was saved in.

    With `quantization_config` it is on the GPU at once, its linear layers in 4 bits (`riskva.modeling.quantization`).
    Raises `ModelError` when a weight is missing or has another shape: transformers would go on with random numbers.
    """
    try:
        loaded: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            folder,
            dtype=dtype or "auto",
            attn_implementation=attn_implementation,
            quantization_config=quantization_config,
            output_loading_info=True,
            local_files_only=True,
        )
    except (OSError, ValueError, TypeError, ImportError, RuntimeError, ArithmeticError, SafetensorError) as error:
        raise ModelError(f"{folder}: the model cannot be loaded: {error}") from error
    model: Qwen2_5_VLForConditionalGeneration
    model, info = loaded
    bad = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if bad:
        raise ModelError(f"{folder}: {len(bad)} weights are missing or of another shape: {_some(bad)}")
    return model


def load_model_and_adapter(
    folder: Path, adapter: Path | None, dtype: torch.dtype | None = None, attn_implementation: str = "sdpa"
) -> Qwen2_5_VLForConditionalGeneration | PeftModel:
    """The model of `locate_model_and_adapter`'s two folders, loaded as `load_model` and `attach_adapter` do."""
    model = load_model(folder, dtype, attn_implementation)
    return model if adapter is None else attach_adapter(model, adapter)


def attach_adapter(model: Qwen2_5_VLForConditionalGeneration, folder: Path, trainable: bool = False) -> PeftModel:
    """`model` with the adapter in `folder` on top.

    Raises `ModelError` when the adapter's tensors are not exactly those that the model expects: PEFT only warns, and
    the part that does not fit stays untrained.
    """
    require_whole_adapter(folder)
    try:
        config = PeftConfig.from_pretrained(str(folder))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # an error below
            adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, config=config)
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{folder}: the adapter cannot be put on the model: {_in_short(error)}") from error
    require_fitting_adapter(adapted, folder)
    return adapted


def _in_short(error: Exception) -> str:
    """The error in one line where PEFT gives one to each tensor of another shape, hundreds of them."""
    differing = [line.strip() for line in str(error).splitlines() if line.strip().startswith("size mismatch for ")]
    if not differing:
        return str(error)
    first = differing[0].removeprefix("size mismatch for ")
    return f"{len(differing)} of its tensors have another shape, so it was trained on another model; the first: {first}"


def require_whole_adapter(folder: Path) -> None:
    """Raise `ModelError` unless the folder holds an adapter's tensors in a form that is read here."""
    _require_whole_weights(folder, SAFETENSORS_WEIGHTS_NAME)
    if not (folder / SAFETENSORS_WEIGHTS_NAME).is_file():
        raise ModelError(f"{folder}: no {SAFETENSORS_WEIGHTS_NAME}; adapters in other file formats are not read")


def require_fitting_adapter(model: PeftModel, folder: Path) -> None:
    """Raise `ModelError` unless the adapter in `folder` has just the tensors, by name and shape, that `model` has."""
    expected = {name: list(tensor.shape) for name, tensor in get_peft_model_state_dict(model).items()}
    try:
        with safe_open(folder / SAFETENSORS_WEIGHTS_NAME, framework="pt") as stored:
            found = {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder}: the adapter cannot be read: {error}") from error
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if differing:
        raise ModelError(
            f"{folder}: {len(differing)} adapter tensors do not fit the model: {_some(differing)}; "
            "was it trained on another model, or saved with other names?"
        )


def _some(names: Iterable[str], limit: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
