"""Parts: the share of the rows that one machine works on, where several divide the work."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from riskva.errors import RecipeError


@dataclass(frozen=True)
class Part:
    """Part `index` (from 0) of `count`; every row belongs to exactly one."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise RecipeError(f"shard: {self.index}/{self.count}: the parts are numbered 0 to {self.count - 1}")

    @classmethod
    def of_folder(cls, name: str) -> Part | None:
        """The part whose folder bears that name, if it is one."""
        found = re.fullmatch(r"part-(\d+)-of-(\d+)", name)
        return cls(int(found[1]), int(found[2])) if found else None

    @property
    def name(self) -> str:
        """What the part's folder is called."""
        return f"part-{self.index:05d}-of-{self.count:05d}"

    def holds(self, key: str) -> bool:
        """Whether the row of that name is this part's: by a hash, so that it stays there when others are added."""
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index

    def slice_of(self, num_rows: int) -> range:
        """This part's rows where parts are neighbouring rows, as many in each, give or take one."""
        return range(num_rows * self.index // self.count, num_rows * (self.index + 1) // self.count)


def choose_part(shard: str, environment: Mapping[str, str]) -> Part:
    """The part that a recipe's `shard` names: `i/N`, or `auto/N` with i from the scheduler.

    The scheduler says i in `SLURM_ARRAY_TASK_ID` or Kubernetes' `JOB_COMPLETION_INDEX`. N is never taken from it: of an
    array of which one task is submitted again, it would say 1. Raises `RecipeError` where the environment says no i,
    and for an i that is not below N.
    """
    index, _, count = shard.partition("/")
    return Part(int(index) if index != "auto" else _index(environment), int(count))


def _index(environment: Mapping[str, str]) -> int:
    for name in ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"):
        if name in environment:
            if not re.fullmatch("[0-9]{1,9}", environment[name]):
                raise RecipeError(f"shard: auto: {name} is {environment[name]!r}, which numbers no part")
            return int(environment[name])
    raise RecipeError(
        "shard: auto: neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set; name the part: shard=0/8"
    )
