"""Which row goes to which split: by shares and seed, alike in every level of risk, and no group in two splits.

Rows without groups. In each level the rows are shuffled, and each split gets its share of them, rounded down; the rows
left over go, one each, to the splits with the largest remainders, what they lack from the levels before included.
Groups. They are taken from the largest to the smallest, equal ones in shuffled order, and each goes to the split whose
numbers per level it brings closest to the wanted ones (least sum of squared differences).
Small data sets. A split with a share but without rows then takes one row, or the smallest group, from the split
that has the most, as long as that one keeps something.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from riskva.errors import RecipeError


def assign_splits(
    levels: Sequence[int], shares: Mapping[str, float], seed: int, groups: Sequence[Hashable] | None = None
) -> list[str]:
    """The split of each row, given each row's level and, if rows belong together, its group.

    The same arguments always give the same answer. Raises `RecipeError` unless the shares are positive in sum 1.
    """
    wanted = {name: share for name, share in shares.items() if share > 0}
    if abs(sum(shares.values()) - 1) > 1e-6 or any(share < 0 for share in shares.values()):
        given = ", ".join(f"{name}: {share:g}" for name, share in shares.items())
        raise RecipeError(f"split: the shares must add up to 1, these add up to {sum(shares.values()):g}: {given}")
    rng = random.Random(seed)
    # Without groups every row is a group of its own, so the last step is the same for both.
    units = [[row] for row in range(len(levels))] if groups is None else _units(groups)
    by_unit = _by_level(levels, wanted, rng) if groups is None else _by_group(units, levels, wanted, rng)
    _fill_empty(by_unit, units, list(wanted))
    assigned = [""] * len(levels)
    for unit, split in zip(units, by_unit, strict=True):
        for row in unit:
            assigned[row] = split
    return assigned


def _by_level(levels: Sequence[int], shares: Mapping[str, float], rng: random.Random) -> list[str]:
    assigned = [""] * len(levels)
    behind = dict.fromkeys(shares, 0.0)
    for level in sorted(set(levels)):
        rows = [row for row, one in enumerate(levels) if one == level]
        rng.shuffle(rows)
        counts = _rounded(len(rows), shares, behind)
        behind = {split: behind[split] + shares[split] * len(rows) - counts[split] for split in shares}
        for split, number in counts.items():
            for _ in range(number):
                assigned[rows.pop()] = split
    return assigned


def _rounded(number: int, shares: Mapping[str, float], behind: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers in proportion to `shares` that add up to `number`, by largest remainder plus what is `behind`."""
    # The tiny amount keeps 0.7 * 10 = 7.000000000000001 and 0.29 * 100 = 28.999999999999996 on the right side.
    exact = {split: share * number for split, share in shares.items()}
    counts = {split: int(value + 1e-9) for split, value in exact.items()}
    order = sorted(exact, key=lambda split: round(exact[split] - counts[split] + behind[split], 9), reverse=True)
    for split in order[: number - sum(counts.values())]:
        counts[split] += 1
    return counts


def _units(groups: Sequence[Hashable]) -> list[list[int]]:
    units: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        units.setdefault(group, []).append(row)
    return list(units.values())


def _by_group(
    units: Sequence[Sequence[int]], levels: Sequence[int], shares: Mapping[str, float], rng: random.Random
) -> list[str]:
    totals = Counter(levels)
    lacking = {split: {level: share * totals[level] for level in totals} for split, share in shares.items()}
    order = list(range(len(units)))
    rng.shuffle(order)
    order.sort(key=lambda unit: -len(units[unit]))
    assigned = [""] * len(units)
    for unit in order:
        counts = Counter(levels[row] for row in units[unit])
        split = min(shares, key=lambda one: _cost(counts, lacking[one]))
        assigned[unit] = split
        for level, number in counts.items():
            lacking[split][level] -= number
    return assigned


def _cost(counts: Mapping[int, int], lacking: Mapping[int, float]) -> float:
    """By how much the sum of squared differences from the wanted numbers changes when `counts` rows are added."""
    return sum((lacking[level] - number) ** 2 - lacking[level] ** 2 for level, number in counts.items())


def _fill_empty(assigned: list[str], units: Sequence[Sequence[int]], splits: Sequence[str]) -> None:
    for empty in [split for split in splits if split not in assigned]:
        sizes = Counter[str]()
        for unit, split in enumerate(assigned):
            sizes[split] += len(units[unit])
        # A split that holds a single unit has nothing to give away.
        givers = [split for split in splits if assigned.count(split) > 1]
        if not givers:
            return
        giver = max(givers, key=lambda split: sizes[split])
        units_of_giver = [unit for unit, split in enumerate(assigned) if split == giver]
        assigned[min(units_of_giver, key=lambda unit: len(units[unit]))] = empty
