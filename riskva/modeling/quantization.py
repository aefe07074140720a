"""QLoRA (arXiv 2305.14314): the language model's frozen weights in 4 bits, by bitsandbytes.

Only its linear layers are held so, in NF4 with constants that are quantised again. The vision tower, the projector,
the embeddings and `lm_head` stay in the dtype of training: they are a small part of the weights, and features and
logits are exact. Of what PEFT's `prepare_model_for_kbit_training` does nothing is wanted: it casts all that is not in
4 bits to float32 (the vision tower too), and switches gradient checkpointing on.

An adapter that was trained over 4 bits is a LoRA adapter like any other. It is merged and served over the weights as
they were saved, never over the 4 bits: those lose more by rounding again than the adapter changes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import BitsAndBytesConfig
from transformers.utils.import_utils import BITSANDBYTES_MIN_VERSION, is_bitsandbytes_available

from riskva.errors import RecipeError
from riskva.recipe import SftRecipe
from riskva.recipe.deepspeed import splits_weights

UNQUANTIZED = ["model.visual", "lm_head"]
"""Modules that keep their weights as they are, with all that is in them."""

BITS_PER_WEIGHT = 4 + 8 / 64 + 32 / (64 * 256)
"""What a quantised weight takes: 64 share a constant of 8 bits, and 256 constants share one of 32 bits."""


def require_quantization(recipe: SftRecipe) -> None:
    """Raise `RecipeError` if the recipe asks for 4 bits and this machine, or its DeepSpeed, cannot train with them."""
    if recipe.quantization_bit is None:
        return
    without = "or set quantization_bit: null"
    if not torch.cuda.is_available():
        raise RecipeError(f"quantization_bit: needs an NVIDIA GPU, and torch finds none here; train on one, {without}")
    if not is_bitsandbytes_available():
        raise RecipeError(
            f"quantization_bit: needs bitsandbytes {BITSANDBYTES_MIN_VERSION} or newer; "
            f"pip install -e '.[qlora]', {without}"
        )
    if splits_weights(recipe):
        raise RecipeError(
            "quantization_bit: ZeRO-3 cannot split weights of 4 bits; use recipes/deepspeed/zero2.json, " + without
        )


def quantization_config(recipe: SftRecipe, compute_dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """What `load_model` quantises by, multiplying in `compute_dtype`; None where the recipe asks for no 4 bits."""
    if recipe.quantization_bit is None:
        return None
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=list(UNQUANTIZED),  # read for 4 bits too, in spite of its name
    )


def num_values(weight: Tensor) -> int:
    """How many weights a parameter holds, counted whole where ZeRO-3 has split it and where two share a byte."""
    state = getattr(weight, "quant_state", None)
    if state is not None:
        return int(state.shape.numel())
    return int(getattr(weight, "ds_numel", weight.numel()))
