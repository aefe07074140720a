"""What the audit remembers of every row: a few numbers, digests to compare by, and the words, compressed.

Measured with 300,000 rows of three texts: 87 bytes a row where descriptions are worded like an inspector's, 200 where
every character is random. Nothing else of a row is kept, so that large tables need no large memory.
"""

from __future__ import annotations

import json
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riskva.report import RiskLevel, RiskReport, normalise_text
from riskva.tables.records import PreparedRow

ROWS_PER_BLOCK = 256
LONGEST_EXCERPT = 120
NO_GROUP = 0

Keys = NDArray[np.uint64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Example:
    """A row as a finding shows it: where it stands, its split and level, its texts by label (shortened), and a note.

    `cluster` counts from 1 and is the same for rows that belong together, such as photos that look alike; None where
    rows are shown one by one.
    """

    number: int
    id: str
    table: str
    line: int
    split: str
    level: str
    photo: str
    texts: Mapping[str, str]
    note: str = ""
    cluster: int | None = None


class RowLog:
    """Rows in the order in which they were added, by index from 0: columns to count with, words to show.

    All columns run parallel. `texts_keys` are the rows' `texts_digest`s, `photo_keys` digests of their pictures,
    `group_keys` of their groups (`NO_GROUP` without one), `field_keys` of one field's texts. Equal digests mean equal
    texts: with 64 bits, 300,000 different ones clash in one of 400 million data sets.
    """

    def __init__(self, splits: Sequence[str], text_labels: Sequence[str]) -> None:
        self._splits, self._labels = tuple(splits), tuple(text_labels)
        self._numbers, self._levels, self._split_codes = array("q"), array("B"), array("B")
        self._texts_keys, self._photo_keys, self._group_keys = array("Q"), array("Q"), array("Q")
        self._field_keys = tuple(array("Q") for _ in text_labels)
        self._words = _Words()

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, row: PreparedRow, split: str) -> None:
        """Raises `ValueError` for a split that was not announced, or a number not above the last one."""
        if self._numbers and row.number <= self._numbers[-1]:
            raise ValueError(f"row {row.number} after row {self._numbers[-1]}: the audit takes rows in order of number")
        if split not in self._splits:
            raise ValueError(f"row {row.number}: split {split!r} is none of {', '.join(self._splits)}")
        by_label = normalised_texts(row.report)
        texts = [by_label[label] for label in self._labels]
        self._split_codes.append(self._splits.index(split))
        self._numbers.append(row.number)
        self._levels.append(int(row.report.level))
        self._texts_keys.append(texts_digest(row.report))
        self._photo_keys.append(_digest(row.photo.sha256))
        self._group_keys.append(NO_GROUP if row.group is None else _digest(row.group) or 1)
        for keys, text in zip(self._field_keys, texts, strict=True):
            keys.append(_digest(text))
        words = map(excerpt, (row.id, row.table, row.photo.name, row.group or "", *texts))
        self._words.add([row.line, *words])

    @property
    def levels(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._levels, np.uint8)

    @property
    def split_codes(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._split_codes, np.uint8)

    @property
    def texts_keys(self) -> Keys:
        return np.frombuffer(self._texts_keys, np.uint64)

    @property
    def photo_keys(self) -> Keys:
        return np.frombuffer(self._photo_keys, np.uint64)

    @property
    def group_keys(self) -> Keys:
        return np.frombuffer(self._group_keys, np.uint64)

    def field_keys(self, label: str) -> Keys:
        return np.frombuffer(self._field_keys[self._labels.index(label)], np.uint64)

    def indices(self, numbers: Sequence[int]) -> Indices:
        """The indices of rows by their numbers. Raises `ValueError` for a number that the log does not hold."""
        held = np.frombuffer(self._numbers, np.int64)
        rows: Indices = np.searchsorted(held, numbers)
        if held.take(rows, mode="clip").tolist() != list(numbers):
            raise ValueError(f"rows {list(numbers)}: the audit did not take all of them as good ones")
        return rows

    def group(self, index: int) -> str:
        group: str = self._words.of(index)[4]
        return group

    def text(self, index: int, label: str) -> str:
        text: str = self._words.of(index)[5 + self._labels.index(label)]
        return text

    def example(self, index: int, note: str = "", cluster: int | None = None) -> Example:
        line, row_id, table, photo, _, *texts = self._words.of(index)
        return Example(
            number=self._numbers[index],
            id=row_id,
            table=table,
            line=line,
            split=self._splits[self._split_codes[index]],
            level=RiskLevel(self._levels[index]).label,
            photo=photo,
            texts=dict(zip(self._labels, texts, strict=True)),
            note=note,
            cluster=cluster,
        )


class _Words:
    """Lists of short values, appended one by one and read back by index; blocks of them are compressed."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._open: list[list[Any]] = []
        self._unpacked = lru_cache(maxsize=8)(self._unpack)

    def add(self, values: list[Any]) -> None:
        self._open.append(values)
        if len(self._open) == ROWS_PER_BLOCK:
            self._blocks.append(zlib.compress(json.dumps(self._open, ensure_ascii=False).encode(), level=6))
            self._open = []

    def of(self, index: int) -> list[Any]:
        block, place = divmod(index, ROWS_PER_BLOCK)
        rows = self._open if block == len(self._blocks) else self._unpacked(block)
        return rows[place]

    def _unpack(self, block: int) -> list[list[Any]]:
        rows: list[list[Any]] = json.loads(zlib.decompress(self._blocks[block]))
        return rows


@dataclass(frozen=True)
class LookAlikes:
    """Clusters of rows, by index, whose photos look alike: torn across splits, or whole in one.

    `of_several_levels` are those of both whose rows do not all have the same level.
    """

    across_splits: Sequence[Indices]
    in_one_split: Sequence[Indices]
    of_several_levels: Sequence[Indices]


def sort_look_alikes(clusters: Sequence[Sequence[int]], log: RowLog) -> LookAlikes:
    """The clusters, given as ascending numbers of rows of the log, by what their rows differ in."""
    runs = [log.indices(numbers) for numbers in clusters]
    return LookAlikes(
        across_splits=[run for run in runs if _differ(log.split_codes[run])],
        in_one_split=[run for run in runs if not _differ(log.split_codes[run])],
        of_several_levels=[run for run in runs if _differ(log.levels[run])],
    )


def normalised_texts(report: RiskReport) -> dict[str, str]:
    """The report's texts by label, as a model is trained to write them."""
    return {label: normalise_text(text) for label, text in report.texts.items()}


def texts_digest(report: RiskReport) -> int:
    """64 bits that are the same for reports with the same texts, whatever their level; the same in every run."""
    return _digest("\0".join(chain.from_iterable(normalised_texts(report).items())))


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def excerpt(text: str) -> str:
    """`text` as an audit shows it: at most `LONGEST_EXCERPT` characters."""
    return text if len(text) <= LONGEST_EXCERPT else text[: LONGEST_EXCERPT - 1] + "…"


def distinct_counts(keys: Keys) -> tuple[Indices, Indices]:
    """For every distinct key, in the order of their first rows: the index of that row, and how many rows have it."""
    _, firsts, counts = np.unique(keys, return_index=True, return_counts=True)
    order = np.argsort(firsts)
    return firsts[order].astype(np.int64), counts[order].astype(np.int64)


def repeated(keys: Keys) -> list[Indices]:
    """The indices of the rows of every key that more than one row has, in the order of their first rows."""
    order = np.argsort(keys, kind="stable")
    in_order = keys[order]
    runs = np.split(order, np.flatnonzero(in_order[1:] != in_order[:-1]) + 1)
    return sorted((run for run in runs if len(run) > 1), key=lambda run: int(run[0]))


def mixed(keys: Keys, values: NDArray[np.unsignedinteger[Any]]) -> list[Indices]:
    """Those of `repeated(keys)` whose rows do not all have the same value."""
    return [run for run in repeated(keys) if _differ(values[run])]


def _differ(values: NDArray[np.unsignedinteger[Any]]) -> bool:
    return bool(values.min() != values.max())
