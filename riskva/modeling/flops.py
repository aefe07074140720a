"""How much a training step computes, from shapes alone: floating-point operations, two for a multiply-add.

Counted are matrix products, attention's among them, as PyTorch's `FlopCounterMode` does; norms, activations and the
optimiser are left out. Attention is counted over the whole square of a sample, also where it is causal and a kernel
passes over the masked half: that is how PyTorch and the published MFU figures count (PaLM, arXiv 2204.02311, appendix
B). Backward it is counted as four products; a flash kernel does a fifth, the scores once more, which no MFU counts.
Where one of query, key and value wants a gradient, all three are counted, as a kernel computes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from riskva.modeling.shapes import Block, Linear, Shapes

Grid = tuple[int, int, int]
"""Patches of a photo: frames, height, width."""


@dataclass(frozen=True)
class Batch:
    """What a step is made of: tokens of each sample, supervised tokens, and grids of photos that the tower runs for.

    A photo whose features come from the vision cache is not among the grids.
    """

    lengths: Sequence[int]
    num_supervised: int
    grids: Sequence[Grid] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens of all samples together."""
        return sum(self.lengths)


def model_flops(shapes: Shapes, batch: Batch) -> int:
    """What the step needs, whatever the memory: forward, and backward as far as gradients are wanted. For MFU."""
    return step_flops(shapes, batch, num_checkpointed=0) - _head_recomputation(shapes, batch)


def step_flops(shapes: Shapes, batch: Batch, num_checkpointed: int = 0) -> int:
    """What the step computes with the first `num_checkpointed` layers of the language model computed twice.

    The tower's blocks are computed twice too where any layer is and the tower trains. A head that trains always
    computes its logits twice.
    """
    return (
        _tower_step(shapes, batch.grids, num_checkpointed > 0)
        + _language_step(shapes, batch, num_checkpointed)
        + _head_step(shapes, batch)
    )


def tower_flops(shapes: Shapes, grid: Grid) -> int:
    """One photo through the vision tower and the merger, forward."""
    return sum(_product(one, _num_patches(grid)) for one in (shapes.patch_embed, *_linears(shapes.blocks))) + (
        sum(_window_attention(shapes, grid, index) for index in range(len(shapes.blocks)))
        + sum(_product(one, _num_tokens(shapes, grid)) for one in shapes.merger)
    )


def language_flops(shapes: Shapes, length: int, num_supervised: int) -> int:
    """One sample of `length` tokens through the language model's layers, forward, without the head.

    What follows attention in the last layer is computed for the supervised tokens alone.
    """
    attention = len(shapes.layers) * _attention(shapes.config.text_config.hidden_size, [length])
    spared = sum(_product(one, length - num_supervised) for one in shapes.layers[-1].linears[3:])
    return sum(_product(one, length) for one in _linears(shapes.layers)) + attention - spared


def head_flops(shapes: Shapes, num_positions: int) -> int:
    """The logits of `num_positions` positions, forward."""
    return _product(shapes.head, num_positions)


def _linears(blocks: Sequence[Block]) -> Iterator[Linear]:
    return (one for block in blocks for one in block.linears)


def _product(one: Linear, rows: int) -> int:
    """`rows` vectors through a matrix and the LoRA beside it."""
    return 2 * rows * (one.inputs * one.outputs + one.num_lora_weights)


def _backward(one: Linear, rows: int, input_has_gradient: bool, output_has_gradient: bool) -> int:
    """The gradients of a matrix's input and weights, as far as they are wanted."""
    if not output_has_gradient:
        return 0
    matrix, lora = 2 * rows * one.inputs * one.outputs, 2 * rows * one.num_lora_weights
    work = matrix * (one.role == "full") + lora  # of weights
    if one.role == "lora":
        work += 2 * rows * one.rank * one.outputs  # of B's input
    if input_has_gradient:
        work += matrix + (2 * rows * one.rank * one.inputs if one.role == "lora" else 0)
    return work


def _attention(width: int, lengths: Sequence[int]) -> int:
    """Scores and their product with the values, of heads that are `width` wide together."""
    return sum(4 * length * length * width for length in lengths)


@dataclass(frozen=True)
class _Rows:
    """Rows that go through a block: into its attention, of which `attention` is the work, and on from there."""

    before: int
    after: int
    attention: int


def _block_step(block: Block, rows: _Rows, has_gradient: bool, is_recomputed: bool) -> tuple[int, bool]:
    """Forward, backward and recomputation of a block, and whether its output has a gradient.

    `has_gradient` says so of its input.
    """
    *inputs, output, gate, up, down = block.linears
    after = rows.after
    attends = has_gradient or block.trains_norms or any(one.num_trained for one in inputs)
    middle = attends or output.num_trained > 0
    reaches_down = middle or block.trains_norms or gate.num_trained + up.num_trained > 0
    given = reaches_down or down.num_trained > 0
    forward = sum(_product(one, rows.before) for one in inputs) + rows.attention
    forward += sum(_product(one, after) for one in (output, gate, up, down))
    backward = 2 * rows.attention * attends
    first = has_gradient or block.trains_norms
    backward += sum(_backward(one, rows.before, first, first or one.num_trained > 0) for one in inputs)
    backward += _backward(output, after, attends, middle)
    backward += sum(
        _backward(one, after, middle or block.trains_norms, middle or block.trains_norms or one.num_trained > 0)
        for one in (gate, up)
    )
    backward += _backward(down, after, reaches_down, given)
    again = forward - _not_recomputed(down, after) if is_recomputed and given else 0
    return forward + backward + again, given


def _not_recomputed(down: Linear, rows: int) -> int:
    """Recomputation ends where the last tensor is there that the backward pass needs: before the last product."""
    return 2 * rows * (down.rank * down.outputs if down.role == "lora" else down.inputs * down.outputs)


def _language_step(shapes: Shapes, batch: Batch, num_checkpointed: int) -> int:
    attention = _attention(shapes.config.text_config.hidden_size, batch.lengths)
    every = _Rows(batch.num_tokens, batch.num_tokens, attention)
    last = _Rows(batch.num_tokens, batch.num_supervised, attention)  # see riskva.modeling.model.LastLayer
    work, has_gradient = 0, shapes.embeddings_have_gradients
    for index, layer in enumerate(shapes.layers):
        rows = last if index == len(shapes.layers) - 1 else every
        done, has_gradient = _block_step(layer, rows, has_gradient, index < num_checkpointed)
        work += done
    return work


def _head_step(shapes: Shapes, batch: Batch) -> int:
    rows, has_gradient = batch.num_supervised, _reach_the_head(shapes)
    backward = _backward(shapes.head, rows, has_gradient, has_gradient or shapes.head.role == "full")
    return head_flops(shapes, rows) + backward + _head_recomputation(shapes, batch)


def _head_recomputation(shapes: Shapes, batch: Batch) -> int:
    return head_flops(shapes, batch.num_supervised) if shapes.head.role == "full" else 0


def _reach_the_head(shapes: Shapes) -> bool:
    trained = [shapes.final_norm.num_trained, *(layer.num_trained for layer in shapes.layers)]
    return shapes.embeddings_have_gradients or any(trained)


def _tower_step(shapes: Shapes, grids: Sequence[Grid], is_recomputed: bool) -> int:
    if not shapes.tower_trains:
        return sum(tower_flops(shapes, grid) for grid in grids)
    return sum(_trained_tower(shapes, grid, is_recomputed) for grid in grids)


def _trained_tower(shapes: Shapes, grid: Grid, is_recomputed: bool) -> int:
    patches, tokens = _num_patches(grid), _num_tokens(shapes, grid)
    has_gradient = shapes.patch_embed.num_trained > 0
    work = _product(shapes.patch_embed, patches) * (1 + has_gradient)
    for index, block in enumerate(shapes.blocks):
        attention = _window_attention(shapes, grid, index)
        done, has_gradient = _block_step(block, _Rows(patches, patches, attention), has_gradient, is_recomputed)
        work += done
    has_gradient = has_gradient or shapes.merger_norm.num_trained > 0
    for one in shapes.merger:
        given = has_gradient or one.num_trained > 0
        work += _product(one, tokens) + _backward(one, tokens, has_gradient, given)
        has_gradient = given
    return work


def _num_patches(grid: Grid) -> int:
    frames, height, width = grid
    return frames * height * width


def _num_tokens(shapes: Shapes, grid: Grid) -> int:
    """Tokens that a photo becomes: a square of patches each."""
    return _num_patches(grid) // int(shapes.config.vision_config.spatial_merge_size) ** 2


def _window_attention(shapes: Shapes, grid: Grid, index: int) -> int:
    """Attention in the tower's block `index`: over each frame, or within windows."""
    vision = shapes.config.vision_config
    frames, height, width = grid
    if index in vision.fullatt_block_indexes:
        return _attention(vision.hidden_size, [height * width] * frames)
    side = vision.window_size // vision.patch_size
    heights, widths = _cut(height, side), _cut(width, side)
    return frames * _attention(vision.hidden_size, [one * other for one in heights for other in widths])


def _cut(size: int, side: int) -> list[int]:
    """`size` patches in windows of `side`, the last one smaller."""
    return [side] * (size // side) + ([size % side] if size % side else [])
