"""The same work for many numbers, over several processes, in order and with a progress bar."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from riskva.console import progress

R = TypeVar("R")


def for_each_number(function: Callable[[int], R], count: int, workers: int, name: str) -> list[R]:
    """`function(0)` to `function(count - 1)`, by `workers` processes; it must be picklable. `name` labels the bar."""
    if workers == 1:
        return list(progress(map(function, range(count)), count, name))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(progress(pool.map(function, range(count), chunksize=16), count, name))
