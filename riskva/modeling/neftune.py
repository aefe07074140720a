"""NEFTune (arXiv 2310.05914): noise on the embeddings while training, scaled by each sample's own length."""

from __future__ import annotations

import torch
from torch import Tensor


def add_noise(embeddings: Tensor, cu_seqlens: Tensor, alpha: float) -> Tensor:
    """(1, L, H) with noise, uniform within alpha / sqrt(length x H), the length being that of the place's sample.

    `cu_seqlens` (B + 1,) are the samples' bounds, from 0 to L. transformers' own hook takes the whole row for one
    sample, so that packing eight samples would make their noise a third of what it is alone. Like there, image tokens
    count towards the length, and their noise is lost when photos' features take their places.
    """
    num_tokens, width = embeddings.shape[-2:]
    lengths = cu_seqlens.diff().to(embeddings.device)
    most = (alpha / (lengths * width).sqrt()).repeat_interleave(lengths, output_size=num_tokens)
    # In float32: bfloat16 has 256 draws, and the highest of them become the lowest.
    noise = torch.empty_like(embeddings, dtype=torch.float32).uniform_(-1, 1)
    return embeddings + (noise * most[:, None]).to(embeddings.dtype)
