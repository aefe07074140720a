"""Which weights train: LoRA, full and freeze tuning, and what a frozen vision tower costs.

A Qwen2.5-VL has three parts. Their module names, as transformers 5 lays the model out:

    vision tower        model.visual (patch_embed and blocks)
    projector           model.visual.merger
    language model      model.language_model, and lm_head
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight, gather_params_ctx
from torch import nn
from transformers import PreTrainedModel

from riskva.errors import RecipeError
from riskva.modeling.loading import attach_adapter, locate_adapter
from riskva.modeling.lora import make_lean
from riskva.modeling.model import Qwen2_5_VLForConditionalGeneration
from riskva.modeling.quantization import num_values
from riskva.recipe import SftRecipe
from riskva.recipe.deepspeed import splits_weights

LANGUAGE = r"(?:.*\.)?language_model\..*"
VISION = r"(?:.*\.)?visual\.blocks\..*"
PROJECTOR = r"(?:.*\.)?visual\.merger\.mlp"

VISION_NAMES = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "o_proj": "proj"}
"""The vision tower's attention has one fused projection, and calls its output `proj`."""


def prepare_tuning(
    model: Qwen2_5_VLForConditionalGeneration, recipe: SftRecipe, float32_weights: bool = True
) -> PreTrainedModel | PeftModel:
    """`model` with exactly the recipe's weights trainable, and a frozen vision tower run without gradients.

    An adapter that the recipe names is trained on; otherwise `finetuning_type` decides. Trainable weights become
    float32 (an update of 1e-6 is lost in bfloat16's 8 bits) unless `float32_weights` is False, as under DeepSpeed,
    which keeps its own float32 copies. Raises `RecipeError` when nothing would train.
    """
    tuned: PreTrainedModel | PeftModel = model
    if recipe.adapter_name_or_path:
        tuned = _take_adapter(model, locate_adapter(recipe.adapter_name_or_path), recipe)
    elif recipe.finetuning_type == "lora":
        tuned = _add_lora(model, recipe)
    else:
        _unfreeze(model, recipe)
    if not any(weight.requires_grad for weight in tuned.parameters()):
        raise RecipeError("nothing would train: check finetuning_type, lora_target and the freeze_* keys")
    if float32_weights:
        for weight in tuned.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()
    skip_gradients_of_frozen_tower(model)
    # B's weights are used beside its module, where ZeRO-3 and FSDP would not gather them
    if not (splits_weights(recipe) or recipe.training.get("fsdp")):
        make_lean(tuned)
    return tuned


def num_weights(model: nn.Module) -> tuple[int, int]:
    """Trainable and all weights, counted whole also where ZeRO-3 has split them, or two share a byte."""
    sizes = [(num_values(weight), weight.requires_grad) for weight in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def skip_gradients_of_frozen_tower(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Run the vision tower's blocks under `no_grad` when none of their weights train.

    With gradient checkpointing transformers makes the patch embedding's output require gradients, and a frozen tower
    would then be run backwards for nothing (transformers #41993). The merger keeps its gradients: it may train alone.
    """
    visual = model.model.visual
    parts = [visual.patch_embed, *visual.blocks]
    if not any(weight.requires_grad for part in parts for weight in part.parameters()):
        for part in parts:
            part.forward = torch.no_grad()(part.forward)


def lora_target_pattern(recipe: SftRecipe, linear_names: Iterable[str]) -> str:
    """A regular expression for exactly the modules that LoRA goes on, given the names of all linear modules.

    Only parts that are not frozen take part: plain names such as `gate_proj` occur in the vision tower too.
    """
    patterns = list(_part_patterns(recipe, recipe.lora_target))
    choices = {name.rsplit(".", 1)[-1] for name in linear_names if _matches(_part_patterns(recipe, ("all",)), name)}
    known = {*choices, *(name for name, fused in VISION_NAMES.items() if fused in choices), "all"}
    unknown = [target for target in recipe.lora_target if target not in known]
    if unknown:
        raise RecipeError(
            f"lora_target: {', '.join(unknown)} names no trainable module; there are: all, {', '.join(sorted(choices))}"
        )
    return "|".join(f"(?:{pattern})" for pattern in patterns)


def _matches(patterns: Iterable[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _part_patterns(recipe: SftRecipe, targets: Sequence[str]) -> Iterator[str]:
    everything = "all" in targets
    if not recipe.freeze_language_model:
        yield LANGUAGE + (r"_proj" if everything else rf"\.(?:{_alternatives(targets)})")
    if not recipe.freeze_vision_tower:
        names = [*targets, *(VISION_NAMES[name] for name in targets if name in VISION_NAMES)]
        yield VISION + (r"(?:qkv|proj)" if everything else rf"\.(?:{_alternatives(names)})")
    if not recipe.freeze_multi_modal_projector:
        yield PROJECTOR + r"\.[02]"  # mlp.1 is the activation


def _alternatives(names: Iterable[str]) -> str:
    return "|".join(map(re.escape, dict.fromkeys(names)))


def _add_lora(model: Qwen2_5_VLForConditionalGeneration, recipe: SftRecipe) -> PeftModel:
    linear_names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=recipe.lora_rank,
            lora_alpha=recipe.lora_alpha or 2 * recipe.lora_rank,
            lora_dropout=recipe.lora_dropout,
            target_modules=lora_target_pattern(recipe, linear_names),
            use_rslora=recipe.use_rslora,
            use_dora=recipe.use_dora,
            task_type="CAUSAL_LM",
        ),
    )
    begin_magnitudes(adapted)
    return adapted


def _take_adapter(model: Qwen2_5_VLForConditionalGeneration, folder: Path, recipe: SftRecipe) -> PeftModel:
    """The adapter to train on, in the form it was begun in. Raises `RecipeError` where the recipe asks for another."""
    adapted = attach_adapter(model, folder, trainable=True)
    config = adapted.peft_config["default"]
    for key in ("use_rslora", "use_dora"):
        if getattr(recipe, key) and not getattr(config, key, False):
            raise RecipeError(f"{key}: {folder} was begun without it, and cannot change; leave {key} out")
    return adapted


@torch.no_grad()
def begin_magnitudes(model: PeftModel) -> None:
    """DoRA's magnitudes of a new adapter as the lengths of the weights' rows, in float32.

    PEFT rounds them to the weights' dtype, and divides by lengths in float32 while training: over bfloat16 (and over 4
    bits computed in it) each row would begin up to 0.2 % longer or shorter than it is.
    """
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and "default" in layer.lora_magnitude_vector:
            base, magnitudes = layer.get_base_layer(), layer.lora_magnitude_vector["default"]
            with gather_params_ctx(base.parameters()):  # ZeRO-3 may have split them
                magnitudes.weight.data = dequantize_module_weight(base).float().norm(dim=1)


def _unfreeze(model: Qwen2_5_VLForConditionalGeneration, recipe: SftRecipe) -> None:
    visual, language = model.model.visual, model.model.language_model
    model.requires_grad_(False)
    visual.requires_grad_(not recipe.freeze_vision_tower)
    visual.merger.requires_grad_(not recipe.freeze_multi_modal_projector)
    if recipe.freeze_language_model:
        return
    if recipe.finetuning_type == "full":
        language.requires_grad_(True)
        model.lm_head.requires_grad_(True)
    else:
        count = recipe.freeze_trainable_layers
        for layer in language.layers[-count:] if count > 0 else language.layers[:-count]:
            layer.requires_grad_(True)
