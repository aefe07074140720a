"""Counting: from rows that pass by once to the numbers of `facts`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from riskva.audit.facts import (
    AuditSettings,
    Facts,
    Floor,
    GroupFacts,
    KindFacts,
    LevelFacts,
    LookAlikeFacts,
    PhotoFacts,
    RowFacts,
    SizeFacts,
    TableFacts,
    TextFacts,
    Wording,
    histogram,
    spread,
)
from riskva.audit.rows import NO_GROUP, Example, LookAlikes, RowLog, distinct_counts, excerpt, normalised_texts
from riskva.data.image_tokens import num_image_tokens
from riskva.report import RiskLevel
from riskva.tables.records import BadRow, PreparedRow
from riskva.vocabulary import Vocabulary

SHORT_TEXT, SMALL_SIDE = 4, 224
MOST_EXAMPLES = 20
MOST_SIZES, MOST_GROUPS = 10, 10
_BAD_PER_REASON = 5


@dataclass
class Noted:
    """Rows of one sort: how many there are, and the indices of the first of them in the log."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, index: int) -> None:
        self.count += 1
        if len(self.first) < MOST_EXAMPLES:
            self.first.append(index)


class Tally:
    """What is counted while rows pass by.

    It grows with how many tables, lengths, sizes, kinds and words for levels there are; of the rows themselves only a
    few examples are kept.
    """

    def __init__(self, settings: AuditSettings) -> None:
        self.settings = settings
        self.vocabulary = Vocabulary(settings.kinds)
        labels = settings.report_format.text_labels
        self.levels = Counter[tuple[str, RiskLevel]]()
        self.kinds = Counter[tuple[str, str, RiskLevel]]()
        self.chars = {label: Counter[int]() for label in labels}
        self.short_texts = {label: Noted() for label in labels}
        self.sizes = Counter[tuple[int, int]]()
        self.small_photos, self.unknown_kinds = Noted(), Noted()
        self.wordings = Counter[tuple[str, RiskLevel]]()
        self.rows_by_table, self.bad_by_table, self.reasons = Counter[str](), Counter[str](), Counter[str]()
        self.bad_examples: dict[str, list[Example]] = {}
        self.num_unchanged = self.num_bytes = 0

    def add(self, row: PreparedRow, split: str, index: int) -> None:
        """Count a good row, whose index in the log is `index`."""
        self.rows_by_table[row.table] += 1
        self.levels[split, row.report.level] += 1
        if row.level_as_written is not None:
            self.wordings[excerpt(row.level_as_written), row.report.level] += 1
        self._add_texts(row, split, index)
        self._add_photo(row, index)

    def _add_texts(self, row: PreparedRow, split: str, index: int) -> None:
        texts = normalised_texts(row.report)
        for label, counts in self.chars.items():
            length = len(texts[label])
            counts[length] += 1
            if length < SHORT_TEXT:
                self.short_texts[label].add(index)
        if self.settings.report_format.defect_label is not None:
            kind = self.vocabulary.first(texts[self.settings.report_format.defect_label])
            self.kinds[kind, split, row.report.level] += 1
            if kind not in self.settings.kinds:
                self.unknown_kinds.add(index)

    def _add_photo(self, row: PreparedRow, index: int) -> None:
        self.sizes[row.photo.size] += 1
        self.num_bytes += row.photo.num_bytes
        self.num_unchanged += row.photo.is_unchanged
        if min(row.photo.size) < SMALL_SIDE:
            self.small_photos.add(index)

    def add_bad(self, row: BadRow) -> None:
        """Count a row that is kept out."""
        self.bad_by_table[row.table] += 1
        self.reasons[row.reason] += 1
        examples = self.bad_examples.setdefault(row.reason, [])
        if len(examples) < _BAD_PER_REASON:
            shown = excerpt(row.id), excerpt(row.table), excerpt(row.file), excerpt(f"{row.reason}: {row.message}")
            row_id, table, photo, note = shown
            examples.append(Example(row.number, row_id, table, row.line, "", "", photo, {}, note))


def facts_of(tally: Tally, log: RowLog, look_alikes: LookAlikes) -> Facts:
    """All numbers of the rows counted so far; there must be at least one good row."""
    runs = [*look_alikes.across_splits, *look_alikes.in_one_split]
    return Facts(
        rows=_row_facts(tally),
        levels=_level_facts(tally),
        kind_label=tally.settings.report_format.defect_label,
        kinds=_kind_facts(tally),
        texts=tuple(_text_facts(label, chars, log) for label, chars in tally.chars.items()),
        photos=_photo_facts(tally),
        groups=_group_facts(log),
        look_alikes=LookAlikeFacts(
            num_clusters=len(runs),
            num_rows=sum(map(len, runs)),
            num_across_splits=len(look_alikes.across_splits),
            num_several_levels=len(look_alikes.of_several_levels),
        ),
    )


def _row_facts(tally: Tally) -> RowFacts:
    num_out, num_bad = tally.rows_by_table.total(), tally.reasons.total()
    labels = dict(tally.settings.tables)
    files = dict.fromkeys((*labels, *tally.rows_by_table, *tally.bad_by_table))
    return RowFacts(
        num_in=num_out + num_bad,
        num_out=num_out,
        num_quarantined=num_bad,
        reasons=_by_size(tally.reasons),
        splits={split: sum(tally.levels[split, level] for level in RiskLevel) for split in tally.settings.splits},
        tables=tuple(
            TableFacts(excerpt(file), labels.get(file, ""), tally.rows_by_table[file], tally.bad_by_table[file])
            for file in files
        ),
    )


def _by_size(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _level_facts(tally: Tally) -> LevelFacts:
    splits = {
        split: {level.label: tally.levels[split, level] for level in RiskLevel} for split in tally.settings.splits
    }
    floors = {}
    for split, counts in splits.items():
        if total := sum(counts.values()):
            commonest = max(counts, key=lambda label: counts[label])
            floors[split] = Floor(commonest, counts[commonest] / total)
    ordered = sorted(tally.wordings.items(), key=lambda item: (-item[1], item[0]))
    return LevelFacts(splits, floors, tuple(Wording(word, level.label, count) for (word, level), count in ordered))


def _kind_facts(tally: Tally) -> tuple[KindFacts, ...]:
    totals = Counter[str]()
    for (kind, _, _), count in tally.kinds.items():
        totals[kind] += count
    return tuple(_kind(kind, count, tally) for kind, count in _by_size(totals).items())


def _kind(kind: str, count: int, tally: Tally) -> KindFacts:
    counts, splits = tally.kinds, tally.settings.splits
    return KindFacts(
        kind,
        splits={split: sum(counts[kind, split, level] for level in RiskLevel) for split in splits},
        levels={level.label: sum(counts[kind, split, level] for split in splits) for level in RiskLevel},
        count=count,
    )


def _text_facts(label: str, chars: Mapping[int, int], log: RowLog) -> TextFacts:
    """What the log and the counted lengths say of a field."""
    firsts, counts = distinct_counts(log.field_keys(label))
    # argmax takes the first of equals, and firsts are in order: the same data always names the same text.
    best = int(np.argmax(counts))
    return TextFacts(
        label, spread(chars), histogram(chars), len(counts), log.text(int(firsts[best]), label), int(counts[best])
    )


def _group_facts(log: RowLog) -> GroupFacts | None:
    """The groups of the rows, or None where no row has one."""
    keys = log.group_keys
    grouped = np.flatnonzero(keys != NO_GROUP)
    if not len(grouped):
        return None
    firsts, counts = distinct_counts(keys[grouped])
    order = np.argsort(-counts, kind="stable")[:MOST_GROUPS]
    largest = {log.group(int(grouped[firsts[i]])): int(counts[i]) for i in order}
    return GroupFacts(len(counts), largest, len(keys) - len(grouped))


def _photo_facts(tally: Tally) -> PhotoFacts:
    """What was counted of the photos."""
    sizes, limits = tally.sizes, (tally.settings.image_min_pixels, tally.settings.image_max_pixels)
    tokens_of = {size: num_image_tokens(size, *limits) for size in sizes}
    tokens = _summed((count, sizes[size]) for size, count in tokens_of.items())
    commonest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:MOST_SIZES]
    return PhotoFacts(
        num_unchanged=tally.num_unchanged,
        num_reencoded=sizes.total() - tally.num_unchanged,
        num_bytes=tally.num_bytes,
        num_sizes=len(sizes),
        sizes=tuple(SizeFacts(*size, tokens_of[size], count) for size, count in commonest),
        orientations={
            name: sum(count for size, count in sizes.items() if _orientation(size) == name)
            for name in ("landscape", "portrait", "square")
        },
        short_side=spread(_summed((min(size), count) for size, count in sizes.items())),
        kilopixels=spread(_summed((round(size[0] * size[1] / 1000), count) for size, count in sizes.items())),
        tokens=spread(tokens),
        token_histogram=histogram(tokens),
        num_tokens=sum(value * count for value, count in tokens.items()),
    )


def _summed(pairs: Iterable[tuple[int, int]]) -> Counter[int]:
    counts = Counter[int]()
    for value, count in pairs:
        counts[value] += count
    return counts


def _orientation(size: tuple[int, int]) -> str:
    return "landscape" if size[0] > size[1] else "portrait" if size[0] < size[1] else "square"
