"""Checks of what stands twice: photos that look alike, repeated rows, and texts that are shared or contradict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from riskva.audit.findings import Evidence, Finding, Severity, found
from riskva.audit.rows import Indices, Keys, mixed, repeated

MANY_REPEATED_ROWS = 0.01
# An odd number without a pattern: it keeps a photo's digest from cancelling out that of a text.
_SPREADS_BITS = np.uint64(0x9E3779B97F4A7C15)


def look_alikes(evidence: Evidence) -> Iterator[Finding]:
    """Photos that look alike: across splits, or kept together."""
    if torn := evidence.look_alikes.across_splits:
        yield found(
            "look_alikes_across_splits",
            "error",
            sum(map(len, torn)),
            evidence.num_rows,
            unit="photos",
            examples=evidence.clusters(torn, evidence.log.split_codes),
            shows_photos=True,
            filling={"clusters": len(torn)},
        )
    if whole := evidence.look_alikes.in_one_split:
        yield found(
            "look_alikes",
            "info",
            sum(map(len, whole)),
            evidence.num_rows,
            unit="photos",
            examples=evidence.clusters(whole),
            shows_photos=True,
            filling={"clusters": len(whole)},
        )


def look_alikes_other_level(evidence: Evidence) -> Iterator[Finding]:
    """Photos that look alike and have different levels."""
    levels = evidence.log.levels
    if runs := evidence.look_alikes.of_several_levels:
        yield found(
            "look_alikes_other_level",
            "warning",
            _num_outvoted(runs, levels),
            evidence.num_rows,
            examples=evidence.clusters(runs, levels),
            shows_photos=True,
            filling={"clusters": len(runs)},
        )


def same_photo_other_report(evidence: Evidence) -> Iterator[Finding]:
    """Files that are the same byte for byte, with different texts."""
    if runs := mixed(evidence.log.photo_keys, evidence.log.texts_keys):
        yield found(
            "same_photo_other_report",
            "warning",
            sum(map(len, runs)),
            evidence.num_rows,
            examples=evidence.clusters(runs),
            shows_photos=True,
            filling={"photos": len(runs)},
        )


def identical_rows(evidence: Evidence) -> Iterator[Finding]:
    """Rows with the photo, the texts and the level of another one."""
    log = evidence.log
    if runs := repeated((log.texts_keys ^ (log.photo_keys * _SPREADS_BITS)) + log.levels.astype(np.uint64)):
        surplus = sum(len(run) - 1 for run in runs)
        severity: Severity = "warning" if surplus > MANY_REPEATED_ROWS * evidence.num_rows else "info"
        examples = evidence.clusters(runs, log.split_codes)
        yield found("identical_rows", severity, surplus, evidence.num_rows, examples=examples)


def texts_across_splits(evidence: Evidence) -> Iterator[Finding]:
    """Rows to judge by whose texts a model has learnt word for word."""
    log, train = evidence.log, evidence.settings.train_split
    learnt = log.split_codes == evidence.split_code(train)
    known = np.isin(log.texts_keys, np.unique(log.texts_keys[learnt])) & ~learnt
    if not evidence.settings.report_format.text_labels or not known.any():
        return
    to_judge_by = int((~learnt).sum())
    yield found(
        "texts_across_splits",
        "warning",
        int(known.sum()),
        to_judge_by,
        examples=evidence.clusters(_twins(log.texts_keys, known, learnt)),
        filling={"train": train, "parts": ", ".join(_shares_by_split(known, evidence))},
    )


def _twins(texts: Keys, known: NDArray[np.bool_], learnt: NDArray[np.bool_]) -> list[Indices]:
    """For the first texts that stand on both sides: the first row to judge by, with the first row to learn from."""
    firsts = np.unique(texts[known], return_index=True)[1]
    return [
        np.array([np.flatnonzero(learnt & (texts == texts[row]))[0], row])
        for row in np.flatnonzero(known)[np.sort(firsts)[:10]]
    ]


def _shares_by_split(known: NDArray[np.bool_], evidence: Evidence) -> Iterator[str]:
    for split, size in evidence.facts.rows.splits.items():
        if size and split != evidence.settings.train_split:
            number = int((known & (evidence.log.split_codes == evidence.split_code(split))).sum())
            yield f"{split} {number:,}/{size:,} ({number / size:.1%})"


def texts_other_level(evidence: Evidence) -> Iterator[Finding]:
    """The same texts with different levels."""
    log = evidence.log
    runs = mixed(log.texts_keys, log.levels) if evidence.settings.report_format.text_labels else []
    if runs:
        yield found(
            "texts_other_level",
            "warning",
            _num_outvoted(runs, log.levels),
            evidence.num_rows,
            examples=evidence.clusters(runs, log.levels),
            shows_photos=True,
            filling={"clusters": len(runs)},
        )


def _num_outvoted(runs: Sequence[Indices], values: NDArray[np.uint8]) -> int:
    """How many rows do not have the commonest value of their run: as many as would have to change to agree."""
    return sum(len(run) - int(np.bincount(values[run]).max()) for run in runs)


REPEAT_CHECKS = (
    look_alikes,
    look_alikes_other_level,
    same_photo_other_report,
    identical_rows,
    texts_across_splits,
    texts_other_level,
)
