"""How many steps a recipe's rows make, and how large the largest of them is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from riskva.encoding.lengths import Lengths
from riskva.modeling.memory import Load
from riskva.recipe import SftRecipe
from riskva.training.packing import PackingSampler

IMAGE_PATCHES = 4
"""Patches that become one image token: Qwen2.5-VL merges squares of 2 x 2."""


@dataclass(frozen=True)
class Schedule:
    """What `num_processes` processes make of `num_rows` training rows.

    A micro-batch is what one process gets at a time: a number of rows, or with packing of bins of rows.
    """

    recipe: SftRecipe
    num_rows: int
    lengths: Lengths | None
    """None where nobody has measured the rows."""
    num_processes: int

    @property
    def micro_batch(self) -> int:
        """Rows or bins in a micro-batch."""
        return int(self.recipe.training.get("per_device_train_batch_size", 8))

    @property
    def units_per_step(self) -> int:
        """Rows or bins of an optimiser step, over all processes."""
        accumulated = int(self.recipe.training.get("gradient_accumulation_steps", 1))
        return self.micro_batch * accumulated * self.num_processes

    @cached_property
    def num_units(self) -> int:
        """Rows or bins of an epoch."""
        if self.lengths is None or not self.recipe.packing:
            return self.num_rows
        return len(
            PackingSampler(
                self.lengths,
                packing_len(self.recipe),
                bins_per_batch=self.micro_batch,
                num_processes=self.num_processes,
                seed=0,
            )
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch; the last may be a smaller one."""
        return -(-self.num_units // self.units_per_step)

    @property
    def num_epochs(self) -> float:
        """How often each row is trained on."""
        most = int(self.recipe.training.get("max_steps", -1))
        return most / self.steps_per_epoch if most > 0 else float(self.recipe.training.get("num_train_epochs", 3.0))

    @property
    def num_steps(self) -> int:
        """Optimiser steps in all."""
        return round(self.steps_per_epoch * self.num_epochs)

    @property
    def largest_load(self) -> Load:
        """The largest micro-batch that can come: of the longest rows, or of full bins."""
        if self.lengths is None:
            longest = self.recipe.cutoff_len * self.micro_batch
            return Load(longest, self.micro_batch, IMAGE_PATCHES * longest)
        if not self.recipe.packing:
            # Perhaps of other rows than the longest: the tower runs before, and for itself
            image_tokens = int(np.sort(self.lengths.num_image_tokens)[-self.micro_batch :].sum())
            num_tokens = int(np.sort(self.lengths.totals)[-self.micro_batch :].sum())
            return Load(num_tokens, self.micro_batch, IMAGE_PATCHES * image_tokens)
        num_tokens = min(packing_len(self.recipe) * self.micro_batch, int(self.lengths.totals.sum()))
        share = float(self.lengths.num_image_tokens.sum() / self.lengths.totals.sum())
        num_samples = max(1, round(num_tokens / float(self.lengths.totals.mean())))
        return Load(num_tokens, num_samples, round(IMAGE_PATCHES * num_tokens * share))


def packing_len(recipe: SftRecipe) -> int:
    """The most tokens of a bin."""
    return recipe.packing_len or recipe.cutoff_len
