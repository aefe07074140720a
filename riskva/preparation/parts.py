"""Parts: the share of a table's rows that one process prepares, where several machines divide the work."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from riskva.errors import RecipeError
from riskva.tables.records import BadRow, GoodRow


@dataclass(frozen=True)
class Part:
    """Part `index` (from 0) of `count`; every row belongs to exactly one, whatever order the rows stand in."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise RecipeError(f"shard: {self.index}/{self.count}: the parts are numbered 0 to {self.count - 1}")

    @property
    def name(self) -> str:
        """What the part's folder is called."""
        return f"part-{self.index:05d}-of-{self.count:05d}"

    @property
    def is_all(self) -> bool:
        return self.count == 1

    def holds(self, row: GoodRow | BadRow) -> bool:
        """Whether the row is this part's to prepare: by a hash of its id, or of its place where it has none."""
        if self.is_all:
            return True
        key = row.id or f"{row.table}:{row.line}"
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index


def choose_part(shard: str | None, environment: Mapping[str, str]) -> Part:
    """The part that a recipe's `shard` names: `i/N`, `auto/N` or `auto`; of a SLURM array without it, the task's own.

    `auto` takes i from `SLURM_ARRAY_TASK_ID` or Kubernetes' `JOB_COMPLETION_INDEX`, N from `SLURM_ARRAY_TASK_COUNT`.
    Raises `RecipeError` where the environment does not say, and for an i that is not below N.
    """
    if shard is None:
        return _array_task(environment) if int(environment.get("SLURM_ARRAY_TASK_COUNT", "1")) > 1 else Part()
    index, _, count = shard.partition("/")
    if index != "auto":
        return Part(int(index), int(count))
    if not count:
        return _array_task(environment)
    return Part(_index(environment), int(count))


def _array_task(environment: Mapping[str, str]) -> Part:
    count = environment.get("SLURM_ARRAY_TASK_COUNT")
    if count is None:
        raise RecipeError("shard: auto: SLURM_ARRAY_TASK_COUNT is not set; say how many parts there are: shard=auto/8")
    return Part(_index(environment), int(count))


def _index(environment: Mapping[str, str]) -> int:
    if "SLURM_ARRAY_TASK_ID" in environment:
        first = int(environment.get("SLURM_ARRAY_TASK_MIN", "0"))
        return (int(environment["SLURM_ARRAY_TASK_ID"]) - first) // int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
    if "JOB_COMPLETION_INDEX" in environment:
        return int(environment["JOB_COMPLETION_INDEX"])
    raise RecipeError(
        "shard: auto: neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set; name the part: shard=0/8"
    )
