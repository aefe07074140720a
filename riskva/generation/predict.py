"""A data set's rows become `generated_predictions.jsonl`, one line a row, resumable and in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from riskva.columns import GROUP_COLUMN
from riskva.console import note, progress
from riskva.data.conversation import Conversation
from riskva.data.datasets import ConversationDataset
from riskva.data.grey_photos import GreyPhotos
from riskva.encoding import Encoded, Processor, encode
from riskva.errors import DataError, OutputFolderError
from riskva.generation.answer import Answer
from riskva.report import ReportFormat

PARTIAL_SUFFIX = ".partial"

Line = dict[str, Any]


@dataclass(frozen=True)
class Prompt:
    """A row to answer: what its output line says anyway, and its encoding, or why it has none."""

    line: Line
    encoded: Encoded | None


@dataclass(frozen=True)
class PromptDataset(Dataset[Prompt]):
    """Each row's prompt; a row that cannot be read or encoded becomes a line with `error`, never an exception."""

    conversations: ConversationDataset | GreyPhotos
    processor: Processor
    cutoff_len: int

    def __len__(self) -> int:
        return len(self.conversations)

    def __getitem__(self, index: int) -> Prompt:
        try:
            conversation = self.conversations[index]
        except DataError as error:
            return _failed({"id": self.conversations.id_of(index), "prompt": "", "label": ""}, error)
        try:
            return Prompt(_known(conversation), self._encode(conversation.prompt))
        except DataError as error:
            return _failed(_known(conversation), error)

    def _encode(self, prompt: Conversation) -> Encoded:
        encoded = encode(prompt, self.processor)
        if len(encoded.input_ids) > self.cutoff_len:
            raise DataError(
                f"{prompt.where}: {len(encoded.input_ids)} tokens, over cutoff_len={self.cutoff_len}; "
                "raise cutoff_len or lower image_max_pixels"
            )
        return encoded


def _failed(line: Line, error: DataError) -> Prompt:
    return Prompt(line | {"predict": "", "level": None, "finish_reason": "error", "error": str(error)}, None)


def _known(conversation: Conversation) -> Line:
    names = [photo.name for photo in conversation.photos]
    return {
        "id": conversation.id,
        "image": names[0] if len(names) == 1 else names,
        "group": conversation.extra.get(GROUP_COLUMN),
        "prompt": conversation.prompt.messages[-1].content,
        "label": conversation.answer or "",
    }


def predict(
    dataset: PromptDataset,
    answer: Callable[[Sequence[Encoded]], list[Answer]],
    report_format: ReportFormat,
    path: Path,
    *,
    batch_size: int,
    num_workers: int,
) -> None:
    """Write every row's line into `path`, going on where an interrupted run of the same recipe stopped.

    The file takes that name only when it is complete.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    done = _whole_lines(partial)
    if done:
        check_ids(partial, dataset.conversations.ids[:done])
        note(f"going on after {done} rows that an earlier run finished")
    rest = range(done, len(dataset))
    loader = DataLoader(dataset, sampler=rest, batch_size=batch_size, num_workers=num_workers, collate_fn=list[Prompt])
    with partial.open("a", encoding="utf-8") as stream:
        for line in progress(_lines(loader, answer, report_format), len(rest), "answers"):
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            stream.flush()
    partial.replace(path)


def check_ids(path: Path, expected: Sequence[str]) -> None:
    """Raise `OutputFolderError` unless the file's lines are of the rows with these ids: the data may have changed."""
    with path.open(encoding="utf-8") as stream:
        ids = [json.loads(line)["id"] for line in stream]
    if ids != list(expected):
        raise OutputFolderError(
            f"{path} answers other rows than the data set now has, or in another order; delete it or "
            "name another folder"
        )


def _whole_lines(partial: Path) -> int:
    """Lines that an earlier run wrote to their end; a torn last line is cut off."""
    if not partial.is_file():
        return 0
    written = partial.read_bytes()
    whole = written[: written.rfind(b"\n") + 1]
    if len(whole) < len(written):
        partial.write_bytes(whole)
    return whole.count(b"\n")


def _lines(
    batches: Iterable[list[Prompt]], answer: Callable[[Sequence[Encoded]], list[Answer]], report_format: ReportFormat
) -> Iterator[Line]:
    for prompts in batches:
        encoded = [prompt.encoded for prompt in prompts if prompt.encoded is not None]
        answers = iter(answer(encoded) if encoded else [])
        for prompt in prompts:
            yield prompt.line if prompt.encoded is None else prompt.line | _result(next(answers), report_format)


def _result(answer: Answer, report_format: ReportFormat) -> Line:
    report = report_format.read_answer(answer.text).report
    return {
        "predict": answer.text,
        "level": report.level.label if report else None,
        "level_probability": None,
        "finish_reason": answer.finish_reason,
    }
