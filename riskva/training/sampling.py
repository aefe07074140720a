"""The order in which rows are trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class LengthSampler(LengthGroupedSampler):
    """Rows of like length together, so that less is padded; another order each epoch, the same one after a resume.

    `batch_size` counts the rows of an optimiser step on one process, `lengths` are tokens by row.
    """

    def __init__(self, batch_size: int, lengths: Sequence[int], seed: int) -> None:
        super().__init__(batch_size, lengths=list(lengths), generator=torch.Generator())
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's DataLoader before each epoch."""
        self.generator.manual_seed(self._seed + epoch)
