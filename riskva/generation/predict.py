"""Rows become lines of a journal, batch by batch; photos are read while the model works."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from multiprocessing import AuthenticationError
from types import TracebackType
from typing import TypeVar

import torch
from torch.utils.data import DataLoader

from riskva.console import progress
from riskva.data.conversation import Conversation
from riskva.distributed import num_processes, rank
from riskva.errors import ModelError
from riskva.generation.answer import Answer
from riskva.generation.batches import answer_in_memory
from riskva.generation.engines import Engine
from riskva.generation.journal import Journal, Line
from riskva.generation.prompts import Prompt, PromptDataset, answered, failed, line_of
from riskva.report import ReportFormat

T = TypeVar("T")

NO_MEMORY = (
    "no memory for this row even alone ({}); lower image_max_pixels or max_new_tokens, or free memory on the device"
)


def predict(
    dataset: PromptDataset[T],
    batches: Iterable[list[int]],
    answer: Callable[[Sequence[T]], list[Answer]],
    report_format: ReportFormat,
    journal: Journal,
    *,
    done: AbstractSet[str],
    num_rows: int,
    num_workers: int,
) -> None:
    """Answer the rows of all `batches` and append their lines to the journal, `num_rows` besides those that are `done`.

    `done` are the ids of rows with a line; some of a batch are when a run was killed as it wrote.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=list[Prompt[T]],
        worker_init_fn=_quiet_when_nobody_waits,
    )
    what = "answers" if num_processes() == 1 else f"answers (on each of {num_processes()} processes)"
    with journal.appending(rank()) as append:

        def written() -> Iterator[Line]:
            for prompts in loader:
                lines = [one for one in lines_of(prompts, answer, report_format) if one["id"] not in done]
                append(lines)
                yield from lines

        for _ in progress(written(), num_rows, what):
            pass


def _quiet_when_nobody_waits(_: int) -> None:
    """In a reader of photos: the thread that hands photos over says nothing where the run has ended meanwhile.

    Faults of the reading itself go to the run by another way.
    """
    usual = sys.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, ConnectionError | EOFError | AuthenticationError):
            usual(kind, error, trace)

    sys.excepthook = tell


def answer_row(row: Conversation, engine: Engine, report_format: ReportFormat) -> Line:
    """One row's line. Raises `DataError` where the row cannot be read and `ModelError` where memory is short."""
    (line,) = lines_of([Prompt(line_of(row), engine.encode(row.prompt))], engine.answer, report_format)
    if line.get("error") is not None:
        raise ModelError(line["error"])
    return line


def lines_of(
    prompts: Sequence[Prompt[T]], answer: Callable[[Sequence[T]], list[Answer]], report_format: ReportFormat
) -> list[Line]:
    """The prompts' lines, in order."""
    encoded = [prompt.encoded for prompt in prompts if prompt.encoded is not None]
    answers = iter(answer_in_memory(encoded, answer) if encoded else ())
    return [
        prompt.line if prompt.encoded is None else _line(prompt.line, next(answers), report_format)
        for prompt in prompts
    ]


def _line(line: Line, outcome: Answer | torch.OutOfMemoryError, report_format: ReportFormat) -> Line:
    if isinstance(outcome, Answer):
        return answered(line, outcome, report_format)
    return failed(line, f"id {line['id']}: {NO_MEMORY.format(outcome)}")
