"""Checks of what there is enough of: rows, levels, splits and groups."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from statistics import NormalDist

import numpy as np

from riskva.audit.findings import Evidence, Finding, Severity, found
from riskva.audit.rows import NO_GROUP, mixed
from riskva.audit.tally import MOST_EXAMPLES
from riskva.audit.words import REASONS
from riskva.report import LEVEL_LABELS

FEW_ROWS_OF_LEVEL = 50
FEW_ROWS_TO_LEARN_FROM, FEW_ROWS_TO_JUDGE_BY = 100, 30
LARGE_GROUP = 1 / 3
HIGH_FLOOR, VERY_HIGH_FLOOR = 0.8, 0.9
MANY_BAD_ROWS = 0.01
ASSUMED_RECALL = 0.8
_NORMAL_QUANTILE = NormalDist().inv_cdf(0.975)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share, given as `successes` of `trials` (at least one).

    Written out, because importing scipy's would take longer than the rest of a small audit.
    """
    share, spread = successes / trials, _NORMAL_QUANTILE**2 / trials
    middle = share + spread / 2
    reach = math.sqrt(share * (1 - share) * spread + spread**2 / 4)
    return max(0.0, (middle - reach) / (1 + spread)), min(1.0, (middle + reach) / (1 + spread))


def quarantined_rows(evidence: Evidence) -> Iterator[Finding]:
    """Rows that were kept out, and why."""
    rows = evidence.facts.rows
    if not rows.num_quarantined:
        return
    share = rows.num_quarantined / rows.num_in
    examples = [one for reason in rows.reasons for one in evidence.tally.bad_examples[reason]][:MOST_EXAMPLES]
    yield found(
        "quarantined_rows",
        "warning" if share > MANY_BAD_ROWS else "info",
        rows.num_quarantined,
        rows.num_in,
        examples=examples,
        filling={
            "reasons": ", ".join(f"{reason} {count:,}" for reason, count in rows.reasons.items()),
            "reasons_zh": "、".join(f"{REASONS.get(code, code)} {count:,}" for code, count in rows.reasons.items()),
        },
    )


def levels_in_training(evidence: Evidence) -> Iterator[Finding]:
    """Levels that a model cannot learn, and one that drowns the others."""
    train = evidence.settings.train_split
    counts, floor = evidence.facts.levels.splits[train], evidence.facts.levels.floors.get(train)
    if floor is None:
        return
    if absent := [label for label in LEVEL_LABELS if not counts[label]]:
        what = {"split": train, "levels": "、".join(absent)}
        yield found("level_absent_from_train", "error", len(absent), len(LEVEL_LABELS), unit="levels", filling=what)
    # A handful of rows is a small split, which is said elsewhere, before it is an uneven one.
    if floor.accuracy >= HIGH_FLOOR and sum(counts.values()) >= FEW_ROWS_TO_JUDGE_BY:
        severity: Severity = "warning" if floor.accuracy >= VERY_HIGH_FLOOR else "info"
        what = {"split": train, "level": floor.level}
        yield found("majority_dominates", severity, counts[floor.level], sum(counts.values()), filling=what)


def levels_in_test(evidence: Evidence) -> Iterator[Finding]:
    """Levels that cannot be measured: absent from the test although a model learns them, or too rare in it."""
    test, levels = evidence.settings.test_split, evidence.facts.levels
    if test is None or test not in levels.floors:
        return
    counts, learnt = levels.splits[test], levels.splits[evidence.settings.train_split]
    if absent := [label for label in LEVEL_LABELS if learnt[label] and not counts[label]]:
        what = {"split": test, "levels": "、".join(absent)}
        yield found("level_absent_from_test", "warning", len(absent), len(LEVEL_LABELS), unit="levels", filling=what)
    if few := {label: counts[label] for label in LEVEL_LABELS if 0 < counts[label] < FEW_ROWS_OF_LEVEL}:
        yield found(
            "few_test_rows_of_level",
            "warning",
            len(few),
            len(LEVEL_LABELS),
            unit="levels",
            filling={
                "sentences": "; ".join(_interval_sentence(label, count, test) for label, count in few.items()),
                "sentences_zh": "；".join(_interval_sentence_zh(label, count, test) for label, count in few.items()),
            },
        )


def _interval_sentence(label: str, count: int, split: str) -> str:
    hits = round(ASSUMED_RECALL * count)
    low, high = wilson_interval(hits, count)
    return (
        f"with {count} row{'s' * (count > 1)} of {label} in {split}, a measured recall of {hits / count:.2f} "
        f"({hits} of {count}) may lie anywhere between {low:.2f} and {high:.2f}"
    )


def _interval_sentence_zh(label: str, count: int, split: str) -> str:
    hits = round(ASSUMED_RECALL * count)
    low, high = wilson_interval(hits, count)
    return (
        f"{split} 中“{label}”只有 {count} 行：测得召回率 {hits / count:.2f}（{hits}/{count}）时，"
        f"真实值可能在 {low:.2f} 到 {high:.2f} 之间"
    )


def splits(evidence: Evidence) -> Iterator[Finding]:
    """Splits that are empty, small or of a single level, and whether there is one to test on."""
    sizes, total = evidence.facts.rows.splits, len(evidence.settings.splits)
    if evidence.settings.test_split is None:
        yield found("no_test_split", "info", evidence.num_rows, evidence.num_rows)
    if empty := [split for split, size in sizes.items() if not size]:
        severity: Severity = "error" if evidence.settings.train_split in empty else "warning"
        yield found(
            "split_without_rows", severity, len(empty), total, unit="splits", filling={"parts": ", ".join(empty)}
        )
    if small := {split: size for split, size in sizes.items() if 0 < size < _fewest(split, evidence)}:
        yield found(
            "few_rows_in_split",
            "warning",
            len(small),
            total,
            unit="splits",
            filling={
                "parts": ", ".join(f"{split} has {size} row{'s' * (size > 1)}" for split, size in small.items()),
                "parts_zh": "，".join(f"{split} 只有 {size} 行" for split, size in small.items()),
            },
        )
    if single := _of_one_level(evidence):
        parts = ", ".join(f"{split} ({level})" for split, level in single.items())
        yield found("single_level_split", "warning", len(single), total, unit="splits", filling={"parts": parts})


def _fewest(split: str, evidence: Evidence) -> int:
    return FEW_ROWS_TO_LEARN_FROM if split == evidence.settings.train_split else FEW_ROWS_TO_JUDGE_BY


def _of_one_level(evidence: Evidence) -> Mapping[str, str]:
    """Splits to judge by whose rows all have one level; for training the absent levels are an error already."""
    floors = evidence.facts.levels.floors.items()
    train = evidence.settings.train_split
    return {split: floor.level for split, floor in floors if floor.accuracy == 1 and split != train}


def groups(evidence: Evidence) -> Iterator[Finding]:
    """Groups that leak, that are too large to be shared out, or that rows lack."""
    facts, log = evidence.facts.groups, evidence.log
    if facts is None:
        return
    name, size = next(iter(facts.largest.items()))
    if size > LARGE_GROUP * evidence.num_rows and facts.num_groups + facts.num_without > 1:
        yield found("group_dominates", "warning", size, evidence.num_rows, filling={"group": name})
    if facts.num_without:
        lacking = np.flatnonzero(log.group_keys == NO_GROUP)
        examples = evidence.rows(lacking)
        yield found("rows_without_group", "warning", len(lacking), evidence.num_rows, examples=examples)
    grouped = np.flatnonzero(log.group_keys != NO_GROUP)
    if torn := [grouped[run] for run in mixed(log.group_keys[grouped], log.split_codes[grouped])]:
        named = ", ".join(log.group(int(run[0])) for run in torn[:3]) + ", …" * (len(torn) > 3)
        yield found(
            "group_across_splits",
            "error",
            len(torn),
            facts.num_groups,
            unit="groups",
            examples=evidence.clusters(torn, log.split_codes),
            filling={"parts": named},
        )


BALANCE_CHECKS = (quarantined_rows, levels_in_training, levels_in_test, splits, groups)
