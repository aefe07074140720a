from bisect import bisect_left, insort
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, Dataset

from riskva.encoding import Length
from riskva.encoding.lengths import Lengths
from riskva.errors import DataError
from riskva.training.packing import IMAGE_TOKEN_COST, PackingSampler, best_fit, split_to_multiple

PACKING_LEN = 4096


def drawn(num_rows: int, mean: int = 700, spread: int = 400, seed: int = 0) -> Lengths:
    """Rows of 40 to 4,096 tokens, none to most of them image tokens."""
    random = np.random.default_rng(seed)
    totals = random.normal(mean, spread, num_rows).clip(40, PACKING_LEN)
    images = totals * random.uniform(0, 0.9, num_rows)
    return Lengths((totals.astype(np.int32) - images.astype(np.int32)), images.astype(np.int32))


def equal(num_rows: int, tokens: int) -> Lengths:
    return Lengths(np.full(num_rows, tokens, np.int32), np.zeros(num_rows, np.int32))


def sampler_of(
    lengths: Lengths, *, packing_len: int = PACKING_LEN, batch: int = 1, processes: int = 1, seed: int = 1
) -> PackingSampler:
    return PackingSampler(lengths, packing_len, bins_per_batch=batch, num_processes=processes, seed=seed)


def epoch_of(sampler: PackingSampler, epoch: int) -> list[tuple[int, ...]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def reference_best_fit(sizes: list[int], capacity: int) -> int:
    """How many bins best fit takes, longest first, by the book: the bin with the least room that is enough."""
    rooms: list[int] = []
    num_bins = 0
    for size in sorted(sizes, reverse=True):
        place = bisect_left(rooms, size)
        if place < len(rooms):
            room = rooms.pop(place)
        else:
            room, num_bins = capacity, num_bins + 1
        insort(rooms, room - size)
    return num_bins


@pytest.mark.parametrize(
    "lengths",
    [
        drawn(3000),
        drawn(200, mean=1500),
        drawn(2000, mean=60, spread=30),
        equal(1, 5),
        equal(1, PACKING_LEN),
        equal(100, 1365),
        equal(17, PACKING_LEN),
        equal(300, 1),
        equal(100, PACKING_LEN // 2 + 1),
    ],
)
@pytest.mark.parametrize(("batch", "processes"), [(1, 1), (2, 1), (1, 3), (4, 8)])
def test_every_row_is_in_one_bin_that_fits_and_bins_are_as_many_each_epoch(
    lengths: Lengths, batch: int, processes: int
) -> None:
    sampler = sampler_of(lengths, batch=batch, processes=processes)
    for epoch in range(3):
        bins = epoch_of(sampler, epoch)
        assert sorted(row for one in bins for row in one) == list(range(len(lengths)))
        assert all(one and lengths.totals[list(one)].sum() <= PACKING_LEN for one in bins)
        assert len(bins) == len(sampler)
        assert len(bins) % (batch * processes) == 0 or len(bins) == len(lengths)


@pytest.mark.parametrize("packing_len", [PACKING_LEN, 8192, 5000])
@pytest.mark.parametrize("mean", [60, 300, 700, 1400])
@pytest.mark.parametrize("spread", [0, 30, 500])
def test_there_are_about_as_few_bins_as_best_fit_by_the_book_gives(packing_len: int, mean: int, spread: int) -> None:
    lengths = drawn(3000, mean, spread)
    book = reference_best_fit(lengths.totals.tolist(), packing_len)
    assert len(sampler_of(lengths, packing_len=packing_len)) <= 1.01 * book
    # Of the optimum, best fit with the longest first needs at most 11/9, and 4 (Johnson 1974). It is at least:
    fewest = max(-(-int(lengths.totals.sum()) // packing_len), int((2 * lengths.totals > packing_len).sum()))
    if packing_len // mean > 3:
        assert len(sampler_of(lengths, packing_len=packing_len)) <= 11 / 9 * fewest + 4


def test_best_fit_takes_as_many_bins_as_by_the_book() -> None:
    random = np.random.default_rng(3)
    for most in (3, 20, 100):
        sizes = random.integers(1, most + 1, 500)
        bins = best_fit(sizes, 100)
        assert len(bins) == reference_best_fit(sizes.tolist(), 100)
        assert Counter(size for one in bins for size in one) == Counter(sizes.tolist())


def test_equal_rows_that_just_fit_are_not_spread_by_rounding() -> None:
    assert len(sampler_of(equal(300, 1365))) == 100


def test_bins_repeat_with_seed_and_epoch_and_hold_other_rows_in_other_epochs() -> None:
    lengths = drawn(500)
    assert epoch_of(sampler_of(lengths), 2) == epoch_of(sampler_of(lengths), 2)

    def bins(seed: int, epoch: int) -> set[frozenset[int]]:
        return set(map(frozenset, epoch_of(sampler_of(lengths, seed=seed), epoch)))

    seen = [bins(1, 0), bins(1, 1), bins(2, 0)]
    for first, second in pairwise(seen):
        assert len(first & second) < 0.2 * len(first)
    orders = [epoch_of(sampler_of(lengths, batch=4, processes=2), epoch) for epoch in (0, 1)]
    assert orders[0] != orders[1]


@pytest.mark.parametrize("processes", [2, 8])
@pytest.mark.parametrize("batch", [1, 3])
def test_processes_wait_less_for_each_other_than_in_random_order(processes: int, batch: int) -> None:
    lengths = drawn(6000)
    cost = lengths.totals + IMAGE_TOKEN_COST * lengths.num_image_tokens

    def waited(bins: list[tuple[int, ...]]) -> float:
        """The share of the processes' time that they wait for the last one of each turn."""
        sums = np.array([cost[list(one)].sum() for one in bins]).reshape(-1, processes, batch).sum(axis=2)
        return float(1 - sums.mean() / sums.max(axis=1).mean())

    sampler = sampler_of(lengths, batch=batch, processes=processes)
    bins = list(sampler)
    random = np.random.default_rng(0)
    at_random = waited([bins[one] for one in random.permutation(len(bins))])
    assert waited(bins) < at_random / 4
    assert waited(bins) < 0.01


def test_an_epochs_costs_are_well_mixed() -> None:
    lengths = drawn(20_000)
    bins = list(sampler_of(lengths, processes=2))
    images = np.array([lengths.num_image_tokens[list(one)].sum() for one in bins])
    quarters = [part.mean() for part in np.array_split(images, 4)]
    assert np.ptp(quarters) < 0.1 * images.mean()
    assert abs(np.corrcoef(images[:-2], images[2:])[0, 1]) < 0.1  # one turn tells nothing of the next


def test_full_bins_are_split_until_their_number_is_a_multiple() -> None:
    bins = [[4, 3, 2], [9], [5, 4]]
    split = split_to_multiple(bins, 4)
    assert sorted(map(sorted, split)) == [[2, 3], [4], [4, 5], [9]]
    assert split_to_multiple(bins, 3) == bins
    assert sorted(map(len, split_to_multiple(bins, 16))) == [1] * 6  # each row is alone, and more there are not


class _Echo(Dataset[list[tuple[int, ...]]]):
    """Bins as they are asked for."""

    def __getitems__(self, indices: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        return indices

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_accelerate_gives_each_process_its_own_bins_and_repeats_none(processes: int, batch: int) -> None:
    lengths = drawn(101)
    sampler = sampler_of(lengths, batch=batch, processes=processes)
    seen: list[list[int]] = []
    for rank in range(processes):
        plain = DataLoader(_Echo(), batch_size=batch, sampler=sampler, collate_fn=list)
        loader = prepare_data_loader(plain, num_processes=processes, process_index=rank)
        loader.set_epoch(1)
        batches = list(loader)
        assert len(batches) == len(sampler) // batch // processes
        seen.append([row for one in batches for bin_of_rows in one for row in bin_of_rows])
    assert sorted(row for rows in seen for row in rows) == list(range(101))
    assert sampler._epoch == 1


def test_a_row_that_no_bin_can_hold_is_an_error() -> None:
    with pytest.raises(DataError, match=r"row 1 of the training rows has 51 tokens, over packing_len=50"):
        PackingSampler([Length(10, 30), Length(20, 31)], 50, bins_per_batch=1, num_processes=1, seed=0)
