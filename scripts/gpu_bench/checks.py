"""Whether the device computes the same loss and gradients in all forms of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import torch
from bench_shapes import collator_tokens, sample, tiny_config
from count_flops import photo_grid, published_config
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from gpu_bench.models import mean_loss, on_device, plain_model, riskva_model
from riskva.encoding import Collator, Encoded, PackedCollator
from riskva.modeling.segments import attend_within, varlen_kernel


@dataclass(frozen=True)
class Check:
    """A difference, and how large it may be."""

    name: str
    difference: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether it is small enough; one that is not a number is not."""
        return self.difference <= self.allowed


BFLOAT16_UNITS = 0.032
"""Two units in the last place of numbers from 2 to 4, which are the largest that attention gives here."""


@dataclass(frozen=True)
class Attention:
    """What a kind of attention is like in the published models."""

    heads: int
    key_heads: int
    head_dim: int
    is_causal: bool


ATTENTIONS = {"language model": Attention(16, 2, 128, True), "tower": Attention(16, 16, 80, False)}
LENGTHS = (413, 17, 256, 1, 900)
"""Segments of the attention check."""


def check(device: torch.device, is_tiny: bool) -> list[Check]:
    """Whether the device computes the same in all forms."""
    losses = [one for dtype in (torch.bfloat16, torch.float32) for one in check_losses(device, is_tiny, dtype)]
    return [*check_attention(device), *losses]


def check_attention(device: torch.device) -> Iterator[Check]:
    """Segments in one call, and one by one, in bfloat16, against a mask over the whole row in float32."""
    name = kernel_name(device)
    for what, sizes in ATTENTIONS.items():
        query, key, value = (drawn(device, heads, sizes.head_dim) for heads in (sizes.heads, *[sizes.key_heads] * 2))
        bounds = torch.tensor([0, *LENGTHS]).cumsum(0)
        exact = masked(query.float(), key.float(), value.float(), bounds, sizes.is_causal)
        as_is = attend_within(query, key, value, bounds, sizes.is_causal)
        with patch("riskva.modeling.segments.varlen_kernel", return_value=None):
            one_by_one = attend_within(query, key, value, bounds, sizes.is_causal)
        yield Check(f"attention of the {what}, {name} and float32 with a mask", largest(as_is, exact), BFLOAT16_UNITS)
        yield Check(
            f"attention of the {what}, by segments and float32 with a mask", largest(one_by_one, exact), BFLOAT16_UNITS
        )
        yield Check(f"attention of the {what}, {name} and by segments", largest(as_is, one_by_one), BFLOAT16_UNITS)


def drawn(device: torch.device, heads: int, head_dim: int) -> Tensor:
    """(L, heads, D) in bfloat16."""
    draw = torch.Generator().manual_seed(heads)
    return torch.randn(sum(LENGTHS), heads, head_dim, generator=draw).to(device, torch.bfloat16)


def kernel_name(device: torch.device) -> str:
    """What does segments of different lengths on this device."""
    return f"kernel of {varlen_kernel()}" if device.type == "cuda" and varlen_kernel() else "no kernel"


def masked(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, is_causal: bool) -> Tensor:
    """(L, heads, D): attention by a mask of L x L."""
    segment = torch.cat([torch.full((end - start,), start) for start, end in pairwise(bounds.tolist())])
    mask = segment[:, None] == segment[None]
    mask = (mask.tril() if is_causal else mask).to(query.device)
    one, other, third = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    return scaled_dot_product_attention(one, other, third, attn_mask=mask, enable_gqa=True)[0].transpose(0, 1)


def largest(one: Tensor, other: Tensor) -> float:
    """The largest difference."""
    return float((one.float() - other.float()).abs().max())


def check_losses(device: torch.device, is_tiny: bool, dtype: torch.dtype) -> Iterator[Check]:
    """A packed row against its samples one by one, transformers' padded batch, and features from a cache."""
    torch.manual_seed(0)
    config: Any = tiny_config() if is_tiny else published_config("3B", num_layers=4, num_blocks=8)
    ours, plain = riskva_model(config, device), plain_model(config, device)
    begin_lora(ours)
    plain.load_state_dict(ours.state_dict())
    if dtype == torch.float32:
        ours, plain = ours.float(), plain.float()
    ours.train()
    plain.train()
    grid = photo_grid((84, 112) if is_tiny else (448, 336))
    samples = [sample(config, grid, num_text=60 + 20 * one, num_supervised=20 + one, seed=one) for one in range(4)]
    tokens = collator_tokens(config)
    packed = loss_and_norm(ours, [PackedCollator(tokens)(samples)], device)
    named = str(dtype).removeprefix("torch.")
    allowed = 2e-2 if dtype == torch.bfloat16 else 1e-4
    others = {
        "one by one": loss_and_norm(ours, [PackedCollator(tokens)([one]) for one in samples], device),
        "transformers' own, padded": loss_and_norm(plain, [Collator(tokens)(samples)], device),
        "features from a cache": loss_and_norm(ours, [PackedCollator(tokens)(cached(ours, samples, device))], device),
    }
    for name, other in others.items():
        for what, value, beside in zip(("loss", "gradient norm"), packed, other, strict=True):
            yield Check(f"{named}, {what}, packed and {name}", abs(value / beside - 1), allowed)


def begin_lora(model: Any) -> None:
    """Let LoRA's B be other than 0, so that all of its gradients count."""
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)


def cached(model: Any, samples: Sequence[Encoded], device: torch.device) -> list[Encoded]:
    """The samples with what the model's tower makes of their photos in place of the patches."""
    base, features = model.get_base_model(), list[Tensor]()
    named = [replace(one, photo_features=(None,), photo_keys=(one.id,)) for one in samples]
    base.keep_features = lambda keys, seen: features.extend(seen)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=is_half(model)):
        model(**on_device(PackedCollator(collator_tokens(base.config))(named), device))
    base.keep_features = None
    none = torch.empty(0, samples[0].pixel_values.shape[1])
    pairs = zip(named, features, strict=True)
    return [replace(one, pixel_values=none, photo_features=(kept.cpu(),)) for one, kept in pairs]


def loss_and_norm(model: Any, batches: Sequence[dict[str, Any]], device: torch.device) -> tuple[float, float]:
    """The mean loss over all supervised tokens, and the length of its gradient."""
    weights = [one for one in model.parameters() if one.requires_grad]
    total = sum(int((batch["labels"] >= 0).sum()) for batch in batches)
    loss = 0.0
    for batch in batches:
        share = int((batch["labels"] >= 0).sum()) / total
        with torch.autocast(device.type, torch.bfloat16, enabled=is_half(model)):
            part = mean_loss(model(**on_device(batch, device))) * share
        torch.autograd.backward(part)
        loss += float(part.detach())
    norm = torch.linalg.vector_norm(torch.stack([one.grad.float().norm() for one in weights]))
    model.zero_grad()
    return loss, float(norm)


def is_half(model: Any) -> bool:
    """Whether the frozen weights are bfloat16, and autocast is for LoRA's."""
    return any(weight.dtype == torch.bfloat16 for weight in model.parameters())
