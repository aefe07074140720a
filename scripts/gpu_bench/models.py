"""Random models of published shapes on the device, as a line of the table trains them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import transformers
from count_flops import LORA_RANK, lora_recipe
from peft import LoraConfig, get_peft_model
from torch import Tensor

from riskva.modeling.compiling import compile_layers
from riskva.modeling.model import Qwen2_5_VLForConditionalGeneration
from riskva.modeling.tuning import prepare_tuning

LEVERS = ("plain", "packed", "no_grad", "cached", "as_needed", "compiled")
"""In the order in which they are switched on; each has those before it."""
LANGUAGE_MODEL = r".*language_model\..*_proj"


@dataclass(frozen=True)
class Line:
    """What is measured."""

    model: str
    photo: int
    """Pixels of each side."""
    lever: str

    def has(self, lever: str) -> bool:
        """Whether this lever is on."""
        return LEVERS.index(self.lever) >= LEVERS.index(lever)

    @property
    def key(self) -> str:
        """The line's name in the file."""
        return f"{self.model}, {self.photo} x {self.photo}, {self.lever}"


@contextmanager
def made_on(device: torch.device) -> Iterator[None]:
    """Within, modules are made on the device and in bfloat16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def build(line: Line, config: Any, device: torch.device) -> Any:
    """The line's model with LoRA, in training mode; what is checkpointed is set later from `no_grad` on."""
    if not line.has("packed"):
        model = plain_model(config, device)
    else:
        model = riskva_model(config, device, skips_tower_gradients=line.has("no_grad"))
    if not line.has("no_grad"):
        model.gradient_checkpointing_enable()
    if line.has("compiled"):
        compile_layers(model.get_base_model())
    return model.train()


def plain_model(config: Any, device: torch.device) -> Any:
    """transformers' model with PEFT's LoRA, whose weights are float32."""
    with made_on(device):
        model: Any = transformers.Qwen2_5_VLForConditionalGeneration(config)
    model.tie_weights()
    lora = LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules=LANGUAGE_MODEL, task_type="CAUSAL_LM")
    return get_peft_model(model, lora)


def riskva_model(config: Any, device: torch.device, skips_tower_gradients: bool = True) -> Any:
    """RisKVA's model, tuned by a recipe."""
    with made_on(device):
        model = Qwen2_5_VLForConditionalGeneration(config)
    model.tie_weights()
    with nullcontext() if skips_tower_gradients else patch("riskva.modeling.tuning.skip_gradients_of_frozen_tower"):
        return prepare_tuning(model, lora_recipe())


def on_device(tensors: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch as Trainer hands it over."""
    return {name: one.to(device) if isinstance(one, Tensor) else one for name, one in tensors.items()}


def mean_loss(output: Any) -> Tensor:
    """The loss in transformers' output, or of our sums."""
    loss: Tensor = output.loss if hasattr(output, "loss") else output.sums.sum() / output.counts.sum()
    return loss
