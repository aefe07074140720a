"""Decisions that one process makes for all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch.distributed as dist
from accelerate.utils import broadcast_object_list

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
    broadcast_object_list(outcome)
    if isinstance(outcome[0], RiskvaError):
        outcome[0].is_told_elsewhere = dist.get_rank() != 0
        raise outcome[0]
    return outcome[0]  # type: ignore[return-value]


def decide_on_each_machine(decide: Callable[[], object]) -> None:
    """`decide()` as called on the first process of each machine; none goes on before all are done.

    The first `RiskvaError` among them reaches every process. Every process must call this.
    """
    error: RiskvaError | None = None
    if os.environ.get("LOCAL_RANK", "0") == "0":
        try:
            decide()
        except RiskvaError as caught:
            error = caught
    errors: list[RiskvaError | None] = [error]
    if dist.is_initialized():
        errors = [None] * dist.get_world_size()
        dist.all_gather_object(errors, error)
    if first := next((one for one in errors if one is not None), None):
        first.is_told_elsewhere = dist.is_initialized() and dist.get_rank() != 0
        raise first


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
    if not dist.is_initialized():
        return flag
    flags: list[bool] = [False] * dist.get_world_size()
    dist.all_gather_object(flags, flag)
    return any(flags)
