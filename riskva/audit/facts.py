"""The numbers of an audit: what a data set consists of, split by split. What to make of them is in `findings`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from riskva.report import ReportFormat


def train_split(splits: Sequence[str]) -> str:
    """The split of `splits` (at least one) that models learn from: `train`, or the first."""
    return "train" if "train" in splits else splits[0]


@dataclass(frozen=True)
class AuditSettings:
    """What the audit must know of the job beyond its rows.

    `kinds` are words by kind of defect (`riskva.vocabulary.KINDS`), `tables` the file names with what they are
    ("GBK/GB18030").
    """

    report_format: ReportFormat
    splits: tuple[str, ...]
    image_max_pixels: int
    image_min_pixels: int
    kinds: Mapping[str, tuple[str, ...]]
    title: str
    tables: tuple[tuple[str, str], ...]

    @property
    def train_split(self) -> str:
        """The split that models learn from."""
        return train_split(self.splits)

    @property
    def test_split(self) -> str | None:
        """The split that models are judged by: `test`, or the last; None where there is only one to learn from."""
        if "test" in self.splits:
            return "test"
        return self.splits[-1] if self.splits[-1] != self.train_split else None


@dataclass(frozen=True)
class Spread:
    """The smallest, the middle and the largest of some numbers (the lower middle one of an even number of them)."""

    smallest: int
    median: int
    largest: int


@dataclass(frozen=True)
class Bin:
    """How many of some whole numbers lie from `low` to `high`, both included."""

    low: int
    high: int
    count: int


@dataclass(frozen=True)
class TableFacts:
    """A table: its file name, what kind of file it is, and what became of its rows."""

    file: str
    label: str
    num_out: int
    num_quarantined: int


@dataclass(frozen=True)
class RowFacts:
    """Rows in and out: `num_in` = `num_out` + `num_quarantined`; quarantined rows by reason, the others by split."""

    num_in: int
    num_out: int
    num_quarantined: int
    reasons: Mapping[str, int]
    splits: Mapping[str, int]
    tables: tuple[TableFacts, ...]


@dataclass(frozen=True)
class Floor:
    """The accuracy (0 to 1) of always answering a split's commonest level, the lower one of equals."""

    level: str
    accuracy: float


@dataclass(frozen=True)
class Wording:
    """A word that tables use for a level, the level that it was taken for, and in how many rows."""

    written: str
    level: str
    count: int


@dataclass(frozen=True)
class LevelFacts:
    """Rows by split and level, the floor of every split that has rows, and the tables' other words for the levels."""

    splits: Mapping[str, Mapping[str, int]]
    floors: Mapping[str, Floor]
    wordings: tuple[Wording, ...]


@dataclass(frozen=True)
class KindFacts:
    """A kind of defect, with its rows by split and by level."""

    kind: str
    splits: Mapping[str, int]
    levels: Mapping[str, int]
    count: int


@dataclass(frozen=True)
class TextFacts:
    """A field's texts: lengths in characters, how many different ones there are, and the commonest (shortened)."""

    label: str
    chars: Spread
    histogram: tuple[Bin, ...]
    num_distinct: int
    commonest: str
    commonest_count: int


@dataclass(frozen=True)
class SizeFacts:
    """A size in pixels, the image tokens that such a photo takes, and how many photos have it."""

    width: int
    height: int
    tokens: int
    count: int


@dataclass(frozen=True)
class PhotoFacts:
    """Photos as they are stored. `kilopixels` are thousands of pixels; `tokens` are counted under the pixel limits.

    `sizes` are the commonest ones.
    """

    num_unchanged: int
    num_reencoded: int
    num_bytes: int
    num_sizes: int
    sizes: tuple[SizeFacts, ...]
    orientations: Mapping[str, int]
    short_side: Spread
    kilopixels: Spread
    tokens: Spread
    token_histogram: tuple[Bin, ...]
    num_tokens: int


@dataclass(frozen=True)
class GroupFacts:
    """What is kept in one split: how many groups there are, the largest ones with their rows, and rows without one."""

    num_groups: int
    largest: Mapping[str, int]
    num_without: int


@dataclass(frozen=True)
class LookAlikeFacts:
    """Clusters of photos that look alike, and how many of them lie in several splits or have several levels."""

    num_clusters: int
    num_rows: int
    num_across_splits: int
    num_several_levels: int


@dataclass(frozen=True)
class Facts:
    """All numbers of an audit; `groups` is None where no row has one."""

    rows: RowFacts
    levels: LevelFacts
    kind_label: str | None
    kinds: tuple[KindFacts, ...]
    texts: tuple[TextFacts, ...]
    photos: PhotoFacts
    groups: GroupFacts | None
    look_alikes: LookAlikeFacts


def spread(counts: Mapping[int, int]) -> Spread:
    """The spread of numbers that are given with how often each occurs; there must be at least one."""
    ordered, middle = sorted(counts), (sum(counts.values()) + 1) // 2
    seen = np.cumsum([counts[value] for value in ordered])
    return Spread(ordered[0], ordered[int(np.searchsorted(seen, middle))], ordered[-1])


def histogram(counts: Mapping[int, int], most_bins: int = 16) -> tuple[Bin, ...]:
    """At most `most_bins` bins of equal, round width that hold all numbers (at least one), empty ones too."""
    low, high = min(counts), max(counts)
    width = next(width for width in _round_widths() if high // width - low // width < most_bins)
    bins = Counter[int]()
    for value, count in counts.items():
        bins[value // width] += count
    return tuple(Bin(i * width, (i + 1) * width - 1, bins[i]) for i in range(low // width, high // width + 1))


def _round_widths() -> Iterator[int]:
    scale = 1
    while True:
        yield from (scale, 2 * scale, 5 * scale)
        scale *= 10
