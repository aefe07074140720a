"""What the splits and the plan of files need of every row: one pass over the pieces, a few hundred bytes a row."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from riskva.audit.rows import texts_digest
from riskva.preparation.duplicates import join_units, look_alikes
from riskva.preparation.pieces import PieceRow
from riskva.preparation.splits import assign_splits
from riskva.recipe import PrepareRecipe
from riskva.report import RiskLevel
from riskva.tables.records import BadRow, GoodRow, PreparedRow


@dataclass
class Index:
    """Good rows in the order of the tables, each at a position from 0, and the bad rows.

    `num_bytes` and `hashes` are those of the photos; an index made before the photos were opened has none. `digest`
    stands for all that is known of all rows.
    """

    numbers: list[int] = field(default_factory=list)
    levels: list[RiskLevel] = field(default_factory=list)
    groups: list[str | None] = field(default_factory=list)
    splits: list[str | None] = field(default_factory=list)
    num_bytes: list[int] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    rows_by_table: Counter[str] = field(default_factory=Counter)
    digest: str = ""

    @property
    def num_rows(self) -> int:
        """Good and bad rows."""
        return len(self.numbers) + len(self.bad)

    @cached_property
    def group_names(self) -> dict[str, str]:
        """What prepared rows call each group: `g0001`, …, by first appearance among all good rows.

        Not by split or by part, so that the names are the same however the work was divided.
        """
        groups = dict.fromkeys(group for group in self.groups if group is not None)
        return {group: f"g{number:04d}" for number, group in enumerate(groups, start=1)}

    @cached_property
    def look_alikes(self) -> list[list[int]]:
        """Clusters of positions whose photos look alike."""
        return look_alikes(self.hashes)

    @property
    def identical_texts(self) -> list[list[int]]:
        """Clusters of positions whose reports have the same texts, whatever their levels."""
        positions: dict[int, list[int]] = {}
        for position, text in enumerate(self.texts):
            positions.setdefault(text, []).append(position)
        return [cluster for cluster in positions.values() if len(cluster) > 1]

    def add(self, row: GoodRow | BadRow) -> None:
        """Append a row, the next in the order of the tables."""
        self.rows_by_table[row.table] += 1
        if isinstance(row, BadRow):
            self.bad.append(row)
            return
        self.numbers.append(row.number)
        self.levels.append(row.report.level)
        self.groups.append(row.group)
        self.splits.append(row.split)
        self.texts.append(texts_digest(row.report))
        if isinstance(row, PreparedRow):
            self.num_bytes.append(row.photo.num_bytes)
            self.hashes.append(row.photo.perceptual_hash)


def index_rows(rows: Iterable[PieceRow]) -> Index:
    """The index of all rows."""
    index, digest = Index(), hashlib.sha256()
    for one in rows:
        index.add(one.row)
        digest.update(repr(one.row).encode())
    index.digest = digest.hexdigest()
    return index


def split_rows(index: Index, recipe: PrepareRecipe) -> list[str]:
    """The split of each good row: what the table says, or by shares, with all that belongs together in one split."""
    if recipe.split_column is not None:
        return [str(split) for split in index.splits]
    groups = index.groups if recipe.group_by is not None else [None] * len(index.numbers)
    clusters = list(_clusters(index, recipe))
    if recipe.group_by is None and not clusters:
        return assign_splits(index.levels, recipe.split, recipe.seed)
    units = join_units(len(index.numbers), groups, clusters)
    return assign_splits(index.levels, recipe.split, recipe.seed, units)


def _clusters(index: Index, recipe: PrepareRecipe) -> Iterator[list[int]]:
    if recipe.near_duplicates == "together":
        yield from index.look_alikes
    if recipe.identical_texts == "together":
        yield from index.identical_texts
