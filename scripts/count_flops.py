"""How much an optimiser step computes at the published shapes, RisKVA against a plain loop: counted, nothing is timed.

    python scripts/count_flops.py [--models 7B 3B] [--layers N] [--blocks N]

The real modules run forward and backward on PyTorch's meta device, where tensors have shapes and no numbers, and
`FlopCounterMode` adds up the matrix products. One photo of 1024 x 1024 pixels, an answer of 100 tokens in a sample of
1,500, LoRA of rank 64 on the language model. The plain loop is transformers' forward with labels, PEFT, and gradient
checkpointing as Trainer switches it on. Exit status 1 if a bound of BOUNDS is broken.

`--layers` and `--blocks` make the models shallower, for a quick look; the bounds are those of whole models.
"""

from __future__ import annotations

import argparse
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from riskva.modeling.checkpointing import checkpoint_layers
from riskva.modeling.model import LastLayer, Qwen2_5_VLForConditionalGeneration
from riskva.modeling.tuning import prepare_tuning
from riskva.recipe import SftRecipe

PHOTO = (1024, 1024)
LENGTH, NUM_SUPERVISED = 1500, 100
LORA_RANK = 64
META = torch.device("meta")
PUBLISHED = {
    "7B": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
    "3B": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
}
"""The language models of Qwen2.5-VL, as their config.json has them; both have the same vision tower."""

IMAGE_TOKEN_ID = 151655


@dataclass(frozen=True)
class Bounds:
    """The largest shares of the plain loop's work, and how often the tower may call attention."""

    checkpointed: float
    not_checkpointed: float
    attention_calls: int = 100
    logits: float = 0.25


BOUNDS = {"7B": Bounds(0.87, 0.60), "3B": Bounds(0.78, 0.52)}


@dataclass(frozen=True)
class Counted:
    """One step: its work in FLOPs, calls of attention in one forward of the tower, and bytes of logits.

    `logits` is the largest sum of living tensors whose last dimension is the vocabulary, `largest` the biggest one.
    """

    flops: int
    attention_calls: int
    logits: int
    largest_logits: int


def published_config(name: str, num_layers: int | None = None, num_blocks: int | None = None) -> Qwen2_5_VLConfig:
    """The config of Qwen2.5-VL-7B or -3B, with fewer layers if asked for."""
    text = dict(PUBLISHED[name])
    tied = text.pop("tie_word_embeddings")
    text["num_hidden_layers"] = num_layers or text["num_hidden_layers"]
    depth = num_blocks or 32
    return Qwen2_5_VLConfig(
        text_config={
            **text,
            "max_window_layers": text["num_hidden_layers"],
            "max_position_embeddings": 128000,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision_config={
            "depth": depth,
            "hidden_size": 1280,
            "num_heads": 16,
            "intermediate_size": 3420,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [index for index in (7, 15, 23, 31) if index < depth],
            "out_hidden_size": text["hidden_size"],
        },
        tie_word_embeddings=tied,
        image_token_id=IMAGE_TOKEN_ID,
    )


def lora_recipe(**keys: Any) -> SftRecipe:
    """A recipe with LoRA on all of the language model, for counting: it names no files that are there."""
    values = {"lora_rank": LORA_RANK, **keys}
    return SftRecipe(stage="sft", model_name_or_path="m", output_dir=Path("o"), dataset=("d",), **values)


def on_meta(cls: Callable[[Qwen2_5_VLConfig], Any], config: Qwen2_5_VLConfig, recipe: SftRecipe) -> Any:
    """A model in bfloat16 as the recipe trains it, without numbers."""
    with META:
        model = cls(config).to(torch.bfloat16)
        model.tie_weights()
        return prepare_tuning(model, recipe).train()


def plain_model(config: Qwen2_5_VLConfig) -> Any:
    """transformers' model with PEFT's LoRA, and checkpointing as Trainer 5.23 switches it on."""
    with patch("riskva.modeling.tuning.skip_gradients_of_frozen_tower"):
        model = on_meta(transformers.Qwen2_5_VLForConditionalGeneration, config, lora_recipe())
    model.gradient_checkpointing_enable()
    return model


def plain_model_with_frozen_tower(config: Qwen2_5_VLConfig) -> Any:
    """The same, with the tower under no_grad: what the plain loop could be if transformers #41993 were mended."""
    model = plain_model(config)
    tower = model.base_model.model.model.visual
    tower.forward = torch.no_grad()(tower.forward)
    return model


def riskva_model(config: Qwen2_5_VLConfig, num_checkpointed: int, recipe: SftRecipe | None = None) -> Any:
    """RisKVA's model with the first layers checkpointed."""
    model = on_meta(Qwen2_5_VLForConditionalGeneration, config, recipe or lora_recipe())
    checkpoint_layers(model, num_checkpointed)
    # A checkpoint's second forward is out of reach of IndicesFollow.
    head = next(module for name, module in model.named_modules() if name.endswith("lm_head"))
    last = [module for module in model.modules() if isinstance(module, LastLayer)]
    for one in (head, *last):
        one.register_forward_pre_hook(_indices_follow, with_kwargs=True)
    return model


def photo_grid(size: tuple[int, int] = PHOTO) -> tuple[int, int, int]:
    """Patches of a photo, as the image processor resizes it: (1, height, width)."""
    height, width = smart_resize(*size, factor=28, min_pixels=56 * 56, max_pixels=1024 * 1024)
    return 1, height // 14, width // 14


def plain_batch(config: Any, length: int = LENGTH, num_supervised: int = NUM_SUPERVISED) -> dict[str, Any]:
    """One sample with a photo, as transformers takes it."""
    batch = {"input_ids": torch.zeros(1, length, dtype=torch.long), "labels": _labels(length, num_supervised)}
    batch["position_ids"] = torch.zeros(3, 1, length, dtype=torch.long)
    return {**{name: tensor.to(META) for name, tensor in batch.items()}, **_photo(config)}


def packed_batch(
    config: Any,
    lengths: tuple[int, ...] = (LENGTH,),
    num_supervised: int = NUM_SUPERVISED,
    is_cached: bool = True,
    photo_size: tuple[int, int] = PHOTO,
) -> dict[str, Any]:
    """Samples in one row, the first with a photo whose features are cached or that the tower is to be run for."""
    total = sum(lengths)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    batch = {
        "labels": _labels(total, num_supervised),
        "cu_seqlens": bounds,
    }  # read on the CPU, where they decide shapes
    batch["input_ids"] = torch.zeros(1, total, dtype=torch.long, device=META)
    batch["position_ids"] = torch.zeros(4, 1, total, dtype=torch.long, device=META)
    photo = _photo(config, photo_size)
    if is_cached:
        tokens = len(photo.pop("pixel_values")) // config.vision_config.spatial_merge_size**2
        photo["image_features"] = torch.zeros(tokens, config.text_config.hidden_size, dtype=torch.bfloat16, device=META)
    return {**batch, **photo, "has_features": [is_cached], "photo_keys": ["photo"]}


def _photo(config: Any, size: tuple[int, int] = PHOTO) -> dict[str, Any]:
    grid = photo_grid(size)
    values = config.vision_config.in_channels * config.vision_config.temporal_patch_size * 14**2
    pixels = torch.zeros(grid[1] * grid[2], values, dtype=torch.bfloat16, device=META)
    return {"pixel_values": pixels, "image_grid_thw": torch.tensor([grid])}


def _labels(length: int, num_supervised: int) -> Tensor:
    labels = torch.full((1, length), -100)
    labels[0, length - num_supervised :] = 1
    return labels


def _indices_follow(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    bounds = {name: one for name, one in kwargs.items() if name == "cu_seqlens"}
    args, kwargs = tree_map_only(Tensor, lambda one: one.to(META), (args, kwargs))
    return args, {**kwargs, **bounds}


class IndicesFollow(TorchFunctionMode):
    """Moves indices on the CPU to the meta device where they meet tensors that are there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """`func` with all of its tensors on the meta device if one is."""
        kwargs = kwargs or {}
        if any(isinstance(one, Tensor) and one.is_meta for one in tree_leaves((args, kwargs))):
            args, kwargs = tree_map_only(Tensor, lambda one: one.to(META), (args, kwargs))
        return func(*args, **kwargs)


class LogitsWatch(TorchDispatchMode):
    """The tensors of at least 2 positions x vocabulary that live at a time: what logits and their copies take."""

    def __init__(self, model: nn.Module, vocabulary: int) -> None:
        super().__init__()
        self._vocabulary = vocabulary
        self._weights = {weight.untyped_storage()._cdata for weight in model.parameters()}  # one transposed looks alike
        self._living: dict[int, int] = {}
        self.peak = self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What `func` gives; its new logits are noted."""
        given = func(*args, **(kwargs or {}))
        for one in tree_leaves(given):
            if isinstance(one, Tensor) and one.ndim > 1 and one.shape[-1] == self._vocabulary:
                self._note(one)
        return given

    def _note(self, logits: Tensor) -> None:
        storage = logits.untyped_storage()
        key = storage._cdata
        if key in self._weights or key in self._living:
            return
        self._living[key] = storage.nbytes()
        weakref.finalize(storage, self._living.pop, key, None)
        self.peak = max(self.peak, sum(self._living.values()))
        self.largest = max(self.largest, storage.nbytes())


class AttentionCalls(TorchFunctionMode):
    """How often `scaled_dot_product_attention` is called."""

    calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What `func` gives."""
        self.calls += func is scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


@contextmanager
def counting_on_meta() -> Iterator[FlopCounterMode]:
    """What goes on inside is counted; a check of values, which are not there, is left out."""
    with (
        patch("transformers.models.qwen2_5_vl.modeling_qwen2_5_vl.torch_compilable_check"),
        IndicesFollow(),
        FlopCounterMode(display=False) as counter,
    ):
        yield counter


def count_step(model: Any, batch: dict[str, Any]) -> Counted:
    """One micro-batch forward and backward, and one forward of the tower."""
    config = model.config
    with LogitsWatch(model, config.text_config.vocab_size) as logits, counting_on_meta() as counter:
        loss = loss_of(model(**batch))
        torch.autograd.backward(loss)
    return Counted(counter.get_total_flops(), attention_calls(model), logits.peak, logits.largest)


def loss_of(output: Any) -> Tensor:
    """The loss in transformers' output, or of the sums of ours."""
    loss: Tensor = output.loss if hasattr(output, "loss") else output.sums.sum()
    return loss


def attention_calls(model: Any) -> int:
    """Calls of attention in one forward of the vision tower over the photo."""
    photo = _photo(model.config)
    inner = next(one for one in model.modules() if isinstance(one, transformers.Qwen2_5_VLForConditionalGeneration))
    run = getattr(inner, "_run_tower", None) or inner.model.visual
    with torch.no_grad(), counting_on_meta(), AttentionCalls() as attention:
        run(photo["pixel_values"], photo["image_grid_thw"])
    return attention.calls


def count_model(name: str, num_layers: int | None, num_blocks: int | None) -> dict[str, Counted]:
    """What each way of doing the step counts, the plain loops first."""
    config: Any = published_config(name, num_layers, num_blocks)
    all_layers = config.text_config.num_hidden_layers
    first = packed_batch(config, is_cached=False)
    cached = packed_batch(config)
    return {
        PLAIN: count_step(plain_model(config), plain_batch(config)),
        PLAIN_FROZEN: count_step(plain_model_with_frozen_tower(config), plain_batch(config)),
        "RisKVA, first epoch, checkpointing": count_step(riskva_model(config, all_layers), first),
        "RisKVA, first epoch": count_step(riskva_model(config, 0), first),
        CACHED: count_step(riskva_model(config, all_layers), cached),
        CACHED_FREE: count_step(riskva_model(config, 0), cached),
    }


PLAIN = "plain loop, checkpointing"
PLAIN_FROZEN = "the same, tower not run backwards"
CACHED = "RisKVA, vision cached, checkpointing"
CACHED_FREE = "RisKVA, vision cached"


def broken_bounds(name: str, counted: dict[str, Counted]) -> list[str]:
    """What of BOUNDS is not kept, against the plain loop that is kinder to itself."""
    bounds, plain = BOUNDS[name], counted[PLAIN_FROZEN]
    with_it, without = counted[CACHED], counted[CACHED_FREE]
    found = {
        "work with checkpointing": (with_it.flops / plain.flops, bounds.checkpointed),
        "work without": (without.flops / plain.flops, bounds.not_checkpointed),
        "calls of attention": (with_it.attention_calls, bounds.attention_calls),
        "bytes of logits": (without.logits / plain.logits, bounds.logits),
        "bytes of the largest logits": (without.largest_logits, 4 * NUM_SUPERVISED * PUBLISHED[name]["vocab_size"] - 1),
    }
    return [f"{name}: {what} {value:.3g}, at most {most:g}" for what, (value, most) in found.items() if value > most]


def table(name: str, counted: dict[str, Counted]) -> Iterator[str]:
    """The counts as lines."""
    plain, kinder = counted[PLAIN].flops, counted[PLAIN_FROZEN].flops
    size = f"one photo of {PHOTO[0]} x {PHOTO[1]}, {LENGTH} tokens, {NUM_SUPERVISED} supervised"
    yield f"Qwen2.5-VL-{name}, LoRA r={LORA_RANK}, {size}"
    yield f"{'':38}{'TFLOP':>8}{'of plain':>10}{'of kinder':>11}{'attention':>11}{'logits MB':>11}{'largest':>9}"
    for what, one in counted.items():
        shares = f"{one.flops / 1e12:8.1f}{one.flops / plain:10.3f}{one.flops / kinder:11.3f}"
        yield f"{what:38}{shares}{one.attention_calls:11}{one.logits / 1e6:11.0f}{one.largest_logits / 1e6:9.0f}"


EXPLAINED = f"""\
of plain    work as a share of the plain loop's, which runs the frozen tower backwards (transformers #41993)
of kinder   as a share of the plain loop's without that; the bounds are held against it
attention   calls of scaled_dot_product_attention in one forward of the vision tower
logits      most bytes at a time of logits, their copies and gradients; largest: of one tensor. All supervised logits
            in float32 would be {{}} MB ({NUM_SUPERVISED} positions x vocabulary x 4 bytes)"""


def main() -> int:
    """Count, print, and compare with the bounds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(PUBLISHED), default=list(PUBLISHED))
    parser.add_argument("--layers", type=int)
    parser.add_argument("--blocks", type=int)
    asked = parser.parse_args()
    broken = []
    for name in asked.models:
        counted = count_model(name, asked.layers, asked.blocks)
        print("\n".join(table(name, counted)), end="\n\n")
        broken += broken_bounds(name, counted)
    print(EXPLAINED.format(NUM_SUPERVISED * 152064 * 4 // 10**6))
    print("\n".join(["", *broken]) if broken else "\nall bounds are kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
