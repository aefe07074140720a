"""The matrices of a Qwen2.5-VL and which of them a recipe trains, from its config alone: what is counted by them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from transformers import Qwen2_5_VLConfig

from riskva.modeling.loading import locate_adapter
from riskva.modeling.tuning import lora_target_pattern
from riskva.recipe import SftRecipe

Role = Literal["frozen", "lora", "full"]
"""A matrix is frozen, frozen with LoRA beside it, or trained itself."""

RoleOf = Callable[[str], Role]
"""What a module of this name is, as in `language_model.layers.0.self_attn.q_proj`."""

LAYER_NAMES = (
    *(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
    *(f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")),
)


@dataclass(frozen=True)
class Linear:
    """A matrix of `inputs` x `outputs`; `rank` is that of the LoRA beside it, 0 with none.

    `drops`: LoRA's dropout makes an input of its own for each matrix.
    """

    inputs: int
    outputs: int
    role: Role
    rank: int = 0
    has_bias: bool = False
    drops: bool = False

    @property
    def num_weights(self) -> int:
        """The matrix and its bias, without LoRA."""
        return (self.inputs + self.has_bias) * self.outputs

    @property
    def num_lora_weights(self) -> int:
        """A and B."""
        return self.rank * (self.inputs + self.outputs)

    @property
    def num_trained(self) -> int:
        """The weights that gradients are made for."""
        return self.num_weights if self.role == "full" else self.num_lora_weights


@dataclass(frozen=True)
class Block:
    """A layer of the language model or a block of the vision tower; its norms train where `trains_norms`."""

    linears: tuple[Linear, ...]
    """Attention's inputs (query, key, value, or all in one), its output, then gate, up and down."""
    num_norm_weights: int
    trains_norms: bool

    @property
    def num_weights(self) -> int:
        """All but LoRA's."""
        return sum(one.num_weights for one in self.linears) + self.num_norm_weights

    @property
    def num_trained(self) -> int:
        """The weights that gradients are made for."""
        return sum(one.num_trained for one in self.linears) + self.num_norm_weights * self.trains_norms


@dataclass(frozen=True)
class Shapes:
    """All of a model's matrices, and which of them train."""

    config: Any
    """The model's `Qwen2_5_VLConfig`; its parts have no types that are of use."""
    layers: tuple[Block, ...]
    """The language model's layers."""
    patch_embed: Linear
    blocks: tuple[Block, ...]
    """The vision tower's blocks."""
    merger: tuple[Linear, Linear]
    merger_norm: Linear
    """Of one input: a norm's weights."""
    embedding: Linear
    """(V, H); with tied weights this is the head too, and trains where either does."""
    final_norm: Linear
    head: Linear

    @cached_property
    def is_tied(self) -> bool:
        """Whether the head's matrix is the embedding's."""
        return bool(self.config.tie_word_embeddings)

    @property
    def tower_trains(self) -> bool:
        """Whether the vision tower or its merger trains: then its features have gradients."""
        return any(one.num_trained for one in self._tower())

    @property
    def embeddings_have_gradients(self) -> bool:
        """Whether the first layer's input has gradients: where it has none, less is computed in that layer."""
        return self.embedding.num_trained > 0 or self.tower_trains

    @property
    def num_weights(self) -> int:
        """All weights, LoRA's too."""
        return sum(one.num_weights for one in self._parts()) + sum(one.num_lora_weights for one in self._linears())

    @property
    def num_trained(self) -> int:
        """The weights that train."""
        return sum(one.num_trained for one in self._parts())

    def _parts(self) -> Iterator[Linear | Block]:
        yield from self._tower()
        yield self.embedding
        yield from self.layers
        yield self.final_norm
        if not self.is_tied:
            yield self.head

    def _tower(self) -> Iterator[Linear | Block]:
        yield self.patch_embed
        yield from self.blocks
        yield from (*self.merger, self.merger_norm)

    def _linears(self) -> Iterator[Linear]:
        for part in (*self.layers, *self.blocks):
            yield from part.linears
        yield from self.merger


def shapes_of(config: Qwen2_5_VLConfig, recipe: SftRecipe) -> Shapes:
    """The model's matrices as the recipe trains them. Raises `RecipeError` where lora_target names no module."""
    parts: Any = config
    role_of, rank = _roles(parts, recipe)
    text, vision = parts.text_config, parts.vision_config
    hidden = text.hidden_size
    merged = vision.hidden_size * vision.spatial_merge_size**2

    def linear(name: str, inputs: int, outputs: int, has_bias: bool = False) -> Linear:
        role = role_of(name)
        is_lora = role == "lora"
        return Linear(inputs, outputs, role, rank * is_lora, has_bias, is_lora and recipe.lora_dropout > 0)

    layers = tuple(_layer(text, f"language_model.layers.{index}", linear) for index in range(text.num_hidden_layers))
    embedding = linear("language_model.embed_tokens", text.vocab_size, hidden)
    head = linear("lm_head", hidden, text.vocab_size)
    if config.tie_word_embeddings and "full" in (embedding.role, head.role):
        embedding = Linear(text.vocab_size, hidden, "full")
        head = Linear(hidden, text.vocab_size, "full")
    return Shapes(
        config,
        layers,
        linear("visual.patch_embed.proj", _patch_values(vision), vision.hidden_size),
        tuple(_block(vision, f"visual.blocks.{index}", linear) for index in range(vision.depth)),
        (
            linear("visual.merger.mlp.0", merged, merged, True),
            linear("visual.merger.mlp.2", merged, vision.out_hidden_size, True),
        ),
        linear("visual.merger.ln_q", 1, vision.hidden_size),
        embedding,
        linear("language_model.norm", 1, hidden),
        head,
    )


def _layer(text: Any, name: str, linear: Callable[..., Linear]) -> Block:
    hidden, middle = text.hidden_size, text.intermediate_size
    keys = text.num_key_value_heads * (hidden // text.num_attention_heads)
    sizes = [(hidden, hidden), (hidden, keys), (hidden, keys), (hidden, hidden)]
    sizes += [(hidden, middle), (hidden, middle), (middle, hidden)]
    has_bias = (True, True, True, False, False, False, False)
    linears = tuple(
        linear(f"{name}.{leaf}", *size, bias) for leaf, size, bias in zip(LAYER_NAMES, sizes, has_bias, strict=True)
    )
    return Block(linears, 2 * hidden, linear(f"{name}.input_layernorm", 1, hidden).role == "full")


def _block(vision: Any, name: str, linear: Callable[..., Linear]) -> Block:
    width, middle = vision.hidden_size, vision.intermediate_size
    sizes = {"attn.qkv": (width, 3 * width), "attn.proj": (width, width)}
    sizes |= {"mlp.gate_proj": (width, middle), "mlp.up_proj": (width, middle), "mlp.down_proj": (middle, width)}
    linears = tuple(linear(f"{name}.{leaf}", *size, True) for leaf, size in sizes.items())
    return Block(linears, 2 * width, linear(f"{name}.norm1", 1, width).role == "full")


def _patch_values(vision: Any) -> int:
    return int(vision.in_channels * vision.temporal_patch_size * vision.patch_size**2)


def _roles(config: Any, recipe: SftRecipe) -> tuple[RoleOf, int]:
    """What each module is, and the rank of LoRA; an adapter that is trained on says so itself."""
    if recipe.adapter_name_or_path:
        adapter = json.loads((locate_adapter(recipe.adapter_name_or_path) / "adapter_config.json").read_text("utf-8"))
        targets, rank = adapter["target_modules"], int(adapter["r"])
        pattern = targets if isinstance(targets, str) else rf"(?:.*\.)?(?:{'|'.join(map(re.escape, targets))})"
    elif recipe.finetuning_type == "lora":
        pattern, rank = lora_target_pattern(recipe, _adaptable_names(config)), recipe.lora_rank
    else:
        return lambda name: "full" if _is_trained_whole(name, config, recipe) else "frozen", 0
    return lambda name: "lora" if re.fullmatch(pattern, name) else "frozen", rank


def _adaptable_names(config: Any) -> Iterator[str]:
    yield from (
        f"language_model.layers.{i}.{n}" for i in range(config.text_config.num_hidden_layers) for n in LAYER_NAMES
    )
    leaves = ("attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    yield from (f"visual.blocks.{i}.{leaf}" for i in range(config.vision_config.depth) for leaf in leaves)
    yield from ("visual.merger.mlp.0", "visual.merger.mlp.2")


def _is_trained_whole(name: str, config: Any, recipe: SftRecipe) -> bool:
    if name.startswith("visual.merger"):
        return not recipe.freeze_multi_modal_projector
    if name.startswith("visual"):
        return not recipe.freeze_vision_tower
    if recipe.freeze_language_model or recipe.finetuning_type == "full":
        return not recipe.freeze_language_model
    found = re.match(r"language_model\.layers\.(\d+)\.", name)
    if found is None:
        return False
    count, index = recipe.freeze_trainable_layers, int(found[1])
    return index >= config.text_config.num_hidden_layers - count if count > 0 else index < -count
