"""Samples of different lengths become one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from riskva.encoding.encode import IGNORED, Encoded
from riskva.encoding.processor import Processor


@dataclass(frozen=True)
class Collator:
    """Pads samples to a batch of B rows of T tokens, the form that Qwen2.5-VL's forward takes.

    The batch holds `input_ids`, `attention_mask`, `mm_token_type_ids` and `labels`, all (B, T) int64, and, unless no
    row has an image, `pixel_values` (P, 1176) and `image_grid_thw` (N, 3) of all images in row order.
    `mm_token_type_ids` is 1 at image tokens: without it transformers falls back to one-dimensional positions.

    `padding_side` is right for training, left for generation. With `always_an_image`, a batch of text alone gets one
    blank image in masked columns, which changes no result: several processes under ZeRO-3 must all run the vision
    tower or none.
    """

    processor: Processor
    padding_side: Literal["right", "left"] = "right"
    always_an_image: bool = False

    def __call__(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        input_ids = self._pad([row.input_ids for row in rows], self.processor.pad_token_id)
        batch = {
            "input_ids": input_ids,
            "attention_mask": self._pad([torch.ones_like(row.input_ids) for row in rows], 0),
            "mm_token_type_ids": (input_ids == self.processor.image_token_id).long(),
            "labels": self._pad([row.labels for row in rows], IGNORED),
        }
        grids = torch.cat([row.image_grid_thw for row in rows])
        if len(grids):
            batch |= {"pixel_values": torch.cat([row.pixel_values for row in rows]), "image_grid_thw": grids}
        elif self.always_an_image:
            batch = self._add_blank_image(batch)
        return batch

    def _pad(self, rows: Sequence[Tensor], value: int) -> Tensor:
        longest = max(len(row) for row in rows)
        return torch.stack([pad(row, self._sides(longest - len(row)), value=value) for row in rows])

    def _sides(self, gap: int) -> tuple[int, int]:
        return (0, gap) if self.padding_side == "right" else (gap, 0)

    def _add_blank_image(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """One image token's worth of blank patches in a new column of padding that attention and loss leave out."""
        merge = self.processor.image_processor.merge_size
        fills = {
            "input_ids": self.processor.pad_token_id,
            "attention_mask": 0,
            "mm_token_type_ids": 0,
            "labels": IGNORED,
        }
        widened = {name: pad(batch[name], self._sides(1), value=value) for name, value in fills.items()}
        widened["input_ids"][0, -1 if self.padding_side == "right" else 0] = self.processor.image_token_id
        return widened | {
            "pixel_values": torch.zeros(merge * merge, self.processor.patch_values),
            "image_grid_thw": torch.tensor([[1, merge, merge]]),
        }
