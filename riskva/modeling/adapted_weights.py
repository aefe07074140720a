"""Which weights of a base an adapter changes, and into what, without the base's weights in memory.

The base is built on torch's meta device (modules and shapes, no numbers) and PEFT puts the adapter on it. So scaling,
ranks, DoRA and the choice of modules are PEFT's own, and a weight is merged by PEFT's layer when its turn comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import ParamWrapper
from peft.utils import ModulesToSaveWrapper, load_peft_weights
from torch import Tensor, nn
from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from riskva.errors import ModelError
from riskva.modeling.loading import require_fitting_adapter, require_whole_adapter
from riskva.modeling.weight_files import StoredWeights

ADAPTER = "default"
"""PEFT's name for an adapter that is the only one."""


@dataclass(frozen=True)
class AdaptedWeights:
    """What the adapter in the folder `adapter` makes of the base in the folder `base`.

    `places` are the weights' names in the model (`model.visual.…`) by the names of the base's stored tensors, of which
    the model may not use all. `modules` are the modules that change weights, by the weight's place: a `LoraLayer` adds
    to its one, a `ModulesToSaveWrapper` replaces those of the module that it wraps.
    """

    base: Path
    adapter: Path
    stored: StoredWeights
    places: Mapping[str, str]
    modules: Mapping[str, nn.Module]

    @classmethod
    def of(cls, base: Path, adapter: Path) -> AdaptedWeights:
        """The adapter's tensors in float32, and no tensor of the base.

        Raises `ModelError` when the adapter does not fit the base, or changes it in a way that cannot be merged.
        """
        model, stored = _without_numbers(base), StoredWeights.of(base)
        places, tied = _places(model, base, list(stored.files)), _tied_modules(model)
        adapted = _put_on(model, adapter)
        modules = _changing_modules(model, adapter)
        if both := sorted(place for place in modules if place.rpartition(".")[0] in tied):
            raise ModelError(
                f"{adapter}: it changes {both[0]} as one of the base's two embeddings, which are one weight: no merged "
                "weight is both. Predict with base + adapter"
            )
        _fill(adapted, adapter, modules)
        return cls(base, adapter, stored, places, modules)

    def merged(self, place: str, weight: Tensor, device: torch.device) -> Tensor:
        """The changed weight in the dtype of `weight`, on the CPU: summed in float32 on `device`, and rounded once."""
        module = self.modules[place]
        if isinstance(module, ModulesToSaveWrapper):
            return replacement(module, place).to(weight.dtype)
        layer: Any = module
        base = layer.get_base_layer()
        base.weight = nn.Parameter(weight.to(device, torch.float32), requires_grad=False)
        layer._move_adapter_to_device_of_base_layer(ADAPTER)
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:  # numbers that are none
            raise ModelError(f"{self.adapter}: what it makes of {place} is not finite; it cannot be used") from error
        merged: Tensor = base.weight.detach().to(weight.dtype).cpu()
        base.weight = nn.Parameter(torch.empty_like(base.weight, device="meta"), requires_grad=False)
        return merged


def replacement(module: ModulesToSaveWrapper, place: str) -> Tensor:
    """The weight that a module trained whole has at `place`."""
    names = [name for name, _ in module.modules_to_save[ADAPTER].named_parameters()]
    return module.modules_to_save[ADAPTER].get_parameter(next(name for name in names if place.endswith(f".{name}")))


def _without_numbers(base: Path) -> Qwen2_5_VLForConditionalGeneration:
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(f"{base}: its weights are quantized; merge the adapter into the model that it was made from")
    with torch.device("meta"):
        return Qwen2_5_VLForConditionalGeneration(config)


def _places(model: Qwen2_5_VLForConditionalGeneration, base: Path, stored_names: Sequence[str]) -> dict[str, str]:
    """Where transformers puts the stored tensors: it knows the older names, `visual.…` and `model.layers.…`, too."""
    shapes = dict(model.state_dict())
    renamings = [one for one in get_model_conversion_mapping(model) if isinstance(one, WeightRenaming)]
    renamed = {
        name: rename_source_key(name, renamings, [], model.base_model_prefix, shapes)[0] for name in stored_names
    }
    places = {name: place for name, place in renamed.items() if place in shapes}
    if twice := [place for place, count in Counter(places.values()).items() if count > 1]:
        raise ModelError(f"{base}: its files hold {twice[0]} twice, under two names; copy the model again")
    tied = set(model._tied_weights_keys or {}) if model.config.tie_word_embeddings else set()
    if missing := sorted(shapes.keys() - tied - set(places.values())):
        raise ModelError(f"{base}: {len(missing)} weights are missing, {missing[0]} among them; copy the model again")
    return places


def _put_on(model: Qwen2_5_VLForConditionalGeneration, adapter: Path) -> PeftModel:
    require_whole_adapter(adapter)
    try:
        config = PeftConfig.from_pretrained(str(adapter))
        config.inference_mode = True
        config.base_model_name_or_path = None  # PEFT would warn where the base is named otherwise here
        adapted = get_peft_model(model, config, low_cpu_mem_usage=True)
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, KeyError) as error:
        raise ModelError(f"{adapter}: the adapter cannot be put on the model: {error}") from error
    assert isinstance(adapted, PeftModel)
    require_fitting_adapter(adapted, adapter)
    return adapted


def _tied_modules(model: Qwen2_5_VLForConditionalGeneration) -> set[str]:
    """The names of the modules that share one weight; none where the head is a weight of its own."""
    if not model.config.tie_word_embeddings:
        return set()
    names = [name for pair in (model._tied_weights_keys or {}).items() for name in pair]
    return {name.removesuffix(".weight") for name in names}


def _changing_modules(model: nn.Module, adapter: Path) -> dict[str, nn.Module]:
    """The modules that change weights, by the weight. Raises `ModelError` for a kind that cannot be merged."""
    found = dict[str, nn.Module]()
    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            whole: Any = module.original_module
            found |= {f"{name}.{weight}": module for weight, _ in whole.named_parameters()}
        elif isinstance(module, LoraLayer):
            _require_mergeable(module, name, adapter)
            found[f"{name}.weight"] = cast(nn.Module, module)
    return found


def _require_mergeable(layer: LoraLayer, name: str, adapter: Path) -> None:
    is_dora = isinstance(layer, LoraLinear) and ADAPTER in layer.lora_magnitude_vector
    if isinstance(layer, ParamWrapper):
        kind = "target_parameters"
    elif layer.lora_bias.get(ADAPTER):
        kind = "lora_bias"
    elif layer.lora_variant and not is_dora:
        kind = type(layer.lora_variant[ADAPTER]).__name__
    else:
        return
    raise ModelError(f"{adapter}: {name} is adapted with {kind}, which cannot be merged; predict with base + adapter")


def _own_tensors(module: nn.Module) -> Iterator[nn.Parameter]:
    """The adapter's tensors in a module that changes weights, without the base's."""
    for name, tensor in module.named_parameters():
        if not name.startswith(("base_layer.", "original_module.")):
            yield tensor


def _fill(adapted: PeftModel, adapter: Path, modules: Mapping[str, nn.Module]) -> None:
    """Put the adapter's stored tensors, in float32, where PEFT keeps them.

    Every one must be in a module of `modules`, so that none is left out of the merge: `ModelError` names one that is
    not.
    """
    stored = load_peft_weights(str(adapter), device="cpu")
    saved = get_peft_model_state_dict(adapted, state_dict=adapted.state_dict(keep_vars=True))
    stored_name = {id(tensor): name for name, tensor in saved.items()}
    inside = {id(tensor) for module in modules.values() for tensor in _own_tensors(module)}
    if outside := sorted(name for key, name in stored_name.items() if key not in inside):
        raise ModelError(f"{adapter}: it also holds {outside[0]}, which cannot be merged; predict with base + adapter")
    filled = {
        name: stored[stored_name[id(tensor)]].float()
        for name, tensor in adapted.state_dict(keep_vars=True).items()
        if id(tensor) in stored_name
    }
    adapted.load_state_dict(filled, strict=False, assign=True)
