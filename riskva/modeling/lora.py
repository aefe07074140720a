"""LoRA's forward with fewer passes over memory than PEFT's, and the same result."""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn


class LeanLora(LoraLinear):
    """PEFT's LoRA on a linear layer, for the one case that training consists of: one plain adapter, not merged.

    The scale is applied to the `rank` numbers between A and B, not to the layer's whole output; the input is not
    turned into the float32 of A's weights, which autocast undoes; and B's product is added as it is made.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(…, outputs) of (…, inputs)."""
        if args or kwargs or not self._is_the_one_case(x):
            output: Tensor = super().forward(x, *args, **kwargs)
            return output
        name = self.active_adapters[0]
        rows = x.reshape(-1, x.shape[-1])
        low = self.lora_A[name](self.lora_dropout[name](rows))
        result: Tensor = self.base_layer(rows)
        high = cast(Any, self.lora_B[name]).weight.t().to(result.dtype)
        if torch.compiler.is_compiling():
            # Scale and sum become a part of what is compiled around them; the sum alone would be put into the product
            result = result + low.to(result.dtype) @ high * self.scaling[name]
        else:
            result.addmm_(low.to(result.dtype), high, alpha=self.scaling[name])
        return result.view(*x.shape[:-1], result.shape[-1])

    def _is_the_one_case(self, x: Tensor) -> bool:
        if self.merged or self.disable_adapters or self.lora_variant or len(self.active_adapters) != 1:
            return False
        (name,) = self.active_adapters
        if name not in self.lora_A or cast(Any, self.lora_B[name]).bias is not None:  # it is on other layers, or more
            return False
        # Else PEFT turns the input into the dtype of A's weights
        kind = x.device.type
        is_autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        return x.dtype == self.lora_A[name].weight.dtype or is_autocast


def make_lean(model: nn.Module) -> None:
    """Let PEFT's LoRA layers in `model` compute as `LeanLora` does; their weights and names stay."""
    for module in model.modules():
        if type(module) is LoraLinear and type(module.get_base_layer()) is nn.Linear:
            module.__class__ = LeanLora
