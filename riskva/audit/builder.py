"""The audit of a data set: what it consists of, what is wrong with it, and what to do about that.

Rows are given one by one and not kept; see `rows` for what is. `riskva.audit.page.render_audit` makes a page of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np

from riskva.audit.balance import BALANCE_CHECKS
from riskva.audit.facts import AuditSettings, Facts
from riskva.audit.findings import SEVERITIES, Evidence, Finding, findings_of
from riskva.audit.quality import QUALITY_CHECKS
from riskva.audit.repeats import REPEAT_CHECKS
from riskva.audit.rows import Example, RowLog, sort_look_alikes
from riskva.audit.tally import Tally, facts_of
from riskva.report import RiskLevel
from riskva.tables.records import BadRow, PreparedRow

CHECKS = (*BALANCE_CHECKS, *REPEAT_CHECKS, *QUALITY_CHECKS)
AUDIT_VERSION = 1
SAMPLES_PER_LEVEL = 8


@dataclass(frozen=True)
class Audit:
    """The finished audit.

    `findings` are ordered: errors, warnings, infos, the largest first. `samples` are rows of every level, evenly
    spread over the tables; `thumbnails` hold small JPEGs of all rows that are shown with their photo, by row number.
    """

    settings: AuditSettings
    facts: Facts
    findings: tuple[Finding, ...]
    samples: tuple[Example, ...]
    thumbnails: Mapping[int, bytes]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings for which `audit: strict` fails the job."""
        return tuple(one for one in self.findings if one.severity == "error")

    @property
    def num_by_severity(self) -> dict[str, int]:
        counts = Counter(one.severity for one in self.findings)
        return {severity: counts[severity] for severity in SEVERITIES}

    def to_json(self) -> dict[str, Any]:
        """The audit without pictures, as values that JSON has; the same data always gives the same."""
        return {
            "version": AUDIT_VERSION,
            "data_set": self.settings.title,
            "verdict": self.num_by_severity,
            "findings": [_plain(asdict(one)) for one in self.findings],
            "pixel_limits": {"min": self.settings.image_min_pixels, "max": self.settings.image_max_pixels},
            **_plain(asdict(self.facts)),
        }


def _plain(value: Any) -> Any:
    """`value` with lists for tuples, and shares of a length that can be read."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value


class AuditBuilder:
    """Takes the rows of a job, good and bad, one by one, and makes the audit."""

    def __init__(self, settings: AuditSettings) -> None:
        self._settings = settings
        self._log = RowLog(settings.splits, settings.report_format.text_labels)
        self._tally = Tally(settings)

    def add(self, row: PreparedRow, split: str) -> None:
        """Take a good row, which went to `split`; rows come in order of their number.

        Raises `ValueError` for a row out of order or a split that the settings do not have.
        """
        self._log.add(row, split)
        self._tally.add(row, split, len(self._log) - 1)

    def add_bad(self, row: BadRow) -> None:
        """Take a row that is kept out."""
        self._tally.add_bad(row)

    def finish(self, look_alikes: Sequence[Sequence[int]], thumbnail: Callable[[int], bytes]) -> Audit:
        """The audit of all rows taken; there must be at least one good one.

        `look_alikes` are clusters of good rows whose photos look alike, as ascending row numbers. `thumbnail` gives a
        row's photo as a small JPEG; it is asked once for each row that is shown with it.
        """
        clusters = sort_look_alikes(look_alikes, self._log)
        facts = facts_of(self._tally, self._log, clusters)
        evidence = Evidence(self._settings, facts, self._log, self._tally, clusters)
        findings, samples = findings_of(evidence, CHECKS), self._samples()
        pictured = chain(samples, *(one.examples for one in findings if one.shows_photos))
        numbers = sorted({example.number for example in pictured})
        return Audit(self._settings, facts, findings, samples, {number: thumbnail(number) for number in numbers})

    def _samples(self) -> tuple[Example, ...]:
        """A few rows of every level, evenly spread over the tables."""
        by_level = (np.flatnonzero(self._log.levels == level) for level in RiskLevel)
        return tuple(
            self._log.example(int(rows[place]))
            for rows in by_level
            for place in np.unique(np.linspace(0, len(rows) - 1, SAMPLES_PER_LEVEL).round().astype(np.int64))
            if len(rows)
        )
