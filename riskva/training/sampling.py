"""The order in which rows are trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler

from riskva.data.datasets import Numbers, Runs
from riskva.data.sources import MOST_GROUP_BYTES, MOST_GROUPS

RUNS_PER_WINDOW = 2

MOST_LANES = MOST_GROUPS // RUNS_PER_WINDOW
"""24, which 1, 2, 3, 4, 6, 8 and 12 DataLoader workers divide."""


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


class FileOrderSampler(Sampler[int]):
    """Rows in an order that reads each row group about once an epoch, for data that is too large to be read at random.

    Each epoch the files are shuffled, the row groups within each, and the rows within windows of two groups. That
    sequence is cut into contiguous lanes, the same number for each process, which are read side by side: batch b of the
    epoch comes from process b mod P's lanes, one after the other in turn. So each process reads one contiguous part of
    the sequence; and since a DataLoader deals batches to its workers in turn, too, each worker reads lanes of its own
    where the number of workers divides that of the lanes.

    `num_rows_at_once` is how many rows in sequence go to one process: the batch size, or with accelerate's
    `split_batches` a process's share of it. The order depends on the data, the seed, the epoch, this number and the
    number of processes; not on the number of workers, so that a run may resume on another machine.
    """

    def __init__(self, runs: Runs, num_rows_at_once: int, num_processes: int, seed: int) -> None:
        self._runs = runs
        self._unit = num_rows_at_once
        self._num_processes = num_processes
        self._seed = seed
        self._epoch = 0
        self.num_lanes = lanes_that_fit(runs.largest_group)
        """Lanes of one process."""

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's DataLoader before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return int(self._runs.starts[-1])

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self._seed, self._epoch))
        order = self._order_of_runs(random)
        lengths = np.diff(self._runs.starts)[order]
        ends = np.cumsum(lengths)
        rows = np.repeat(self._runs.starts[order] - (ends - lengths), lengths) + np.arange(len(self))
        lane_of_unit = self._lane_of_unit()
        cuts = self._cuts(lane_of_unit)
        for start, end in pairwise(cuts):
            _shuffle_windows(rows[start:end], ends[(ends > start) & (ends < end)] - start, random)
        return map(int, rows[self._dealt(lane_of_unit, cuts)])  # one by one: a list of ints is five times as large

    def _order_of_runs(self, random: np.random.Generator) -> Numbers:
        """The runs file by file, files and the runs within each in random order."""
        place_of_file = random.permutation(int(self._runs.files.max()) + 1)
        return np.lexsort((random.random(len(self._runs.files)), place_of_file[self._runs.files]))

    def _lane_of_unit(self) -> Numbers:
        """Which lane each unit of the epoch comes from; lanes are counted process by process."""
        unit = np.arange(-(-len(self) // self._unit))
        process, turn = unit % self._num_processes, unit // self._num_processes
        return process * self.num_lanes + turn % self.num_lanes

    def _cuts(self, lane_of_unit: Numbers) -> Numbers:
        """Where the lanes begin in the sequence of rows, and its end."""
        sizes = np.full(len(lane_of_unit), self._unit)
        sizes[-1] = len(self) - self._unit * (len(lane_of_unit) - 1)
        of_lanes = np.bincount(lane_of_unit, sizes, self._num_processes * self.num_lanes).astype(np.int64)
        return np.concatenate([[0], np.cumsum(of_lanes)])

    def _dealt(self, lane_of_unit: Numbers, cuts: Numbers) -> Numbers:
        """The places in the sequence that are read first, second and so on."""
        place = np.arange(len(self))
        unit = place // self._unit
        round_of_lanes = unit // (self._num_processes * self.num_lanes)
        return cuts[lane_of_unit[unit]] + round_of_lanes * self._unit + place % self._unit


def lanes_that_fit(largest_group: int) -> int:
    """How many lanes a process can read side by side, with a window of row groups of this many bytes for each."""
    fitting = MOST_GROUP_BYTES // (RUNS_PER_WINDOW * max(largest_group, 1))
    return max(number for number in range(1, MOST_LANES + 1) if MOST_LANES % number == 0 and number <= max(fitting, 1))


def _shuffle_windows(rows: Numbers, inner_ends: Numbers, random: np.random.Generator) -> None:
    """Shuffle a lane's rows in place, window by window; runs end at `inner_ends`, and the last at the lane's end."""
    edges = [0, *inner_ends[RUNS_PER_WINDOW - 1 :: RUNS_PER_WINDOW].tolist(), len(rows)]
    for start, end in pairwise(edges):
        random.shuffle(rows[start:end])
