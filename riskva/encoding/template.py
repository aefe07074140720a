"""The chat format that Qwen2.5-VL was trained on (ChatML), as pieces of text that know whether they are learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from riskva.data.conversation import IMAGE_PLACEHOLDER, Conversation, Message
from riskva.encoding.processor import IMAGE_TOKEN, VISION_END, VISION_START

DEFAULT_SYSTEM = "You are a helpful assistant."

ANSWER_START = "<|im_start|>assistant\n"
TURN_END = "<|im_end|>\n"


@dataclass(frozen=True)
class Piece:
    """A stretch of text that is tokenized on its own; `supervised` when the loss counts its tokens."""

    text: str
    supervised: bool


def render(conversation: Conversation) -> list[Piece]:
    """The conversation as pieces; one that ends with a question ends where the answer would begin.

    A learned piece is an answer with its `<|im_end|>` and line break. Answers are tokenized apart from what precedes
    them, exactly as a model meets them when it generates, so a prompt's ids are always a prefix of the training ids.
    """
    pieces: list[Piece] = []
    unlearned = ""
    for message in _with_system(conversation):
        if message.role == "assistant":
            pieces += [Piece(unlearned + ANSWER_START, False), Piece(message.content + TURN_END, True)]
            unlearned = ""
        else:
            unlearned += f"<|im_start|>{message.role}\n{_with_images(message.content)}{TURN_END}"
    if unlearned:
        pieces.append(Piece(unlearned + ANSWER_START, False))
    return pieces


def _with_system(conversation: Conversation) -> Iterator[Message]:
    if conversation.system is None:
        yield Message("system", DEFAULT_SYSTEM)
    yield from conversation.messages


def _with_images(content: str) -> str:
    return content.replace(IMAGE_PLACEHOLDER, VISION_START + IMAGE_TOKEN + VISION_END)
