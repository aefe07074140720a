"""Data sets by name: a sized, indexable mix of conversations, read from disk row by row as they are asked for."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riskva.data.conversation import Conversation
from riskva.data.formats import RowPlace, answer_column, read_answer, read_row
from riskva.data.parallel import ordered_map
from riskva.data.registry import DatasetEntry, Registry, load_registry
from riskva.data.sources import MOST_GROUPS, RowGroups, RowSource, id_of, open_source
from riskva.data.stamps import digest_of, stamped
from riskva.errors import DataError

_SAMPLING_SEED = 42
_FILES_AT_ONCE = 8
"""How many files are opened together: on a network disk each footer is a wait."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class _File:
    """One file of a data set, with what reading its rows takes."""

    entry: DatasetEntry
    source: RowSource
    folders: tuple[Path, ...]

    def conversation(self, row: int, name: str | None) -> Conversation:
        """The row's conversation, called `name` or else by the row's own id."""
        cells = self.source.row(row)
        sample_id = name or id_of(cells) or self._place_name(row)
        return read_row(
            cells, self.entry, RowPlace(f"{self.source.path}:{self.source.line(row)}", sample_id, self.folders)
        )

    def answers(self) -> Iterator[str | None]:
        """Each row's answer, None where it has none or cannot be read; no photo is read."""
        column = answer_column(self.entry)
        rows = self.source.rows_of(column) if column else ({} for _ in range(len(self.source)))
        for index, row in enumerate(rows):
            place = RowPlace(f"{self.source.path}:{self.source.line(index)}", self._place_name(index), self.folders)
            try:
                yield read_answer(row, self.entry, place)
            except DataError:  # `conversation` says what is wrong with it
                yield None

    def id_of(self, row: int) -> str:
        """The row's own id, or `file-line` where it has none."""
        return self.source.ids[row].as_py() or self._place_name(row)

    def ids(self) -> list[str]:
        return [one or self._place_name(row) for row, one in enumerate(self.source.ids.to_pylist())]

    def _place_name(self, row: int) -> str:
        return f"{self.source.path.stem}-{self.source.line(row)}"


@dataclass(frozen=True)
class Runs:
    """A data set cut into R runs of neighbouring rows, each within one row group of one file.

    `starts` (R + 1,) are the runs' first rows, with the number of rows at the end; `files` (R,) number the files that
    they lie in; `largest_group` is the size of the largest row group in bytes.
    """

    starts: Numbers
    files: Numbers
    largest_group: int


class ConversationDataset:
    """Conversations by number, each read when it is asked for; picklable, so DataLoader workers can share the work.

    `dataset[i]` raises `DataError`, with file and line, when row i is bad. A row takes eight bytes, and its id some
    twenty once ids are asked for.
    """

    def __init__(self, files: Sequence[_File], rows: Numbers, names: Mapping[int, str]) -> None:
        """`rows` are counted over all files; `names` are what samples are called that do not go by their row's id."""
        self._files = tuple(files)
        self._starts = list(itertools.accumulate((len(file.source) for file in files), initial=0))
        self._rows = rows
        self._names = names

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Conversation:
        file, row = self._place(index)
        return file.conversation(row, self._names.get(index % len(self)))

    def __iter__(self) -> Iterator[Conversation]:
        return (self[index] for index in range(len(self)))

    @property
    def ids(self) -> list[str]:
        """Each sample's id, in order and all different; only the files' ids are read for it."""
        own = list(itertools.chain.from_iterable(file.ids() for file in self._files))
        return [self._names.get(index) or own[row] for index, row in enumerate(self._rows)]

    @property
    def answers(self) -> list[str | None]:
        """Each sample's answer, in order, None where it has none or cannot be read; no photo is read."""
        own = list(itertools.chain.from_iterable(file.answers() for file in self._files))
        return [own[row] for row in self._rows]

    def cells(self, column: str) -> list[Any]:
        """Each sample's cell of that column, in order, None where it has none; no photo is read."""
        own = [row.get(column) for file in self._files for row in file.source.rows_of(column)]
        return [own[row] for row in self._rows]

    def id_of(self, index: int) -> str:
        """The id of one sample."""
        file, row = self._place(index)
        return self._names.get(index % len(self)) or file.id_of(row)

    @property
    def paths(self) -> list[Path]:
        """The files, in the order in which they are read."""
        return [file.source.path for file in self._files]

    def digest(self) -> str:
        """A hex digest of which rows these are and how they are read, and of their files' paths, sizes and times.

        Photos in files of their own are not looked at.
        """
        digest = hashlib.sha256(digest_of(stamped(path.absolute()) for path in self.paths).encode())
        for file in self._files:
            folders = [str(folder.absolute()) for folder in file.folders]
            digest.update(os.fsencode(f"{replace(file.entry, files=())} {folders}\n"))
        digest.update(self._rows.tobytes())
        return digest.hexdigest()

    def first_rows(self) -> Iterator[Conversation]:
        """The first of the samples in every file that has any."""
        _, indices = np.unique(self._file_numbers(self._rows), return_index=True)
        return (self[int(index)] for index in indices)

    def runs(self) -> Runs:
        """Which neighbouring rows are best read together."""
        groups = np.concatenate(
            [
                start + np.asarray(file.source.group_starts[:-1], dtype=np.int64)
                for file, start in zip(self._files, self._starts, strict=False)
            ]
        )
        group_of_row = np.searchsorted(groups, self._rows, side="right")
        starts = np.flatnonzero(np.diff(group_of_row, prepend=-1))
        return Runs(
            np.append(starts, len(self)),
            self._file_numbers(self._rows[starts]),
            max(file.source.largest_group for file in self._files),
        )

    def select(self, indices: Sequence[int]) -> ConversationDataset:
        """The samples with these numbers, in this order."""
        names = {new: self._names[old] for new, old in enumerate(indices) if old in self._names} if self._names else {}
        return ConversationDataset(self._files, self._rows[np.asarray(indices, dtype=np.int64)], names)

    def _place(self, index: int) -> tuple[_File, int]:
        row = int(self._rows[index])
        number = bisect_right(self._starts, row) - 1
        return self._files[number], row - self._starts[number]

    def _file_numbers(self, rows: Numbers) -> Numbers:
        return np.searchsorted(self._starts, rows, side="right") - 1


def open_datasets(
    names: Sequence[str],
    dataset_dir: Path,
    media_dir: Path | None = None,
    max_samples: int | None = None,
    *,
    in_order_of_files: bool = False,
) -> ConversationDataset:
    """The data sets called `names` in `dataset_dir`/dataset_info.json, one after the other.

    Image paths are relative to `media_dir` (default: `dataset_dir`) or else to the folder of the file that names them.
    An entry's `num_samples` draws that many rows, always the same ones; `max_samples` then takes the first ones of each
    data set. A sample keeps its row's id; only ids that occur twice get the data set's name, or a number, added.

    `in_order_of_files` is for data sets too large to be looked through: no row is read on opening, ids are the rows'
    own even where they occur twice, and as many row groups stay in memory as an order by files comes back to.

    Raises `DataError` for an unknown name or a file that cannot be read, `MissingDataError` for one that is not there.
    """
    registry = load_registry(dataset_dir)
    groups = RowGroups(MOST_GROUPS if in_order_of_files else 1)
    parts = [_open_one(entry, media_dir or dataset_dir, groups) for entry in named_entries(names, registry)]
    return _joined([(files, rows[:max_samples]) for files, rows in parts], has_distinct_ids=not in_order_of_files)


def named_entries(names: Sequence[str], registry: Registry) -> list[DatasetEntry]:
    """The entries of these data sets, each once. Raises `DataError` when no name is given or one is unknown."""
    if not names:
        raise DataError("no data set is named; set `dataset` or `eval_dataset` to names in dataset_info.json")
    return [registry.entry(name) for name in dict.fromkeys(names)]


def open_files(entry: DatasetEntry, media_dir: Path) -> ConversationDataset:
    """The samples of one entry, which need not stand in a registry."""
    return _joined([_open_one(entry, media_dir, RowGroups())], has_distinct_ids=True)


_Part = tuple[list[_File], Numbers]
"""Files, and the numbers of the rows that are used, counted over these files."""


def _open_one(entry: DatasetEntry, media_dir: Path, groups: RowGroups) -> _Part:
    sources = ordered_map(lambda path: open_source(path, groups), entry.files, _FILES_AT_ONCE)
    files = [_File(entry, source, (media_dir, source.path.parent)) for source in sources]
    num_rows = sum(len(file.source) for file in files)
    if not num_rows:
        raise DataError(f"data set {entry.name!r}: no rows in {', '.join(str(path) for path in entry.files)}")
    return files, np.arange(num_rows) if entry.num_samples is None else _drawn(num_rows, entry.num_samples)


def _drawn(num_rows: int, number: int) -> Numbers:
    """`number` of the rows in their order; each is taken once more only after all have been taken."""
    rounds, rest = divmod(number, num_rows)
    chosen = sorted(random.Random(_SAMPLING_SEED).sample(range(num_rows), rest))
    return np.concatenate([np.tile(np.arange(num_rows), rounds), np.asarray(chosen, dtype=np.int64)])


def _joined(parts: Sequence[_Part], has_distinct_ids: bool) -> ConversationDataset:
    files = [file for part, _ in parts for file in part]
    sizes = [sum(len(file.source) for file in part) for part, _ in parts]
    starts = itertools.accumulate(sizes, initial=0)
    rows = np.concatenate([start + rows for start, (_, rows) in zip(starts, parts, strict=False)])
    joined = ConversationDataset(files, rows, {})
    if not has_distinct_ids:
        return joined
    owners = [part[0].entry.name for part, rows in parts for _ in range(len(rows))]
    return ConversationDataset(files, rows, _distinct_names(joined.ids, owners))


def _distinct_names(ids: Sequence[str], owners: Sequence[str]) -> dict[int, str]:
    """New names, by position, for ids that occur twice: with their data set's name, or else a number, added."""
    counts = Counter(ids)
    if len(counts) == len(ids):
        return {}
    owners_of: dict[str, set[str]] = {}
    for one, owner in zip(ids, owners, strict=True):
        if counts[one] > 1:
            owners_of.setdefault(one, set()).add(owner)
    names = [
        f"{owner}/{one}" if len(owners_of.get(one, ())) > 1 else one for one, owner in zip(ids, owners, strict=True)
    ]
    return {index: name for index, name in enumerate(numbered(names)) if name != ids[index]}


def numbered(names: Sequence[str]) -> Iterator[str]:
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
