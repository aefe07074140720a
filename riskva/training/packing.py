"""Rows in bins: whole rows that are trained on as one, up to a number of tokens.

Bins are filled by best fit, longest rows first, on lengths that are rounded up a little. How many bins there are, and
how many rows of which rounded length each holds, then depends on the lengths alone; which row of that length it is
changes from epoch to epoch. So bins hold other rows each epoch, and their number, from which the Trainer counts its
steps once, never changes.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from riskva.encoding import Length
from riskva.encoding.lengths import Lengths
from riskva.errors import DataError

Numbers = NDArray[np.int64]

IMAGE_TOKEN_COST = 0.2
"""What the vision tower adds to an image token's cost, where a token costs the language model 1 forward and backward.

Of Qwen2.5-VL-7B with a frozen tower: 4 patches x 0.67 B weights x 2 FLOP = 5.4 GFLOP beside 2 x 13 GFLOP. With the
tower's output cached it is 0.
"""

_UNITS_PER_ROW = 16
_MOST_MORE_BINS = 1.01
"""Lengths are rounded up to a 16th of the mean row, so that many are equal and can be exchanged, or as much less as it
takes to have no more than 1 % more bins than without rounding."""

_GROUPS_PER_WINDOW = 64
"""Bins are sorted by cost within windows, not as a whole, so that they stay mixed as well."""


class PackingSampler(Sampler[tuple[int, ...]]):
    """Bins of at most `packing_len` tokens, as tuples of row numbers; every row is in exactly one bin of an epoch.

    There are equally many bins in every epoch, and as many as fill the batches of all processes, so that accelerate
    repeats none: full bins are split in two until it is so. Only where there are too few rows for that are some
    repeated.

    accelerate deals batches of `bins_per_batch` bins to the processes in turn, and in every turn all wait for the one
    that has most to do. So each turn's bins are of like cost, and are dealt so that the sums are close. An image token
    costs `1 + image_token_cost` text tokens.

    The order depends on the lengths, the seed, the epoch, `bins_per_batch` and the number of processes.

    Raises `DataError` for a row of over `packing_len` tokens.
    """

    def __init__(
        self,
        lengths: Sequence[Length],
        packing_len: int,
        *,
        bins_per_batch: int,
        num_processes: int,
        seed: int,
        image_token_cost: float = IMAGE_TOKEN_COST,
    ) -> None:
        known = Lengths.of(lengths)
        _require_fitting(known.totals, packing_len)
        self._costs = known.totals + image_token_cost * known.num_image_tokens
        self._bins_per_batch = bins_per_batch
        self._num_processes = num_processes
        self._seed = seed
        self._epoch = 0
        self._units, filled = _packed(known.totals, packing_len)
        filled = split_to_multiple(filled, bins_per_batch * num_processes)
        self._slots = np.fromiter(itertools.chain.from_iterable(filled), np.int64, len(self._units))
        self._ends = np.cumsum([len(one) for one in filled])

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's DataLoader before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        random = np.random.default_rng((self._seed, self._epoch))
        rows = self._rows_in_slots(random)
        starts = np.concatenate([[0], self._ends[:-1]])
        order = self._dealt(np.add.reduceat(self._costs[rows], starts), random)
        return (tuple(rows[starts[one] : self._ends[one]].tolist()) for one in order)

    def _rows_in_slots(self, random: np.random.Generator) -> Numbers:
        """The rows, bin after bin: into each slot a row of the slot's rounded length, drawn anew."""
        rows = np.empty_like(self._slots)
        rows[np.argsort(self._slots, kind="stable")] = np.lexsort((random.random(len(rows)), self._units))
        return rows

    def _dealt(self, costs: NDArray[np.float64], random: np.random.Generator) -> Numbers:
        """The bins in the order in which they are given out."""
        order = random.permutation(len(costs))
        if self._num_processes == 1:
            return order
        turn = self._bins_per_batch * self._num_processes
        window = turn * _GROUPS_PER_WINDOW
        for start in range(0, len(order), window):
            part = order[start : start + window]
            order[start : start + window] = part[np.argsort(costs[part], kind="stable")]
        num_turns, rest = divmod(len(order), turn)
        whole, left = order[: len(order) - rest].reshape(num_turns, turn), order[len(order) - rest :]
        dealt = [self._among_processes(one, random) for one in whole[random.permutation(num_turns)]]
        return np.concatenate([*dealt, left])

    def _among_processes(self, bins: Numbers, random: np.random.Generator) -> Numbers:
        """One turn's bins, sorted by cost, as batches: dealt to and fro, so that no process gets the larger of each."""
        hands = bins.reshape(self._bins_per_batch, self._num_processes).copy()
        hands[1::2] = hands[1::2, ::-1]
        return hands[:, random.permutation(self._num_processes)].T.ravel()


def best_fit(sizes: Numbers, capacity: int) -> list[list[int]]:
    """Bins of sizes that add up to at most `capacity`: each size, the largest first, goes where least room is left.

    The result depends on the multiset of sizes alone.
    """
    bins: list[list[int]] = []
    open_bins = _BinsByRoom(capacity)
    found, counts = np.unique(sizes, return_counts=True)
    for size, count in zip(found[::-1].tolist(), counts[::-1].tolist(), strict=True):
        left = count
        while left:
            room, number = open_bins.take(size) or (capacity, len(bins))
            if number == len(bins):
                bins.append([])
            num_taken = min(left, room // size)  # the bin with the least room that is enough stays that one
            bins[number] += [size] * num_taken
            left -= num_taken
            open_bins.put(room - size * num_taken, number)
    return bins


class _BinsByRoom:
    """Numbers of bins by the room that is left in them: the one with the least that is enough in constant time."""

    def __init__(self, capacity: int) -> None:
        self._numbers: list[list[int]] = [[] for _ in range(capacity + 1)]
        self._rooms = 0
        """Bit r is set where a bin has room r."""

    def put(self, room: int, number: int) -> None:
        self._numbers[room].append(number)
        self._rooms |= 1 << room

    def take(self, size: int) -> tuple[int, int] | None:
        """The room and the number of the bin with the least room of at least `size`; None where there is none."""
        enough = self._rooms >> size
        if not enough:
            return None
        room = size + (enough & -enough).bit_length() - 1
        number = self._numbers[room].pop()
        if not self._numbers[room]:
            self._rooms ^= 1 << room
        return room, number


def split_to_multiple(bins: list[list[int]], multiple: int) -> list[list[int]]:
    """The bins, the fullest of them split in two until their number is a multiple, or each holds one size."""
    missing = -len(bins) % multiple
    result = list(bins)
    fullest = [(-sum(one), number) for number, one in enumerate(result) if len(one) > 1]
    heapq.heapify(fullest)
    while missing and fullest:
        _, number = heapq.heappop(fullest)
        halves = _halves(result[number])
        result[number] = halves[0]
        result.append(halves[1])
        for changed in (number, len(result) - 1):
            if len(result[changed]) > 1:
                heapq.heappush(fullest, (-sum(result[changed]), changed))
        missing -= 1
    return result


def _halves(sizes: list[int]) -> tuple[list[int], list[int]]:
    """Two parts of about the same sum: each size, the largest first, goes to the smaller one."""
    parts: tuple[list[int], list[int]] = ([], [])
    for size in sorted(sizes, reverse=True):
        min(parts, key=sum).append(size)
    return parts


def _packed(totals: Numbers, packing_len: int) -> tuple[Numbers, list[list[int]]]:
    """The lengths as rounded, and bins of them."""
    exact = best_fit(totals, packing_len)
    unit = 1 << max(0, int(totals.mean() / _UNITS_PER_ROW).bit_length() - 1)
    while unit > 1:
        units, capacity = _rounded(totals, packing_len, unit)
        bins = best_fit(units, capacity)
        if len(bins) <= _MOST_MORE_BINS * len(exact):
            return units, bins
        unit //= 2
    return totals, exact


def _rounded(totals: Numbers, packing_len: int, unit: int) -> tuple[Numbers, int]:
    """The lengths in units of tokens, rounded up, and how many units a bin holds.

    A row that is as long as a bin may be is the whole bin, whatever rounding says.
    """
    capacity = packing_len // unit
    return np.minimum(-(-totals // unit), capacity), capacity


def _require_fitting(totals: Numbers, packing_len: int) -> None:
    longest = int(totals.argmax())
    if totals[longest] > packing_len:
        raise DataError(
            f"row {longest} of the training rows has {totals[longest]} tokens, over packing_len={packing_len}; raise "
            "packing_len or lower cutoff_len"
        )
