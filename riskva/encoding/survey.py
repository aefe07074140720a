"""A first pass over a data set: how long every row is and how it is asked, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from riskva.console import progress, warn
from riskva.data.conversation import Conversation, Conversations
from riskva.data.parallel import ordered_map
from riskva.data.stamps import Stamped, stamped
from riskva.encoding.encode import Length, check_texts, measure
from riskva.encoding.lengths import Lengths
from riskva.encoding.processor import Processor
from riskva.errors import DataError

MOST_EXAMPLES = 10


@dataclass(frozen=True)
class Asked:
    """All the ways in which rows are asked; `questions` are first user turns, `<image>` marks included."""

    system_prompts: frozenset[str | None] = frozenset()
    questions: frozenset[str] = frozenset()

    def __or__(self, other: Asked) -> Asked:
        """Both together; the same object where `other` brings nothing new, so that a million rows cost nothing."""
        if other.system_prompts <= self.system_prompts and other.questions <= self.questions:
            return self
        return Asked(self.system_prompts | other.system_prompts, self.questions | other.questions)

    @property
    def is_uniform(self) -> bool:
        """Whether there is one way at most."""
        return len(self.system_prompts) <= 1 and len(self.questions) <= 1

    @property
    def system_prompt(self) -> str | None:
        """The one system prompt; None without one, and where there are several."""
        return next(iter(self.system_prompts)) if len(self.system_prompts) == 1 else None

    @property
    def question(self) -> str | None:
        """The one question; None where there are several."""
        return next(iter(self.questions)) if len(self.questions) == 1 else None


def how_asked(conversation: Conversation) -> Asked:
    """How this one row is asked."""
    question = next(message.content for message in conversation.messages if message.role == "user")
    return Asked(frozenset({conversation.system}), frozenset({question}))


@dataclass(frozen=True)
class Survey:
    """What a pass over the rows found; `lengths` run parallel to them."""

    lengths: Lengths
    asked: Asked
    unanswered: tuple[int, ...]
    """Numbers of the rows that end with a question."""

    def histogram(self, num_bins: int = 8) -> list[str]:
        """Lines that show how many rows have how many image tokens, and the range of whole lengths."""
        counts, totals = self.lengths.num_image_tokens, self.lengths.totals
        low, high = int(counts.min()), int(counts.max())
        width = max(1, -(-(high - low + 1) // num_bins))
        bins = np.bincount((counts - low) // width).tolist()
        lines = [f"image tokens a row: {low} to {high}"]
        for index, number in enumerate(bins):
            start = low + index * width
            bar = "█" * -(-40 * number // max(bins))
            lines.append(f"  {start:>6} – {start + width - 1:<6} {number:>7}  {bar}")
        return [*lines, f"tokens a row, text and image: {totals.min()} to {totals.max()}"]

    def kept(self, rows: Conversations, cutoff_len: int, drop_overlong: bool) -> list[int]:
        """Numbers of the surveyed rows that have at most `cutoff_len` tokens.

        Over-long rows are never cut: cutting loses image tokens or the answer's end. They are left out with a warning
        that lists them when `drop_overlong`; otherwise they raise `DataError`.
        """
        is_overlong = self.lengths.totals > cutoff_len
        if is_overlong.any():
            message = self._overlong_message(rows, np.flatnonzero(is_overlong).tolist(), cutoff_len)
            if not drop_overlong:
                raise DataError(
                    f"{message}. Raise cutoff_len, lower image_max_pixels, or set drop_overlong: true to leave them out"
                )
            warn(f"{message}: left out")
        if is_overlong.all():
            raise DataError(f"no row of at most cutoff_len={cutoff_len} tokens is left")
        kept: list[int] = np.flatnonzero(~is_overlong).tolist()
        return kept

    def _overlong_message(self, rows: Conversations, overlong: Sequence[int], cutoff_len: int) -> str:
        named = [f"{rows[i].id} ({self.lengths[i].total})" for i in overlong[:MOST_EXAMPLES]]
        more = ", …" if len(overlong) > MOST_EXAMPLES else ""
        return f"{len(overlong)} of {len(rows)} rows are over cutoff_len={cutoff_len} tokens: {', '.join(named)}{more}"


def survey(
    rows: Conversations, processor: Processor, what: str, num_workers: int = 1, photo_files: list[Stamped] | None = None
) -> Survey:
    """Measure every row with `num_workers` threads; `what` names the rows in the progress line.

    No photo is decoded. The files that photos lie in are added to `photo_files`, in the order of the rows, with their
    stamps from before they were read. Raises `DataError` that lists all bad rows (the first few in words) when there
    are any.
    """
    if not len(rows):
        raise DataError(f"{what}: no rows")
    question_lengths = dict[str, int]()
    stamps_photos = photo_files is not None
    looks = ordered_map(lambda row: _look(row, processor, question_lengths, stamps_photos), _read(rows), num_workers)
    lengths, unanswered, faults = np.zeros((2, len(rows)), np.int32), list[int](), list[DataError]()
    asked = Asked()
    for number, look in enumerate(progress(looks, len(rows), f"measuring {what}")):
        if isinstance(look, DataError):
            faults.append(look)
            continue
        lengths[:, number] = look.length.num_text_tokens, look.length.num_image_tokens
        asked |= look.asked
        if not look.is_answered:
            unanswered.append(number)
        if photo_files is not None:
            photo_files += look.photo_files
    if faults:
        shown = "\n  ".join(map(str, faults[:MOST_EXAMPLES]))
        raise DataError(f"{len(faults)} of {len(rows)} rows of {what} cannot be used:\n  {shown}")
    return Survey(Lengths(*lengths), asked, tuple(unanswered))


@dataclass(frozen=True)
class _Look:
    length: Length
    asked: Asked
    is_answered: bool
    photo_files: Sequence[Stamped]


def _read(rows: Conversations) -> Iterator[Conversation | DataError]:
    """Rows as they are read, by one thread: files are not shared between several."""
    for index in range(len(rows)):
        try:
            yield rows[index]
        except DataError as error:
            yield error


def _look(
    row: Conversation | DataError, processor: Processor, question_lengths: dict[str, int], stamps_photos: bool
) -> _Look | DataError:
    if isinstance(row, DataError):
        return row
    photo_files = [stamped(path.absolute()) for path in _photo_paths(row)] if stamps_photos else ()
    try:
        check_texts(row, processor)
        length = measure(row, processor, question_lengths)
    except DataError as error:
        return error
    return _Look(length, how_asked(row), row.answer is not None, photo_files)


def _photo_paths(row: Conversation) -> Iterator[Path]:
    """The files whose coming, going or change may change the row's length."""
    for photo in row.photos:
        if photo.path is not None:
            yield from (photo.path, *photo.passed_over)
