"""Samples of different lengths become one row without padding: the form that training and evaluation take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from riskva.encoding.encode import IGNORED, Encoded
from riskva.encoding.positions import mrope_positions
from riskva.encoding.processor import Processor


@dataclass(frozen=True)
class PackedCollator:
    """Puts B samples one after the other into one row of L tokens, where each of them sees itself alone.

    The batch holds
    - `input_ids` and `labels` (1, L) int64; no label on a sample's first token, which nothing predicts;
    - `position_ids` (4, 1, L): row 0 counts up from 0 in every sample, rows 1 to 3 are the sample's own M-RoPE. This is
      what transformers' own forward needs to keep samples apart, too;
    - `cu_seqlens` (B + 1,) int32: where samples begin, and L at the end;
    - if there are images, `image_grid_thw` (N, 3), and the images themselves: `pixel_values` (P, 1176), the patches of
      those that the vision tower has yet to see, and `image_features` (F, H) with `has_features` and `photo_keys` (N
      each) where a cache has kept what it made of others.
    """

    processor: Processor

    def __call__(self, rows: Sequence[Encoded]) -> dict[str, Any]:
        lengths = torch.tensor([len(row.input_ids) for row in rows])
        cu_seqlens = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
        labels = torch.cat([row.labels for row in rows])
        labels[cu_seqlens[:-1].long()] = IGNORED
        return {
            "input_ids": torch.cat([row.input_ids for row in rows])[None],
            "labels": labels[None],
            "position_ids": torch.cat([self._positions(row) for row in rows], dim=1)[:, None],
            "cu_seqlens": cu_seqlens,
            **_images(rows),
        }

    def _positions(self, row: Encoded) -> Tensor:
        is_image = row.input_ids == self.processor.image_token_id
        axes = mrope_positions(is_image, row.image_grid_thw, self.processor.image_processor.merge_size)
        return torch.cat([torch.arange(len(is_image))[None], axes])


def _images(rows: Sequence[Encoded]) -> dict[str, Any]:
    grids = torch.cat([row.image_grid_thw for row in rows])
    if not len(grids):
        return {}
    images: dict[str, Any] = {"image_grid_thw": grids}
    pixel_values = torch.cat([row.pixel_values for row in rows])
    if len(pixel_values):
        images["pixel_values"] = pixel_values
    keys = [key for row in rows for key in row.photo_keys]
    if keys:
        kept = [one for row in rows for one in row.photo_features]
        images |= {"photo_keys": keys, "has_features": [one is not None for one in kept]}
        if features := [one for one in kept if one is not None]:
            images["image_features"] = torch.cat(features)
    return images
