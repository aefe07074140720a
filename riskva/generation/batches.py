"""Which rows are answered together, and what is done when they do not fit into memory together."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from riskva.console import warn
from riskva.data.photo_inputs import Inputs
from riskva.encoding import Processor
from riskva.encoding.encode import measure
from riskva.errors import DataError
from riskva.generation.answer import Answer

T = TypeVar("T")

NO_MEMORY_TEXTS = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
"""What torch, CUDA and its libraries say in a plain RuntimeError."""

BATCHES_AT_ONCE = 32
"""Rows are sorted by length within so many batches of neighbours: few enough to be read from one place on disk."""


class LengthBuckets:
    """Batches of `batch_size` rows that are about as long as each other, as numbers of rows, but for those all done.

    Rows are together with the same others whatever is done already: an answer's last digits, and where two tokens are
    next to equal its text, depend on them, so that only thus a run that was interrupted ends as any other.

    Prompts are padded to the longest of a batch. Only as many rows as are sorted together are measured ahead, from
    their photos' headers; a row that cannot be measured counts as empty, and fails when it is read.
    """

    def __init__(
        self,
        rows: Inputs,
        own: Sequence[int],
        batch_size: int,
        processor: Processor,
        done: frozenset[int] = frozenset(),
    ) -> None:
        self._rows = rows
        self._own = own
        self._batch_size = batch_size
        self._processor = processor
        self._done = done
        self._questions: dict[str, int] = {}

    def __iter__(self) -> Iterator[list[int]]:
        num_sorted = self._batch_size * BATCHES_AT_ONCE
        for first in range(0, len(self._own), num_sorted):
            rows = self._own[first : first + num_sorted]
            if not self._done.issuperset(rows):
                yield from (batch for batch in self._sorted(rows) if not self._done.issuperset(batch))

    def _sorted(self, rows: Sequence[int]) -> Iterator[list[int]]:
        """The longest first: what does not fit into memory shows at once."""
        longest_first = sorted(rows, key=self._length, reverse=True)
        return (longest_first[at : at + self._batch_size] for at in range(0, len(rows), self._batch_size))

    def _length(self, row: int) -> int:
        try:
            return measure(self._rows[row].prompt, self._processor, self._questions).total
        except DataError:
            return 0


def answer_in_memory(
    prompts: Sequence[T], answer: Callable[[Sequence[T]], list[Answer]]
) -> list[Answer | torch.OutOfMemoryError]:
    """One answer a prompt, in order; where memory does not suffice for all, of halves, and of halves of these.

    A prompt that does not fit alone gets the error in place of an answer.
    """
    try:
        return [*answer(prompts)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        told = str(error).splitlines()[0] if str(error) else "no more memory"
    # Outside the except block: the exception holds every tensor of the attempt
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.memory.empty_cache()
    if len(prompts) == 1:
        return [torch.OutOfMemoryError(told)]
    half = len(prompts) // 2
    warn(f"out of memory with {len(prompts)} rows together: they are answered {len(prompts) - half} at a time")
    return answer_in_memory(prompts[:half], answer) + answer_in_memory(prompts[half:], answer)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the accelerator or the machine had no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        text in str(error) for text in NO_MEMORY_TEXTS
    )
