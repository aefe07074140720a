"""Defect records: what a good row of a table says, what a bad one lacks, and how a good one becomes a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from riskva.data.conversation import IMAGE_PLACEHOLDER, Conversation, Message, Photo
from riskva.errors import RecipeError
from riskva.report import ReportFormat, RiskReport


@dataclass(frozen=True)
class DefectRecord:
    """A row that can be trained on.

    `line` is the physical line on which it starts, `photo_name` the image cell with forward slashes, `group` what
    `group_by` keeps in one split, and `cells` holds every cell of the row as the table has it.
    """

    id: str
    line: int
    photo: Path
    photo_name: str
    report: RiskReport
    cells: Mapping[str, str]
    group: str | None = None


@dataclass(frozen=True)
class BadRow:
    """A row that is kept out of the data set: its line, id and photo, a short code to count by, and what is wrong."""

    line: int
    id: str
    file: str
    reason: str
    message: str


@dataclass(frozen=True)
class Prompt:
    """What a model is told (nothing, if `system` is empty) and asked; `question` holds the one `<image>` mark."""

    system: str
    question: str


def make_prompt(system: str, question: str) -> Prompt:
    """The prompt of one photo: `<image>` is put before the question unless it already stands somewhere in it.

    Raises `RecipeError` when the texts hold more marks than that.
    """
    num_marks = question.count(IMAGE_PLACEHOLDER)
    if num_marks > 1 or IMAGE_PLACEHOLDER in system:
        raise RecipeError(
            f"question and system_prompt: one photo has one {IMAGE_PLACEHOLDER} mark, and only in the question"
        )
    return Prompt(system, question if num_marks else IMAGE_PLACEHOLDER + question)


def to_conversation(record: DefectRecord, photo: Photo, prompt: Prompt, report_format: ReportFormat) -> Conversation:
    """The record as system, question and answer, with `photo` for its picture; the table's cells travel as `extra`."""
    turns = (Message("user", prompt.question), Message("assistant", report_format.render(record.report)))
    system = (Message("system", prompt.system),) if prompt.system else ()
    return Conversation(record.id, system + turns, (photo,), extra=record.cells)
