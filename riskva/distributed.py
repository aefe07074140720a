"""Processes that work on one job: their group, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

from riskva.errors import RiskvaError

T = TypeVar("T")


def decide_once(decide: Callable[[], T]) -> T:
    """`decide()` as called on the main process alone; its value, or its `RiskvaError`, reaches every process."""
    if not dist.is_initialized():
        return decide()
    outcome: list[T | RiskvaError | None] = [None]
    if dist.get_rank() == 0:
        try:
            outcome = [decide()]
        except RiskvaError as error:
            outcome = [error]
    dist.broadcast_object_list(outcome)
    if isinstance(outcome[0], RiskvaError):
        outcome[0].is_told_elsewhere = dist.get_rank() != 0
        raise outcome[0]
    return outcome[0]  # type: ignore[return-value]


def decide_on_each_machine(decide: Callable[[], object]) -> None:
    """`decide()` as called on the first process of each machine; none goes on before all are done.

    The first `RiskvaError` among them reaches every process. Every process must call this.
    """
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    together(lambda: decide() if is_first else None)


def together(do: Callable[[], T]) -> T:
    """`do()` as called on every process; none goes on before all are done.

    The first `RiskvaError` among them reaches every process, and one tells it. Every process must call this.
    """
    done: list[T] = []
    error: RiskvaError | None = None
    try:
        done.append(do())
    except RiskvaError as caught:
        error = caught
    if first := next((one for one in gathered(error) if one is not None), None):
        first.is_told_elsewhere = rank() != 0
        raise first
    return done[0]


_DAYS_TO_WAIT = 30
"""One process may be done long before another, and nothing is wrong."""


def rank() -> int:
    """This process's number among those of the run, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def num_processes() -> int:
    """How many processes work on the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gathered(own: T) -> list[T]:
    """What all processes give, by rank; every process must call it."""
    if not dist.is_initialized():
        return [own]
    parts: list[T] = [own] * dist.get_world_size()
    dist.all_gather_object(parts, own)
    return parts


@contextmanager
def working_together() -> Iterator[None]:
    """Within, the processes that a launcher has started are a group, of the CPU's kind; one process alone is none."""
    with leaving_the_group():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
            dist.init_process_group("gloo", timeout=timedelta(days=_DAYS_TO_WAIT))
        yield


@contextmanager
def leaving_the_group() -> Iterator[None]:
    """Leave the process group at the end, however it comes: a process that just ends aborts the others."""
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def any_process(flag: bool) -> bool:
    """Whether `flag` is set on any process; every process must call it."""
    return any(gathered(flag))
