"""What is made of an audit's numbers: findings, each with its size, its rows and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from riskva.audit.facts import AuditSettings, Facts
from riskva.audit.rows import Example, Indices, LookAlikes, RowLog
from riskva.audit.tally import MOST_EXAMPLES, Tally
from riskva.audit.words import WORDS

Severity = Literal["error", "warning", "info"]
Unit = Literal["rows", "levels", "splits", "groups", "photos", "texts"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
_MOST_OF_A_CLUSTER = 4


@dataclass(frozen=True)
class Finding:
    """Something that a person who prepares data should know of.

    `count` is in `unit`s and `share` (0 to 1) of all that there are; `examples` are at most 20 rows, and where
    `shows_photos` their photos say more than their texts. Texts that end in `_zh` are Chinese, the others English;
    `remedy` names a recipe key or what to do.
    """

    code: str
    severity: Severity
    count: int
    share: float
    unit: Unit
    title: str
    title_zh: str
    detail: str
    detail_zh: str
    remedy: str
    remedy_zh: str
    examples: tuple[Example, ...] = ()
    shows_photos: bool = False


@dataclass(frozen=True)
class Evidence:
    """What checks look at; there is at least one good row."""

    settings: AuditSettings
    facts: Facts
    log: RowLog
    tally: Tally
    look_alikes: LookAlikes

    @property
    def num_rows(self) -> int:
        return len(self.log)

    def split_code(self, split: str) -> int:
        """The number that stands for `split` in the log's `split_codes`."""
        return self.settings.splits.index(split)

    def rows(self, indices: Iterable[int]) -> tuple[Example, ...]:
        """The first rows of `indices` as examples."""
        return tuple(self.log.example(int(index)) for index in list(indices)[:MOST_EXAMPLES])

    def clusters(self, runs: Sequence[Indices], values: NDArray[np.uint8] | None = None) -> tuple[Example, ...]:
        """The first rows of `runs`, the largest first; of each run those in which `values` differ come first."""
        examples: list[Example] = []
        for cluster, run in enumerate(sorted(runs, key=lambda one: (-len(one), int(one[0]))), 1):
            shown = _telling(run, values)
            if len(examples) + len(shown) > MOST_EXAMPLES:
                break
            examples.extend(self.log.example(index, cluster=cluster) for index in shown)
        return tuple(examples)


def _telling(run: Indices, values: NDArray[np.uint8] | None) -> list[int]:
    """A few rows of `run`, at least two: one for each of `values` before more of the same."""
    firsts = [] if values is None else sorted(np.unique(values[run], return_index=True)[1].tolist())
    others = [place for place in range(min(len(run), _MOST_OF_A_CLUSTER)) if place not in firsts]
    return [int(run[place]) for place in sorted([*firsts, *others][:_MOST_OF_A_CLUSTER])]


def found(
    code: str,
    severity: Severity,
    count: int,
    of: int,
    *,
    unit: Unit = "rows",
    examples: Sequence[Example] = (),
    shows_photos: bool = False,
    filling: Mapping[str, object] | None = None,
) -> Finding:
    """The finding `code`, worded with `count` of `of` `unit`s and the `filling` that its words in `WORDS` ask for."""
    words, share = WORDS[code], count / of
    filled = {"count": count, "of": of, "share": share, **(filling or {})}
    return Finding(
        code=code,
        severity=severity,
        count=count,
        share=share,
        unit=unit,
        title=words.title,
        title_zh=words.title_zh,
        detail=words.detail.format(**filled),
        detail_zh=words.detail_zh.format(**filled),
        remedy=words.remedy,
        remedy_zh=words.remedy_zh,
        examples=tuple(examples[:MOST_EXAMPLES]),
        shows_photos=shows_photos,
    )


Check = Callable[[Evidence], Iterator[Finding]]


def findings_of(evidence: Evidence, checks: Sequence[Check]) -> tuple[Finding, ...]:
    """What `checks` find: errors before warnings before infos, of these the largest share first."""
    findings = [finding for check in checks for finding in check(evidence)]
    return tuple(
        sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), -one.share, -one.count, one.code, one.detail))
    )
