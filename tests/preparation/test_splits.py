import random
from collections import Counter

import pytest

from riskva.errors import RecipeError
from riskva.preparation.splits import assign_splits

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def skewed(*counts: int) -> list[int]:
    return [level for level, count in enumerate(counts) for _ in range(count)]


@pytest.mark.parametrize("counts", [(800, 100, 100), (239, 9, 0), (33, 22, 11), (10, 10, 10)])
def test_every_level_has_its_share_of_every_split(counts: tuple[int, ...]) -> None:
    levels = skewed(*counts)
    splits = assign_splits(levels, SHARES, seed=1)
    found = Counter(zip(levels, splits, strict=True))
    for level, count in enumerate(counts):
        for split, share in SHARES.items():
            assert abs(found[level, split] - share * count) < 1


def test_shares_that_come_out_even_are_met_exactly() -> None:
    assert Counter(assign_splits(skewed(700, 200, 100), SHARES, seed=3)) == {"train": 800, "val": 100, "test": 100}
    assert Counter(assign_splits([0] * 100, {"a": 0.29, "b": 0.71}, seed=3)) == {"a": 29, "b": 71}
    assert Counter(assign_splits([0] * 10, {"a": 0.7, "b": 0.3}, seed=3)) == {"a": 7, "b": 3}


def test_rounding_in_every_level_does_not_starve_a_split() -> None:
    """33 levels of 3 rows: each level by itself would give all that is left over to the same split."""
    totals = Counter(assign_splits([level for level in range(33) for _ in range(3)], SHARES, seed=0))
    assert all(abs(totals[split] - 99 * share) <= 2 for split, share in SHARES.items())


def test_the_seed_decides_and_nothing_else() -> None:
    levels = skewed(50, 30, 20)
    assert assign_splits(levels, SHARES, seed=5) == assign_splits(levels, SHARES, seed=5)
    assert assign_splits(levels, SHARES, seed=5) != assign_splits(levels, SHARES, seed=6)


@pytest.mark.parametrize("count", range(1, 12))
def test_small_data_sets_leave_no_split_empty_if_they_can_help_it(count: int) -> None:
    splits = assign_splits([0] * count, SHARES, seed=0)
    assert len(set(splits)) == min(count, len(SHARES))


def test_a_share_of_nothing_gets_nothing() -> None:
    assert set(assign_splits([0] * 20, {"train": 1.0, "val": 0.0}, seed=0)) == {"train"}


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_levels_in_proportion(seed: int) -> None:
    rng = random.Random(seed)
    groups = [f"house {rng.randrange(40)}" for _ in range(600)]
    levels = [rng.choices([0, 1, 2], [8, 3, 1])[0] for _ in groups]
    splits = assign_splits(levels, SHARES, seed, groups)
    homes: dict[str, set[str]] = {}
    for group, split in zip(groups, splits, strict=True):
        homes.setdefault(group, set()).add(split)
    assert all(len(home) == 1 for home in homes.values())
    totals, found = Counter(levels), Counter(zip(levels, splits, strict=True))
    for level, total in totals.items():
        for split, share in SHARES.items():
            # Groups hold 15 rows each, so no rule can do better than about half a group.
            assert abs(found[level, split] - share * total) <= 15


def test_few_groups_reach_every_split() -> None:
    groups = ["a"] * 50 + ["b"] * 5 + ["c"] * 2
    splits = assign_splits([0] * 57, SHARES, 0, groups)
    assert set(splits) == set(SHARES)
    assert splits[0] == "train"


def test_one_group_cannot_be_in_two_splits() -> None:
    assert assign_splits([0, 1, 2], SHARES, 0, ["a"] * 3) == ["train"] * 3


@pytest.mark.parametrize("shares", [{"train": 0.8}, {"train": 0.8, "val": 0.8}, {"train": 1.5, "val": -0.5}])
def test_shares_must_add_up(shares: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="must add up to 1"):
        assign_splits([0], shares, 0)
