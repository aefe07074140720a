"""A conversation: what one sample is, wherever it came from and wherever it goes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from riskva.errors import DataError

IMAGE_PLACEHOLDER = "<image>"

CONTROL_MARKS = re.compile(
    r"<\|[A-Za-z_]+\|>|[\x00-\x08\x0e-\x1b\x7f]|" + re.escape(IMAGE_PLACEHOLDER) + "|<video>|<audio>"
)
"""What a model would read as structure, not as text: the tokenizer's own marks, and the places of media."""

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn. `<image>` in `content` stands where the next of the conversation's images belongs."""

    role: Role
    content: str


@dataclass(frozen=True)
class Photo:
    """Where an image's bytes are: a file, or the bytes themselves with the name that messages call them by."""

    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)
    name: str = ""
    passed_over: tuple[Path, ...] = field(default=(), repr=False, compare=False)
    """Where `path` was looked for first, in vain: a file that turned up there would be the photo."""

    def __post_init__(self) -> None:
        if (self.path is None) == (self.data is None):
            raise DataError(f"photo {self.name!r}: give either a path or bytes")

    def read(self) -> bytes:
        """The encoded image (JPEG, PNG, …) as it lies on disk or in the row."""
        return self.data if self.data is not None else self.path.read_bytes()  # type: ignore[union-attr]


@dataclass(frozen=True)
class Conversation:
    """One sample: turns, the photos that their `<image>` marks stand for, and where the sample was read.

    `source` is `file:row` for error messages; `extra` holds columns that play no part in training.

    Raises `DataError`, naming the row, when the marks and the photos differ in number or roles are out of order.
    """

    id: str
    messages: tuple[Message, ...]
    photos: tuple[Photo, ...] = ()
    source: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num_marks = sum(message.content.count(IMAGE_PLACEHOLDER) for message in self.messages)
        if num_marks != len(self.photos):
            raise DataError(
                f"{self.where}: {num_marks} {IMAGE_PLACEHOLDER} mark(s) in the text, {len(self.photos)} image(s) given"
            )
        if any(IMAGE_PLACEHOLDER in message.content for message in self.messages if message.role == "assistant"):
            raise DataError(
                f"{self.where}: {IMAGE_PLACEHOLDER} in an assistant's turn; a model cannot answer with images"
            )
        roles = [message.role for message in self.messages]
        turns = roles[1:] if roles[:1] == ["system"] else roles
        expected = ["user", "assistant"] * ((len(turns) + 1) // 2)
        if not turns or turns != expected[: len(turns)]:
            raise DataError(
                f"{self.where}: roles must alternate user, assistant (after at most one system), found {roles}"
            )

    @property
    def where(self) -> str:
        """`file:row (id …)`: how messages name this sample."""
        return f"{self.source} (id {self.id})" if self.source else f"id {self.id}"

    @property
    def system(self) -> str | None:
        return self.messages[0].content if self.messages[0].role == "system" else None

    @property
    def answer(self) -> str | None:
        """The last assistant turn, or None when the conversation ends with a question."""
        return self.messages[-1].content if self.messages[-1].role == "assistant" else None

    @property
    def prompt(self) -> Conversation:
        """The same conversation without its last answer: what a model is asked."""
        if self.answer is None:
            return self
        return Conversation(self.id, self.messages[:-1], self.photos, self.source, self.extra)


class Conversations(Protocol):
    """Conversations by number, in memory or read from disk when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Conversation: ...
