"""Attention of samples that stand in one row, each over itself alone; and of the windows of a photo.

A mask over the whole row would cost its length squared. Instead, on a GPU a kernel for sequences of different lengths
does all segments in one call (flash-attention if it is installed, or torch's own from 2.10 on); elsewhere each is
computed by itself, those of one length together.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import groupby, pairwise
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

_REMEMBERED_LAYOUTS = 8

MOST_FILLED = 1.2
"""Segments are filled up to the longest one's length where they then have at most this many times their places."""


@dataclass(frozen=True)
class Stretch:
    """Neighbouring segments of one length."""

    number: int
    length: int


@dataclass(frozen=True)
class Layout:
    """A row's segments as stretches; `order` (L,) is where the places of the stretches lie, None where they follow."""

    stretches: tuple[Stretch, ...]
    order: Tensor | None = None

    @property
    def sizes(self) -> list[int]:
        """The places of each stretch."""
        return [one.number * one.length for one in self.stretches]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend_within(query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, is_causal: bool) -> Tensor:
    """(L, heads, D): attention of L places, each over the places of its own segment.

    `query` is (L, heads, D), `key` and `value` (L, key heads, D); each key head serves heads / key heads of the query.
    Segment i are the places from `cu_seqlens[i]` to `cu_seqlens[i + 1]`; best on the CPU, because every layer reads it.
    Scaled by the root of D.
    """
    bounds = tuple(cu_seqlens.tolist())
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and varlen_kernel() is not None:
        return _by_kernel(query, key, value, bounds, is_causal)
    if is_causal and _are_alike(bounds):
        return _side_by_side(query, key, value, [end - start for start, end in pairwise(bounds)])
    layout = _layout(bounds, query.device)
    if layout.order is None:
        return _by_stretches(query, key, value, layout, is_causal)
    attended = _by_stretches(query[layout.order], key[layout.order], value[layout.order], layout, is_causal)
    return torch.empty_like(attended).index_copy(0, layout.order, attended)


def _are_alike(bounds: tuple[int, ...]) -> bool:
    """Whether several segments are so nearly of one length that filling them up costs less than a call for each."""
    lengths = [end - start for start, end in pairwise(bounds)]
    return len(set(lengths)) > 1 and len(lengths) * max(lengths) <= MOST_FILLED * bounds[-1]


def _side_by_side(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    """Causal attention of all segments in one call, those that are shorter filled up with zeros.

    What is filled in comes after a segment's own places, so that none of them sees it, and no mask is needed.
    """
    longest = max(lengths)

    def filled(rows: Tensor) -> Tensor:
        parts = [pad(part, (0, 0, 0, 0, 0, longest - len(part))) for part in torch.split(rows, lengths)]
        return torch.stack(parts).transpose(1, 2)

    attended = scaled_dot_product_attention(
        filled(query), filled(key), filled(value), is_causal=True, enable_gqa=query.shape[1] != key.shape[1]
    )
    parts = zip(attended.transpose(1, 2).unbind(), lengths, strict=True)
    return torch.cat([part[:length] for part, length in parts])


def _by_stretches(query: Tensor, key: Tensor, value: Tensor, layout: Layout, is_causal: bool) -> Tensor:
    # Split, not sliced: a slice's gradient is as long as the row
    parts = zip(*(torch.split(one, layout.sizes) for one in (query, key, value)), layout.stretches, strict=True)
    attended = [_attend(query, key, value, stretch, is_causal) for query, key, value, stretch in parts]
    return attended[0] if len(attended) == 1 else torch.cat(attended)


def _attend(query: Tensor, key: Tensor, value: Tensor, stretch: Stretch, is_causal: bool) -> Tensor:
    """(number * length, heads, D): one stretch by itself."""
    batch = [one.reshape(stretch.number, stretch.length, *one.shape[1:]).transpose(1, 2) for one in (query, key, value)]
    attended = scaled_dot_product_attention(
        batch[0], batch[1], batch[2], is_causal=is_causal, enable_gqa=query.shape[1] != key.shape[1]
    )
    return attended.transpose(1, 2).reshape(query.shape)


@lru_cache(_REMEMBERED_LAYOUTS)
def _layout(bounds: tuple[int, ...], device: torch.device) -> Layout:
    """The segments between the bounds, in the fewer calls: as they follow each other, or all of one length together.

    Remembered, because every layer asks for the same. To bring segments of one length together costs a copy, so it must
    save half of the calls, as it does for a photo's windows, which get narrow at each end of a row.
    """
    lengths = [end - start for start, end in pairwise(bounds)]
    stretches = tuple(Stretch(len(list(group)), length) for length, group in groupby(lengths))
    counts = Counter(lengths)
    if len(stretches) <= 2 * len(counts):
        return Layout(stretches)
    places = torch.split(torch.arange(bounds[-1]), lengths)
    order = [one for length in counts for one in places if len(one) == length]
    return Layout(tuple(Stretch(count, length) for length, count in counts.items()), torch.cat(order).to(device))


@cache
def varlen_kernel() -> str | None:
    """Which kernel does segments of different lengths on this machine's GPU: flash_attn, torch, or None."""
    if torch.cuda.get_device_capability() < (8, 0):  # before Ampere neither runs
        return None
    if find_spec("flash_attn") is not None:
        return "flash_attn"
    return "torch" if find_spec("torch.nn.attention.varlen") is not None else None


@lru_cache(_REMEMBERED_LAYOUTS)
def _kernel_bounds(bounds: tuple[int, ...], device: torch.device) -> tuple[Tensor, int]:
    """The bounds as a kernel takes them, and the longest segment."""
    longest = max(end - start for start, end in pairwise(bounds))
    return torch.tensor(bounds, dtype=torch.int32, device=device), longest


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, bounds: tuple[int, ...], is_causal: bool) -> Tensor:
    cu_seqlens, longest = _kernel_bounds(bounds, query.device)
    attended: Any
    if varlen_kernel() == "flash_attn":
        from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]

        attended = flash_attn_varlen_func(query, key, value, cu_seqlens, cu_seqlens, longest, longest, causal=is_causal)
    else:
        from torch.nn.attention.varlen import varlen_attn

        attended = varlen_attn(
            query,
            key,
            value,
            cu_seqlens,
            cu_seqlens,
            longest,
            longest,
            window_size=(-1, 0) if is_causal else (-1, -1),
            enable_gqa=query.shape[1] != key.shape[1],
        )
    return cast(Tensor, attended)
