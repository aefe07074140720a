"""Gradient checkpointing: which layers are computed twice, and how much memory there is for those that are not.

transformers' own switch is not used: `activation_checkpointing_enable` also makes every embedding's output require
gradients, that of the vision tower's patches too, and a frozen tower is then run backwards for nothing (transformers
#41993). A checkpoint that is not reentrant gives a layer's weights their gradients also where its input has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from riskva.main_memory import free_memory

KEPT_FREE = 0.08
"""Share of the memory at hand that is left alone: an allocator's fragments, and what the estimate does not know."""
ON_A_CPU = 0.5
"""Share of a machine's memory that tensors may have: glibc keeps about as much again of what was freed (measured: a
76 M model, 2,048 tokens: 1.8 GB of tensors, 3.6 GB resident)."""

_PLACE = re.compile(r"language_model\.layers\.(\d+)")


def checkpoint_layers(model: nn.Module, num: int) -> None:
    """Compute the first `num` layers of the language model again in the backward pass, and no others.

    The first ones, because the backward pass comes to them last: by then the activations of the others are freed, and
    there is room for a recomputed layer's. With any, the blocks of a vision tower that trains are recomputed, too.
    """
    for name, module in model.named_modules():
        if not isinstance(module, GradientCheckpointingLayer):
            continue
        found = _PLACE.search(name)
        layer: Any = module
        layer.gradient_checkpointing = int(found[1]) < num if found else num > 0 and _trains(module)
        # Random numbers are kept (the default), so that dropout drops the same twice.
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)


def num_layers_to_checkpoint(bytes_with: Callable[[int], int], num_layers: int, bytes_at_hand: int) -> int:
    """The fewest layers to checkpoint so that a step fits; all of them where none of the numbers does.

    `bytes_with(k)` is what a process needs with k layers checkpointed, such as a `MemoryEstimate`'s total.
    """
    room = int(bytes_at_hand * (1 - KEPT_FREE))
    return next((num for num in range(num_layers + 1) if bytes_with(num) <= room), num_layers)


def memory_at_hand(device: torch.device | str, num_processes: int = 1) -> int:
    """Bytes that one process may take on its device, before it has loaded anything.

    An accelerator's free memory and what this process already holds of it; on a CPU half of the machine's available
    memory, or of what its container's limit leaves, divided by the processes on this machine.
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device))
    return int(free_memory() * ON_A_CPU) // num_processes


def _trains(module: nn.Module) -> bool:
    return any(weight.requires_grad for weight in module.parameters())
