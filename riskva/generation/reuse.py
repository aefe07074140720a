"""What many prompts have in common is computed once: the tokens before the photo, and photos that come again."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from riskva.encoding import Encoded
from riskva.modeling.model import Qwen2_5_VLForConditionalGeneration

MOST_FEATURE_BYTES = 1_000_000_000
"""Main memory for features of photos that were seen: about 100 of the largest, thousands of small ones."""


class PhotoFeatures:
    """What the vision tower has made of the last photos, by their keys, in main memory."""

    def __init__(self, most_bytes: int = MOST_FEATURE_BYTES) -> None:
        self._most_bytes = most_bytes
        self._num_bytes = 0
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def of(self, prompts: Sequence[Encoded], model: Qwen2_5_VLForConditionalGeneration) -> tuple[Tensor, ...]:
        """Each photo's features (tokens, H), in the prompts' order; the tower runs for those alone that are new.

        It takes one photo at a time. So memory does not grow with the batch, and a photo's features do not depend, in
        their last digits, on the photos that it first came with.
        """
        features = []
        for prompt in prompts:
            patches = torch.split(prompt.pixel_values, prompt.image_grid_thw.prod(dim=1).tolist())
            for key, pixels, grid in zip(prompt.photo_keys, patches, prompt.image_grid_thw, strict=True):
                if key not in self._kept:
                    (made,) = model.photo_features(pixels.to(model.device), grid[None])
                    self._keep(key, made.cpu())
                self._kept.move_to_end(key)
                features.append(self._kept[key].to(model.device))
        return tuple(features)

    def _keep(self, key: str, features: Tensor) -> None:
        """Keep these features, the last one whatever its size, and let go of those that were not asked for longest."""
        self._kept[key] = features
        self._num_bytes += features.nbytes
        while self._num_bytes > self._most_bytes and len(self._kept) > 1:
            self._num_bytes -= self._kept.popitem(last=False)[1].nbytes


class PromptPrefix:
    """The first tokens that prompts share, up to the first photo, with their keys and values in every layer."""

    def __init__(self) -> None:
        self._ids: tuple[int, ...] = ()
        self._cache: DynamicCache | None = None

    def of(self, prompts: Sequence[Encoded], model: Qwen2_5_VLForConditionalGeneration) -> tuple[int, Any]:
        """How many of these prompts' first tokens have been run, and the cache of them for a batch of B rows.

        What is kept goes for the next batch with the same beginning: a data set's rows are asked alike.
        """
        shared = _shared_text(prompts, int(model.config.image_token_id))
        if shared != self._ids:
            self._ids, self._cache = shared, _run(shared, model) if shared else None
        if self._cache is None:
            return 0, None
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(len(prompts))
        return len(shared), cache


def _shared_text(prompts: Sequence[Encoded], image_token_id: int) -> tuple[int, ...]:
    first, *others = (prompt.input_ids.tolist() for prompt in prompts)
    # The last token is never among them: something must be left to run
    length = min(len(ids) - 1 for ids in (first, *others))
    shared: list[int] = []
    for place, token in enumerate(first[:length]):
        if token == image_token_id or any(ids[place] != token for ids in others):
            break
        shared.append(token)
    return tuple(shared)


def _run(ids: tuple[int, ...], model: Qwen2_5_VLForConditionalGeneration) -> DynamicCache:
    tokens = torch.tensor([ids], device=model.device)
    places = torch.arange(len(ids), device=model.device)
    cache: DynamicCache = model(
        input_ids=tokens, position_ids=places.expand(4, 1, -1), use_cache=True, logits_to_keep=1
    ).past_key_values
    return cache
