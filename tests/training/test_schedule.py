"""Steps and loads that a recipe's rows make, by hand and by what the Trainer then does."""

import math
from typing import Any

import numpy as np
import pytest
from mixed_samples import recipe

from riskva.encoding import Length
from riskva.encoding.lengths import Lengths
from riskva.modeling.memory import Load
from riskva.training.packing import PackingSampler
from riskva.training.schedule import Schedule, packing_len

ROWS = [(40, 0), (30, 20), (10, 90), (60, 16), (25, 0), (10, 0), (44, 44)]
"""Text and image tokens: 40, 50, 100, 76, 25, 10 and 88 in all."""
LENGTHS = Lengths.of(Length(*one) for one in ROWS)


def schedule(num_processes: int = 1, lengths: Lengths | None = LENGTHS, **keys: Any) -> Schedule:
    names = ("packing", "packing_len", "cutoff_len")
    own = {name: keys.pop(name) for name in names if name in keys}
    return Schedule(recipe(**own, training=keys), len(ROWS), lengths, num_processes)


@pytest.mark.parametrize(
    ("batch", "accumulation", "processes", "steps"),
    [(1, 1, 1, 7), (2, 1, 1, 4), (2, 2, 1, 2), (1, 2, 2, 2), (8, 8, 2, 1)],
)
def test_the_last_step_may_be_a_smaller_one(batch: int, accumulation: int, processes: int, steps: int) -> None:
    found = schedule(processes, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
    assert found.units_per_step == batch * accumulation * processes
    assert found.num_units == len(ROWS)
    assert found.steps_per_epoch == steps
    assert found.num_epochs == 3
    assert found.num_steps == 3 * steps


def test_steps_that_are_given_make_the_epochs() -> None:
    found = schedule(per_device_train_batch_size=2, max_steps=10)
    assert found.num_steps == 10
    assert found.num_epochs == 2.5


@pytest.mark.parametrize("processes", [1, 2])
def test_packing_counts_bins_as_its_sampler_makes_them(processes: int) -> None:
    found = schedule(processes, packing=True, cutoff_len=100, per_device_train_batch_size=2)
    sampler = PackingSampler(LENGTHS, 100, bins_per_batch=2, num_processes=processes, seed=5)
    assert found.num_units == len(sampler) == len(list(sampler))
    assert found.num_units >= math.ceil(LENGTHS.totals.sum() / 100)
    assert found.steps_per_epoch == math.ceil(found.num_units / (2 * processes))


def test_bins_are_as_long_as_a_row_may_be_unless_said_otherwise() -> None:
    assert packing_len(recipe(cutoff_len=500, packing=True)) == 500
    assert packing_len(recipe(cutoff_len=500, packing=True, packing_len=2000)) == 2000


def test_the_largest_load_is_that_of_the_longest_rows() -> None:
    assert schedule(per_device_train_batch_size=1).largest_load == Load(100, 1, 4 * 90)
    most_image_tokens = sorted(LENGTHS.num_image_tokens.tolist())[-3:]  # perhaps of other rows than the longest
    assert schedule(per_device_train_batch_size=3).largest_load == Load(100 + 88 + 76, 3, 4 * sum(most_image_tokens))


def test_without_lengths_every_row_may_be_the_longest() -> None:
    found = schedule(lengths=None, cutoff_len=300, per_device_train_batch_size=2).largest_load
    assert found == Load(600, 2, 4 * 600)


def test_with_packing_bins_may_be_full() -> None:
    found = schedule(packing=True, cutoff_len=120, per_device_train_batch_size=2).largest_load
    assert found.num_tokens == 240
    everything = schedule(packing=True, cutoff_len=1000, per_device_train_batch_size=2).largest_load
    assert everything.num_tokens == LENGTHS.totals.sum()
    assert everything.num_samples == len(ROWS)


def test_no_micro_batch_is_larger_than_the_largest_load() -> None:
    """Without packing: every micro-batch that any order of the rows gives."""
    random = np.random.default_rng(0)
    most = schedule(per_device_train_batch_size=3).largest_load.num_tokens
    for _ in range(50):
        order = random.permutation(len(ROWS))
        assert LENGTHS.totals[order[:3]].sum() <= most
