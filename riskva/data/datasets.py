"""Data sets by name: a sized, indexable mix of conversations, read from disk row by row as they are asked for."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from riskva.data.conversation import Conversation
from riskva.data.formats import RowPlace, read_row
from riskva.data.registry import DatasetEntry, load_registry
from riskva.data.sources import RowSource, open_source
from riskva.errors import DataError

_SAMPLING_SEED = 42


@dataclass(frozen=True)
class _File:
    """One file of a data set, with what reading its rows takes."""

    entry: DatasetEntry
    source: RowSource
    folders: tuple[Path, ...]

    def conversation(self, row: int, sample_id: str) -> Conversation:
        place = RowPlace(f"{self.source.path}:{self.source.line(row)}", sample_id, self.folders)
        return read_row(self.source.row(row), self.entry, place)

    def id_of(self, row: int) -> str:
        """The row's own id, or `file-line` where it has none."""
        return self.source.ids[row] or f"{self.source.path.stem}-{self.source.line(row)}"


@dataclass(frozen=True)
class _Sample:
    file: _File
    row: int
    id: str


class ConversationDataset:
    """Conversations by number, each read when it is asked for; picklable, so DataLoader workers can share the work.

    `dataset[i]` raises `DataError`, with file and line, when row i is bad.
    """

    def __init__(self, samples: Sequence[_Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Conversation:
        sample = self._samples[index]
        return sample.file.conversation(sample.row, sample.id)

    def __iter__(self) -> Iterator[Conversation]:
        return (self[index] for index in range(len(self)))

    @property
    def ids(self) -> list[str]:
        """Each sample's id, in order and all different; no row is read for it."""
        return [sample.id for sample in self._samples]

    def select(self, indices: Sequence[int]) -> ConversationDataset:
        """The samples with these numbers, in this order."""
        return ConversationDataset([self._samples[index] for index in indices])


def open_datasets(
    names: Sequence[str], dataset_dir: Path, media_dir: Path | None = None, max_samples: int | None = None
) -> ConversationDataset:
    """The data sets called `names` in `dataset_dir`/dataset_info.json, one after the other.

    Image paths are relative to `media_dir` (default: `dataset_dir`) or else to the folder of the file that names them.
    An entry's `num_samples` draws that many rows, always the same ones; `max_samples` then takes the first ones of each
    data set. A sample keeps its row's id; only ids that occur twice get the data set's name, or a number, added.

    Raises `DataError` for an unknown name or a file that cannot be read, `MissingDataError` for one that is not there.
    """
    if not names:
        raise DataError("no data set is named; set `dataset` or `eval_dataset` to names in dataset_info.json")
    registry = load_registry(dataset_dir)
    samples = []
    for name in dict.fromkeys(names):
        samples.extend(_open_one(registry.entry(name), media_dir or dataset_dir)[:max_samples])
    return ConversationDataset(_with_distinct_ids(samples))


def open_files(entry: DatasetEntry, media_dir: Path) -> ConversationDataset:
    """The samples of one entry, which need not stand in a registry."""
    return ConversationDataset(_with_distinct_ids(_open_one(entry, media_dir)))


def _open_one(entry: DatasetEntry, media_dir: Path) -> list[_Sample]:
    files = [_File(entry, open_source(path), (media_dir, path.parent)) for path in entry.files]
    samples = [_Sample(file, row, file.id_of(row)) for file in files for row in range(len(file.source))]
    if not samples:
        raise DataError(f"data set {entry.name!r}: no rows in {', '.join(str(path) for path in entry.files)}")
    return samples if entry.num_samples is None else _drawn(samples, entry.num_samples)


def _drawn(samples: list[_Sample], number: int) -> list[_Sample]:
    """`number` of the samples in their order; each is taken once more only after all have been taken."""
    rounds, rest = divmod(number, len(samples))
    chosen = sorted(random.Random(_SAMPLING_SEED).sample(range(len(samples)), rest))
    return samples * rounds + [samples[index] for index in chosen]


def _with_distinct_ids(samples: Sequence[_Sample]) -> list[_Sample]:
    owners: dict[str, set[str]] = {}
    for sample in samples:
        owners.setdefault(sample.id, set()).add(sample.file.entry.name)
    names = [f"{one.file.entry.name}/{one.id}" if len(owners[one.id]) > 1 else one.id for one in samples]
    unique_names = _numbered(names)
    return [
        one if name == one.id else _Sample(one.file, one.row, name)
        for one, name in zip(samples, unique_names, strict=True)
    ]


def _numbered(names: Sequence[str]) -> Iterator[str]:
    """The names, all different: from its second time on a name gets a number that makes none of the others."""
    taken, numbers = set(names), dict[str, Iterator[int]]()
    for name in names:
        if name not in numbers:
            numbers[name] = itertools.count(2)
            yield name
            continue
        unique = next(one for number in numbers[name] if (one := f"{name}#{number}") not in taken)
        taken.add(unique)
        yield unique
