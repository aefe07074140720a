"""What a photo is asked that brings no question of its own: the system message and the question, and their rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from riskva.data.conversation import CONTROL_MARKS, IMAGE_PLACEHOLDER, Conversation, Message, Photo
from riskva.errors import RecipeError


@dataclass(frozen=True)
class Asking:
    """What every photo is asked (`question`, with its one `<image>` mark) and told before it (None: nothing)."""

    question: str
    system_prompt: str | None = None

    def conversation(
        self, photo: Photo, sample_id: str, source: str = "", extra: Mapping[str, str] | None = None
    ) -> Conversation:
        """The prompt of one photo, as `Conversation` has it: a system turn, if there is one, and the question."""
        system = (Message("system", self.system_prompt),) if self.system_prompt else ()
        return Conversation(sample_id, (*system, Message("user", self.question)), (photo,), source, extra or {})


def make_asking(system_prompt: str, question: str) -> Asking:
    """The prompt of one photo: `<image>` is put before the question unless it already stands somewhere in it.

    An empty `system_prompt` is none. Raises `RecipeError` when the texts hold more marks than one, or text that a
    model reads as structure.
    """
    if mark := CONTROL_MARKS.search(system_prompt + question.replace(IMAGE_PLACEHOLDER, "")):
        raise RecipeError(
            f"question and system_prompt: {mark.group()!r} is read by a model as structure, not as text; remove it"
        )
    num_marks = question.count(IMAGE_PLACEHOLDER)
    if num_marks > 1 or IMAGE_PLACEHOLDER in system_prompt:
        raise RecipeError(
            f"question and system_prompt: one photo has one {IMAGE_PLACEHOLDER} mark, and only in the question"
        )
    return Asking(question if num_marks else IMAGE_PLACEHOLDER + question, system_prompt or None)
