"""What the backward pass keeps of a layer, in bytes a row (a token or a patch), worked out from its matrices.

The tensors are those that autograd saves in transformers' layers with `LeanLora` and a flash kernel for attention.
Counted that way they are exact (tests/modeling/test_memory.py holds them against `saved_tensors_hooks`); under
`torch_compile` fewer are kept, so that this is an upper bound there. DoRA's own tensors are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from operator import or_
from typing import Any

from riskva.modeling.shapes import Block, Linear, Shapes

FLOAT32 = 4


@dataclass(frozen=True)
class Precision:
    """Bytes of an activation, and of what stands between layers, which is float32 where trained embeddings are.

    Under autocast (`is_mixed`) trained weights are float32 and cast when used.
    """

    width: int
    is_mixed: bool = False
    between: int = 0

    @classmethod
    def of(cls, shapes: Shapes, width: int, is_mixed: bool) -> Precision:
        """Activations of `width` bytes in a language model that trains as `shapes` says."""
        between = FLOAT32 if is_mixed and shapes.embedding.num_trained else width
        return cls(width, is_mixed, between)

    def has_own_input(self, one: Linear) -> bool:
        """Whether a matrix keeps a copy of its input that it shares with none beside it."""
        if one.role == "lora":
            return one.drops
        return one.role == "full" and self.is_mixed  # its input comes from a norm in float32


def saved_by_layer(shapes: Shapes, layer: Block, precision: Precision, is_packed: bool) -> int:
    """Bytes a token; `is_packed` where samples of different lengths stand in a row, whose outputs are put together."""
    text: Any = shapes.config.text_config
    keys, heads = layer.linears[1].outputs, text.num_attention_heads
    attention = precision.width * 2 * (text.hidden_size + keys) + FLOAT32 * heads
    return int(attention) + _saved_around_attention(layer, layer.linears[:3], precision, is_packed)


def saved_by_vision_block(shapes: Shapes, block: Block, precision: Precision) -> int:
    """Bytes a patch."""
    vision = shapes.config.vision_config
    # Query, key, output; the values are a part of all three together, which stay as a whole
    attention = precision.width * 6 * vision.hidden_size + FLOAT32 * vision.num_heads
    in_tower = replace(precision, between=precision.width)  # patches come through a cast
    return int(attention) + _saved_around_attention(block, block.linears[:1], in_tower, copies_output=True)


def _saved_around_attention(block: Block, inputs: tuple[Linear, ...], precision: Precision, copies_output: bool) -> int:
    output, gate, up, down = block.linears[-4:]
    width, middle = output.outputs, down.inputs
    norms = 2 * FLOAT32 * (width + 1) + 2 * precision.between * width * block.trains_norms
    given = _inputs_kept(inputs, precision) + _inputs_kept((gate, up), precision)
    has_own_copy = output.role == "lora" and precision.has_own_input(output)
    attended = output.num_trained > 0 and (has_own_copy or copies_output)
    products = 3 + (down.num_trained > 0)  # before and after the activation, what it is multiplied with, their product
    low_rank = sum(one.rank for one in block.linears)
    masks = precision.width * sum(one.inputs for one in block.linears if one.drops)  # on a GPU of one byte
    return norms + masks + precision.width * ((given + attended) * width + products * middle + low_rank)


def _inputs_kept(linears: tuple[Linear, ...], precision: Precision) -> int:
    """Copies of the input that matrices beside each other keep: their own, and one that the others share."""
    trained = [one for one in linears if one.num_trained]
    own = sum(precision.has_own_input(one) for one in trained)
    return own + (own < len(trained))


def layers_with_gradients(shapes: Shapes) -> list[bool]:
    """Which layers of the language model the backward pass reaches: all from the first that something before trains."""
    trained = [layer.num_trained > 0 for layer in shapes.layers]
    trained[0] = trained[0] or shapes.embeddings_have_gradients
    return list(accumulate(trained, or_))


def working_set(linears: tuple[Linear, ...], precision: Precision, is_forward: bool) -> int:
    """Bytes a row of the tensors that live for a moment while a layer is computed, or its gradients are.

    Measured, not derived: the widest place is the MLP, where two tensors of its width live beside those that are kept,
    and under autocast, forward, LoRA's casts to float32 and back.
    """
    down = linears[-1]
    middle = 2 * (FLOAT32 if is_forward else precision.width)
    return middle * down.inputs + (3 if precision.is_mixed and is_forward else 1) * FLOAT32 * down.outputs


def tower_working_set(shapes: Shapes) -> int:
    """Bytes a patch of the frozen tower while it runs: measured, 48 of its width, mostly rotary terms in float32."""
    return 48 * int(shapes.config.vision_config.hidden_size)
