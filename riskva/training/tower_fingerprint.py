"""A name for all that decides what a frozen vision tower makes of a photo: the same name, the same features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import Qwen2_5_VLConfig

from riskva.encoding import Processor
from riskva.encoding.processor import IMAGE_BACKEND
from riskva.errors import ModelError

FORMAT = 1
"""Counted up when photos are opened differently or features are laid out differently: then none of the old ones fit."""

_TOWER = ("visual.", "model.visual.")
"""How the names of the tower's weights begin: as the hub's files have them, and as transformers 5 calls them."""

_SETTINGS = ("size", "patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std", "rescale_factor")
_SWITCHES = ("resample", "do_resize", "do_rescale", "do_normalize", "do_convert_rgb")
_ARCHITECTURE = ("num_heads", "hidden_act", "window_size", "fullatt_block_indexes", "spatial_merge_size", "patch_size")
"""What the shapes of the weights do not tell."""


def tower_fingerprint(model_folder: Path, processor: Processor, computed: Sequence[str]) -> str:
    """32 hex digits that change with the processor's settings, the tower's weights or its architecture.

    `computed` says how features are computed: their dtype, for example. The weights are read from the model's files,
    one tensor after the other; the same weights give the same digits in the hub's layout and in transformers'. Raises
    `ModelError` when they cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    image_processor = processor.image_processor
    # Pillow resizes, transformers says how: another version of either may make other pixels
    settings: list[Any] = [FORMAT, IMAGE_BACKEND, version("pillow"), version("transformers"), *computed]
    settings += [_plain(getattr(image_processor, name)) for name in (*_SETTINGS, *_SWITCHES)]
    vision = Qwen2_5_VLConfig.from_pretrained(model_folder).vision_config
    settings += [_plain(getattr(vision, name)) for name in _ARCHITECTURE]
    digest.update(json.dumps(settings).encode())
    try:
        for name, tensor in _tower_weights(model_folder):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"{model_folder}: the vision tower's weights cannot be read: {error}") from error
    return digest.hexdigest()


def holds_tower_weights(path: Path) -> bool:
    """Whether a safetensors file, an adapter's for example, has weights of the tower or the projector."""
    try:
        with safe_open(path, framework="pt") as stored:
            return any("visual." in name for name in stored.keys())  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error


def _plain(value: Any) -> Any:
    """A setting as JSON has it."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, (bool, int, float, str)) or value is None:
        return value
    return sorted((name, one) for name, one in dict(value).items() if one is not None)  # a size


def _tower_weights(model_folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The tower's and the projector's weights in the order of their names, which begin with `visual.`."""
    with ExitStack() as stack:
        files = {path: stack.enter_context(safe_open(path, framework="pt")) for path in _weight_files(model_folder)}
        found = {
            name.removeprefix("model."): (file, name)
            for file in files.values()
            for name in file.keys()  # noqa: SIM118
            if name.startswith(_TOWER)
        }
        if not found:
            raise ValueError("none are there")
        for name, (file, stored_name) in sorted(found.items()):
            yield name, file.get_tensor(stored_name)


def _weight_files(model_folder: Path) -> list[Path]:
    """The files that hold weights of the tower; of one file and several, transformers reads the one."""
    single = model_folder / "model.safetensors"
    if single.is_file():
        return [single]
    index = json.loads((model_folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    return [
        model_folder / file
        for file in sorted({file for name, file in index["weight_map"].items() if name.startswith(_TOWER)})
    ]
