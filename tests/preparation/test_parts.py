from collections import Counter

import pytest

from riskva.errors import RecipeError
from riskva.parts import Part, choose_part
from riskva.tables.records import BadRow, name_of_row

SLURM = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "7", "SLURM_ARRAY_TASK_COUNT": "1"}


def row(number: int, sample_id: str) -> BadRow:
    return BadRow(number, "t.csv", number + 2, sample_id, "a.jpg", "image_missing", "gone")


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_row_is_in_one_part_and_parts_are_of_like_size(count: int) -> None:
    rows = [row(number, f"r{number}" if number % 3 else "") for number in range(7000)]
    holders = Counter(
        tuple(index for index in range(count) if Part(index, count).holds(name_of_row(one))) for one in rows
    )
    assert set(holders) == {(index,) for index in range(count)}
    assert max(holders.values()) < 1.1 * len(rows) / count


def test_the_part_of_a_row_follows_from_its_id_alone() -> None:
    part = Part(1, 3)
    assert part.holds(name_of_row(row(1, "r1"))) == part.holds(name_of_row(row(99, "r1")))


@pytest.mark.parametrize(
    ("shard", "environment", "part"),
    [
        ("0/1", {}, (0, 1)),
        ("3/8", {}, (3, 8)),
        ("3/8", SLURM, (3, 8)),
        ("auto/8", SLURM, (7, 8)),  # also when this one task of the array is submitted again
        ("auto/8", {"JOB_COMPLETION_INDEX": "7"}, (7, 8)),
    ],
)
def test_shard_and_scheduler_name_the_part(shard: str, environment: dict[str, str], part: tuple[int, int]) -> None:
    assert choose_part(shard, environment) == Part(*part)


@pytest.mark.parametrize(
    ("shard", "environment", "message"),
    [
        ("8/8", {}, "numbered 0 to 7"),
        ("auto/4", {}, "neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX"),
        ("auto/2", {"JOB_COMPLETION_INDEX": "2"}, "numbered 0 to 1"),
        ("auto/2", {"SLURM_ARRAY_TASK_ID": "x"}, "SLURM_ARRAY_TASK_ID is 'x', which numbers no part"),
    ],
)
def test_a_part_that_is_none_is_refused(shard: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        choose_part(shard, environment)
