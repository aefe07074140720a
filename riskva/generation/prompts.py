"""Rows as prompts: what each row's line says anyway, and its encoding, or why it has none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor
from torch.utils.data import Dataset

from riskva.columns import GROUP_COLUMN
from riskva.data.conversation import Conversation
from riskva.data.photo_inputs import Inputs
from riskva.encoding import Encoded, Processor, encode
from riskva.errors import DataError
from riskva.generation.answer import Answer
from riskva.generation.journal import Line
from riskva.report import ReportFormat

T = TypeVar("T")


@dataclass(frozen=True)
class Prompt(Generic[T]):
    """A row to answer; `encoded` is None where the line says that the row has failed."""

    line: Line
    encoded: T | None


@dataclass(frozen=True)
class PromptDataset(Dataset[Prompt[T]], Generic[T]):
    """Each row's prompt; a row that cannot be read or encoded becomes a line with `error`, never an exception."""

    rows: Inputs
    encode: Callable[[Conversation], T]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Prompt[T]:
        try:
            conversation = self.rows[index]
        except DataError as error:
            return Prompt(failed({"id": self.rows.id_of(index), "prompt": "", "label": ""}, str(error)), None)
        line = line_of(conversation)
        try:
            return Prompt(line, self.encode(conversation.prompt))
        except DataError as error:
            return Prompt(failed(line, str(error)), None)


@dataclass(frozen=True)
class PromptEncoder:
    """Encodes prompts for `ReportWriter`: with a key for each photo, and none longer than `cutoff_len` tokens."""

    processor: Processor
    cutoff_len: int

    def __call__(self, prompt: Conversation) -> Encoded:
        """Raises `DataError` naming the row when a photo cannot be used or the prompt is too long."""
        encoded = encode(prompt, self.processor, find_features=_key_alone)
        require_fitting(prompt, len(encoded.input_ids), self.cutoff_len)
        return encoded


def require_fitting(prompt: Conversation, num_tokens: int, cutoff_len: int) -> None:
    """Raise `DataError` naming the row when it is too long."""
    if num_tokens > cutoff_len:
        raise DataError(
            f"{prompt.where}: {num_tokens} tokens, over cutoff_len={cutoff_len}; raise cutoff_len or lower "
            "image_max_pixels"
        )


def _key_alone(photo: bytes, num_tokens: int) -> tuple[str, Tensor | None]:
    return f"{hashlib.sha256(photo).hexdigest()}-{num_tokens}", None


def line_of(conversation: Conversation) -> Line:
    """What is known of a row before it is answered."""
    names = [photo.name for photo in conversation.photos]
    return {
        "id": conversation.id,
        "image": names[0] if len(names) == 1 else names,
        "group": conversation.extra.get(GROUP_COLUMN),
        "prompt": conversation.prompt.messages[-1].content,
        "label": conversation.answer or "",
    }


def failed(line: Line, error: str) -> Line:
    """The line of a row that has no answer."""
    return line | {"predict": "", "level": None, "finish_reason": "error", "error": error}


def answered(line: Line, answer: Answer, report_format: ReportFormat) -> Line:
    """The line of a row with its answer. One that was cut off is no report and has no level, whatever it holds."""
    report = report_format.read_answer(answer.text).report if answer.finish_reason == "stop" else None
    return line | {
        "predict": answer.text,
        "level": report.level.label if report else None,
        "level_probabilities": list(answer.level_probabilities) if report and answer.level_probabilities else None,
        "finish_reason": answer.finish_reason,
    }
