from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from accelerate import skip_first_batches
from accelerate.data_loader import prepare_data_loader
from shards import write_shards
from torch.utils.data import DataLoader
from transformers import TrainerControl, TrainerState

from riskva.data.datasets import Runs, open_datasets
from riskva.training.callbacks import BeginEpoch
from riskva.training.sampling import MOST_LANES, FileOrderSampler, LengthSampler, lanes_that_fit


def test_rows_of_like_length_come_together_in_another_order_each_epoch() -> None:
    lengths = [(7 * row) % 500 for row in range(400)]
    sampler = LengthSampler(4, lengths, seed=1)
    first = list(sampler)
    assert sorted(first) == list(range(400))
    spread = [max(part) - min(part) for part in _in_fours([lengths[row] for row in first])]
    unsorted = [max(part) - min(part) for part in _in_fours(lengths)]
    assert sum(spread) < 0.5 * sum(unsorted) or sum(spread) / len(spread) < 30
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    again = LengthSampler(4, lengths, seed=1)
    again.set_epoch(1)  # what a resumed run does
    assert list(again) == second


def _in_fours(values: list[int]) -> list[list[int]]:
    return [values[start : start + 4] for start in range(0, len(values), 4)]


def runs_of(num_files: int, groups_per_file: int, rows_per_group: int, group_bytes: int = 2 << 20) -> Runs:
    """Runs of equal size; the first file's last group has one row fewer."""
    sizes = np.full(num_files * groups_per_file, rows_per_group)
    sizes[groups_per_file - 1] -= 1
    files = np.repeat(np.arange(num_files), groups_per_file)
    return Runs(np.concatenate([[0], np.cumsum(sizes)]), files, group_bytes)


def loader_of(sampler: FileOrderSampler, batch: int, processes: int, rank: int, **how: Any) -> DataLoader[int]:
    """The DataLoader that Trainer makes on one process, with row numbers for rows."""
    plain = DataLoader(range(len(sampler)), batch_size=batch, sampler=sampler)  # type: ignore[arg-type]
    prepared: DataLoader[int] = prepare_data_loader(plain, num_processes=processes, process_index=rank, **how)
    return prepared


def rows_of(loader: DataLoader[int]) -> list[int]:
    return [int(row) for batch in loader for row in batch]


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("split_batches", [False, True])
def test_every_row_comes_once_and_each_process_reads_its_own_part(processes: int, split_batches: bool) -> None:
    runs = runs_of(num_files=12, groups_per_file=9, rows_per_group=10)
    batch = 4 * processes if split_batches else 4
    sampler = FileOrderSampler(runs, 4, processes, seed=3)
    groups = []
    seen: Counter[int] = Counter()
    for rank in range(processes):
        rows = rows_of(loader_of(sampler, batch, processes, rank, split_batches=split_batches))
        seen.update(rows)
        groups.append(set((np.searchsorted(runs.starts, rows, side="right") - 1).tolist()))
    assert set(seen) == set(range(len(sampler)))
    assert seen.total() - len(seen) < batch * processes  # the rows that accelerate repeats to fill the last batches
    # A group is shared where a lane's cut falls into it, and by the rows that fill the last batches.
    most = len(runs.files) / processes + sampler.num_lanes + 2
    assert max(map(len, groups)) <= most
    assert sum(map(len, groups)) <= len(runs.files) + processes * sampler.num_lanes + 2
    in_files = [{int(runs.files[group]) for group in one} for one in groups]
    assert max(map(len, in_files)) <= 12 / processes + 2


def test_the_parts_of_the_processes_are_contiguous_in_the_epochs_sequence_of_files() -> None:
    runs = runs_of(num_files=8, groups_per_file=24, rows_per_group=8)
    sampler = FileOrderSampler(runs, 4, 2, seed=1)
    files = [
        [int(runs.files[np.searchsorted(runs.starts, row, side="right") - 1]) for row in rows_of(one)]
        for one in (loader_of(sampler, 4, 2, rank) for rank in range(2))
    ]
    assert len(set(files[0]) & set(files[1])) <= 2  # the file in which the cut falls, and repeated rows
    assert len(set(files[0])) in (4, 5)


def test_a_group_is_read_within_a_window_and_the_order_is_well_mixed() -> None:
    runs = runs_of(num_files=6, groups_per_file=40, rows_per_group=16)
    rows = list(FileOrderSampler(runs, 2, 1, seed=5))
    groups = np.searchsorted(runs.starts, rows, side="right") - 1
    span = [int(np.ptp(np.flatnonzero(groups == group))) for group in range(len(runs.files))]
    assert np.median(span) < 2 * 16 * MOST_LANES  # two groups of rows, lanes side by side
    assert len(set(groups[:48].tolist())) > 20
    assert rows != sorted(rows)


def test_orders_differ_by_epoch_and_seed_and_repeat() -> None:
    runs = runs_of(3, 5, 7)

    def order(seed: int, epoch: int) -> list[int]:
        sampler = FileOrderSampler(runs, 2, 1, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5, 49])
@pytest.mark.parametrize("unit", [1, 2, 7])
def test_few_rows_come_once_too(num_rows: int, unit: int) -> None:
    runs = Runs(np.array([0, num_rows]), np.array([0]), 0)
    for processes in (1, 2, 5):
        assert sorted(FileOrderSampler(runs, unit, processes, 0)) == list(range(num_rows))


def test_large_row_groups_are_read_by_fewer_lanes() -> None:
    assert lanes_that_fit(0) == lanes_that_fit(2 << 20) == MOST_LANES
    assert lanes_that_fit(20 << 20) == 6
    assert lanes_that_fit(3 << 30) == 1
    assert sorted(FileOrderSampler(runs_of(2, 2, 9, group_bytes=3 << 30), 2, 2, 0)) == list(range(35))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resume_in_the_second_epoch_goes_on_in_its_order(processes: int, workers: int) -> None:
    runs, epoch, skipped = runs_of(4, 6, 8), 1, 5

    def fresh(rank: int) -> DataLoader[int]:
        return loader_of(FileOrderSampler(runs, 3, processes, seed=2), 3, processes, rank)

    for rank in range(processes):
        whole = fresh(rank)
        for number in range(epoch + 1):
            whole.set_epoch(number)  # type: ignore[attr-defined]
            batches = [batch.tolist() for batch in whole]
        resumed = fresh(rank)
        rest = skip_first_batches(resumed, skipped)
        begin = BeginEpoch()
        state = TrainerState(global_step=epoch * len(resumed) + skipped)
        args: Any = SimpleNamespace(gradient_accumulation_steps=1)
        begin.on_epoch_begin(args, state, TrainerControl(), train_dataloader=resumed)
        rest.set_epoch(epoch)
        assert [batch.tolist() for batch in rest] == batches[skipped:]


def test_row_groups_are_read_once_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read = pq.ParquetFile.read_row_group

    def counted(file: pq.ParquetFile, number: int, **how: Any) -> Any:
        reads.append(number)
        return read(file, number, **how)

    folder = write_shards(tmp_path, 400, 8, 5, with_photos=False)
    rows = open_datasets(["rows"], folder, in_order_of_files=True)
    runs = rows.runs()
    assert len(runs.files) == 80
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    seen = [rows[index].id for index in FileOrderSampler(runs, 2, 1, seed=0)]
    assert sorted(seen, key=int) == [str(number) for number in range(400)]
    assert len(reads) <= 80 + MOST_LANES  # a group in which a lane ends is read by two
    reads.clear()
    at_random = open_datasets(["rows"], folder)
    assert len({at_random[int(index)].id for index in np.random.default_rng(0).permutation(400)}) == 400
    assert len(reads) > 4 * 80
