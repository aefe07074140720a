"""How much memory training takes, from config.json and the recipe alone, before anything is loaded.

A step has its most memory at one of a few moments: while the tower runs, at the end of the forward pass, when the
first checkpointed layer is computed again, at the end of the backward pass, or in the optimiser. Each is added up; the
largest is the estimate. Measured against peaks in scripts/measure_memory.py. What ZeRO divides is arithmetic that has
not been tried on GPUs: its buckets for communication come on top, as do DoRA's own tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from transformers import Qwen2_5_VLConfig

from riskva.modeling.activations import (
    FLOAT32,
    Precision,
    layers_with_gradients,
    saved_by_layer,
    saved_by_vision_block,
    tower_working_set,
    working_set,
)
from riskva.modeling.head import POSITIONS_AT_ONCE
from riskva.modeling.quantization import BITS_PER_WEIGHT
from riskva.modeling.shapes import Block, Shapes, shapes_of
from riskva.recipe import SftRecipe
from riskva.recipe.deepspeed import deepspeed_settings

CUDA_CONTEXT = 600_000_000
"""What CUDA and its libraries take on a GPU before any tensor: about 0.6 GB, by driver and card."""

PATCH_VALUES = FLOAT32
"""Bytes of a value of a patch: the image processor's float32."""

STATES = {"adamw": 2, "lion": 1, "adagrad": 1, "rmsprop": 1, "sgd": 0, "adafactor": 0}
"""States that an optimiser keeps of each weight, by how its name begins; adafactor's are a row and a column."""


def state_bytes(optim: str) -> float | None:
    """Bytes of optimiser state a trained weight; None for an optimiser that is not known here."""
    if optim.startswith("paged_"):
        return 0.0  # in the host's memory as far as the GPU's does not do
    known = [number for begin, number in STATES.items() if optim.startswith(begin)]
    width = 1.02 if "8bit" in optim else FLOAT32  # with a scale for each block of 256
    return known[0] * width if known else None


@dataclass(frozen=True)
class Load:
    """The largest micro-batch: tokens and samples in its row, and patches of photos that the tower runs for."""

    num_tokens: int
    num_samples: int = 1
    num_patches: int = 0


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one process at the moment that takes the most."""

    moment: str
    weights: int = 0
    casts: int = 0
    """16-bit copies of float32 weights, which autocast makes."""
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    working: int = 0
    """Tensors of one layer, the tower or the head that live for a moment."""
    logits: int = 0
    inputs: int = 0
    overhead: int = 0
    note: str = ""

    @cached_property
    def parts(self) -> dict[str, int]:
        """The bytes by name, without those that are 0."""
        named = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("moment", "note")}
        return {name: number for name, number in named.items() if number}

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.parts.values())

    def lines(self) -> list[str]:
        """For `--dry-run`."""
        said = " + ".join(f"{_gigabytes(number)} {SAID[name]}" for name, number in self.parts.items())
        lines = [f"memory a process, about: {_gigabytes(self.total)} GB {self.moment}", f"  {said}"]
        return [*lines, f"  {self.note}"] if self.note else lines


SAID = {
    "weights": "weights",
    "casts": "their 16-bit copies",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "activations": "activations",
    "working": "of the layer at work",
    "logits": "logits",
    "inputs": "inputs",
    "overhead": "CUDA itself",
}


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:.2f}" if number < 9.95e9 else f"{number / 1e9:.1f}"


def estimate(
    config: Qwen2_5_VLConfig,
    recipe: SftRecipe,
    load: Load,
    num_checkpointed: int,
    *,
    num_processes: int = 1,
    is_cuda: bool = True,
) -> MemoryEstimate:
    """What a process needs to train by the recipe with the first `num_checkpointed` layers checkpointed.

    Raises `RecipeError` where `lora_target` names no module, or the DeepSpeed configuration cannot be read.
    """
    planner = Planner(shapes_of(config, recipe), recipe, load, num_processes, is_cuda)
    return planner.with_checkpointed(num_checkpointed)


@dataclass(frozen=True)
class Planner:
    """`estimate` for several numbers of checkpointed layers."""

    shapes: Shapes
    recipe: SftRecipe
    load: Load
    num_processes: int = 1
    is_cuda: bool = True

    def with_checkpointed(self, num: int) -> MemoryEstimate:
        """The moment that takes the most with the first `num` layers checkpointed."""
        moments = [self._while_tower_runs(), self._after_forward(num), self._at_recomputation(num)]
        moments += [self._at_the_end(num), self._in_optimizer()]
        return max(moments, key=lambda one: one.total)

    def bytes_with(self, num: int) -> int:
        """The total, as `num_layers_to_checkpoint` takes it."""
        return self.with_checkpointed(num).total

    @property
    def num_layers(self) -> int:
        """Layers of the language model."""
        return len(self.shapes.layers)

    @cached_property
    def _precision(self) -> Precision:
        is_half = bool(self.recipe.training.get("bf16") or self.recipe.training.get("fp16"))
        return Precision.of(self.shapes, 2 if is_half else FLOAT32, is_half and not self._zero)

    @cached_property
    def _zero(self) -> dict[str, Any]:
        """DeepSpeed's zero_optimization, or nothing."""
        return dict(deepspeed_settings(self.recipe).get("zero_optimization", {}))

    def _share(self, from_stage: int) -> int:
        """Among how many processes ZeRO divides what it does from this stage on."""
        return self.num_processes if int(self._zero.get("stage", 0)) >= from_stage else 1

    @cached_property
    def _standing(self) -> MemoryEstimate:
        """What is there at all moments."""
        optimizer, note = self._optimizer()
        return MemoryEstimate(
            "",
            weights=0 if _is_offloaded(self._zero, "param") else self._weights() // self._share(3),
            optimizer=0 if _is_offloaded(self._zero, "optimizer") else optimizer // self._share(1),
            inputs=self._inputs(),
            overhead=CUDA_CONTEXT if self.is_cuda else 0,
            note=note,
        )

    def _weights(self) -> int:
        shapes, width = self.shapes, self._precision.width
        trained = shapes.num_trained
        size = (shapes.num_weights - trained) * width + trained * (FLOAT32 if self._precision.is_mixed else width)
        if self.recipe.quantization_bit is not None:
            quantized = sum(one.inputs * one.outputs for layer in shapes.layers for one in layer.linears)
            size -= int(quantized * (width - BITS_PER_WEIGHT / 8))
        return size

    def _optimizer(self) -> tuple[int, str]:
        name = str(self.recipe.training.get("optim", "adamw_torch_fused"))
        state = state_bytes(name)
        note = "" if state is not None else f"(optim: {name} is not known to the estimate: counted as AdamW)"
        state = 2 * FLOAT32 if state is None else state
        # ZeRO keeps float32 copies of weights in 16 bits beside the states.
        master = FLOAT32 if self._zero and self._precision.width < FLOAT32 else 0
        return int(self.shapes.num_trained * (state + master)), note

    def _inputs(self) -> int:
        """Patches, embeddings (with the features put in), rotary terms, and the last norm's float32 copy."""
        text, vision = self.shapes.config.text_config, self.shapes.config.vision_config
        values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        head_dim = text.hidden_size // text.num_attention_heads
        token = (self._precision.between + FLOAT32) * text.hidden_size + 2 * self._precision.width * head_dim
        return int(self.load.num_patches * values * PATCH_VALUES + self.load.num_tokens * token)

    @property
    def _all_gradients(self) -> int:
        width = self._precision.width if self._zero else FLOAT32
        return self.shapes.num_trained * width // self._share(2)

    @property
    def _kept_gradients(self) -> int:
        """Those of the micro-batches before."""
        accumulates = int(self.recipe.training.get("gradient_accumulation_steps", 1)) > 1
        return self._all_gradients if accumulates else 0

    def _casts(self, trained: int) -> int:
        return trained * self._precision.width if self._precision.is_mixed else 0

    def _while_tower_runs(self) -> MemoryEstimate:
        working = 0 if self.shapes.tower_trains else self.load.num_patches * tower_working_set(self.shapes)
        return replace(self._standing, moment="while the tower runs", gradients=self._kept_gradients, working=working)

    def _after_forward(self, num: int) -> MemoryEstimate:
        """All that is kept, and the head's logits or the last layer's working set."""
        standing = replace(self._standing, moment="after the forward pass", gradients=self._kept_gradients)
        casts = self._casts(self.shapes.num_trained - self.shapes.embedding.num_trained)
        kept = self._kept(num) + self._kept_of_tower(num)
        logits, head = self._head()
        layer = self._working(self.shapes.layers[-1], is_forward=True)
        if logits + head > layer:
            return replace(standing, casts=casts, activations=kept, logits=logits, working=head)
        return replace(standing, casts=casts, activations=kept, working=layer)

    def _at_recomputation(self, num: int) -> MemoryEstimate:
        """The last checkpointed layer is whole again; those after it are done with."""
        if num == 0:
            return self._standing
        layer, later = self.shapes.layers[num - 1], self.shapes.layers[num:]
        made = (self.shapes.head.num_trained + sum(one.num_trained for one in later)) * FLOAT32
        checkpoints = sum(self._checkpoint(index) for index in range(num))
        return replace(
            self._standing,
            moment="when a checkpointed layer is computed again",
            casts=self._casts(layer.num_trained),
            gradients=self._kept_gradients or made // self._share(2),
            activations=checkpoints + self._saved(num - 1) + self._kept_of_tower(num),
            working=self._working(layer, is_forward=False),
        )

    def _at_the_end(self, num: int) -> MemoryEstimate:
        """All gradients, with what is kept of the first layer and the tower."""
        layer = self.shapes.layers[0]
        block = self._saved_by_block(self.shapes.blocks[0]) if num and self.shapes.tower_trains else 0
        return replace(
            self._standing,
            moment="at the end of the backward pass",
            casts=self._casts(layer.num_trained),
            gradients=self._all_gradients,
            activations=self._saved(0) + self._kept_of_tower(num) + block,
            working=self._working(layer, is_forward=False),
        )

    def _in_optimizer(self) -> MemoryEstimate:
        # Without `fused`, AdamW makes a tensor for each weight at once.
        is_foreach = self.is_cuda and self.recipe.training.get("optim") == "adamw_torch"
        working = self.shapes.num_trained * FLOAT32 if is_foreach else 0
        return replace(self._standing, moment="in the optimizer's step", gradients=self._all_gradients, working=working)

    def _saved(self, index: int) -> int:
        """All that the backward pass needs of a layer of the language model."""
        if not self._reached[index]:
            return 0
        is_packed = self.load.num_samples > 1 and not self.is_cuda
        layer = self.shapes.layers[index]
        return self.load.num_tokens * saved_by_layer(self.shapes, layer, self._precision, is_packed)

    def _checkpoint(self, index: int) -> int:
        width = int(self.shapes.config.text_config.hidden_size)
        return self.load.num_tokens * self._precision.between * width if self._reached[index] else 0

    @cached_property
    def _reached(self) -> list[bool]:
        return layers_with_gradients(self.shapes)

    def _kept(self, num: int) -> int:
        return sum(self._checkpoint(i) if i < num else self._saved(i) for i in range(self.num_layers))

    def _saved_by_block(self, block: Block) -> int:
        return self.load.num_patches * saved_by_vision_block(self.shapes, block, self._precision)

    def _kept_of_tower(self, num: int) -> int:
        if not self.shapes.tower_trains:
            return 0
        if not self.shapes.patch_embed.num_trained + sum(block.num_trained for block in self.shapes.blocks):
            return 0  # the merger alone: a few tensors of one layer
        if num == 0:
            return sum(self._saved_by_block(block) for block in self.shapes.blocks)
        width = int(self.shapes.config.vision_config.hidden_size)
        return len(self.shapes.blocks) * self.load.num_patches * self._precision.width * width

    def _working(self, layer: Block, is_forward: bool) -> int:
        working = self.load.num_tokens * working_set(layer.linears, self._precision, is_forward)
        largest = max(one.inputs * one.outputs for one in layer.linears)
        if self.recipe.quantization_bit is not None or self._share(3) > 1:
            working += largest * self._precision.width  # one matrix whole again
        if any(one.role == "full" for one in layer.linears):
            working += largest * FLOAT32  # its gradient, before it is added to the others
        return working

    def _head(self) -> tuple[int, int]:
        """Bytes of logits with their float32 copies and gradients, and of what a head that trains makes beside them."""
        head = self.shapes.head
        logits = min(POSITIONS_AT_ONCE, self.load.num_tokens) * head.outputs * 3 * FLOAT32
        return logits, 2 * FLOAT32 * head.num_weights if head.role == "full" else 0


def _is_offloaded(zero: dict[str, Any], what: str) -> bool:
    return str((zero.get(f"offload_{what}") or {}).get("device", "none")) != "none"
