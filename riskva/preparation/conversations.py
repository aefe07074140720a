"""Rows as conversations: what a model is told and asked, and the report that it should answer with."""

from __future__ import annotations

from dataclasses import dataclass

from riskva.columns import GROUP_COLUMN
from riskva.data.asking import make_asking
from riskva.data.conversation import Conversation, Message, Photo
from riskva.report import ReportFormat
from riskva.tables.records import GoodRow


@dataclass(frozen=True)
class Prompt:
    """What a model is told (nothing, if `system` is empty) and asked; `question` holds the one `<image>` mark."""

    system: str
    question: str


def make_prompt(system: str, question: str) -> Prompt:
    """The prompt of one photo: `<image>` is put before the question unless it already stands somewhere in it.

    Raises `RecipeError` when the texts hold more marks than that.
    """
    return Prompt(system, make_asking(system, question).question)


def to_conversation(
    record: GoodRow, photo: Photo, prompt: Prompt, report_format: ReportFormat, group: str | None = None
) -> Conversation:
    """The record as system, question and answer, with `photo` for its picture.

    The table's cells travel as `extra`, and with them `group`, the opaque name of what the row belongs to, if it has
    one, under `GROUP_COLUMN`.
    """
    turns = (Message("user", prompt.question), Message("assistant", report_format.render(record.report)))
    system = (Message("system", prompt.system),) if prompt.system else ()
    extra = record.cells if group is None else {**record.cells, GROUP_COLUMN: group}
    return Conversation(record.id, system + turns, (photo,), extra=extra)
