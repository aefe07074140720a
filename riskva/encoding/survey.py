"""A first pass over a data set: how long every row is and how it is asked, before anything is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from riskva.console import progress, warn
from riskva.data.conversation import Conversation, Conversations
from riskva.data.parallel import ordered_map
from riskva.encoding.encode import Length, check_texts, measure
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
    """What a pass over the rows found; `lengths` and `ids` run parallel to the rows."""

    ids: tuple[str, ...]
    lengths: tuple[Length, ...]
    asked: Asked
    unanswered: tuple[str, ...]
    """Ids of rows that end with a question."""

    def histogram(self, num_bins: int = 8) -> list[str]:
        """Lines that show how many rows have how many image tokens, and the range of whole lengths."""
        counts = [length.num_image_tokens for length in self.lengths]
        width = max(1, -(-(max(counts) - min(counts) + 1) // num_bins))
        bins = Counter((count - min(counts)) // width for count in counts)
        lines = [f"image tokens a row: {min(counts)} to {max(counts)}"]
        for index in range(max(bins) + 1):
            low = min(counts) + index * width
            bar = "█" * -(-40 * bins[index] // max(bins.values()))
            lines.append(f"  {low:>6} – {low + width - 1:<6} {bins[index]:>7}  {bar}")
        totals = [length.total for length in self.lengths]
        return [*lines, f"tokens a row, text and image: {min(totals)} to {max(totals)}"]

    def kept(self, cutoff_len: int, drop_overlong: bool) -> list[int]:
        """Indices of rows of at most `cutoff_len` tokens.

        Over-long rows are never cut: cutting loses image tokens or the answer's end. They are left out with a warning
        that lists them when `drop_overlong`; otherwise they raise `DataError`.
        """
        overlong = [i for i, length in enumerate(self.lengths) if length.total > cutoff_len]
        if overlong:
            message = self._overlong_message(overlong, cutoff_len)
            if not drop_overlong:
                raise DataError(
                    f"{message}. Raise cutoff_len, lower image_max_pixels, or set drop_overlong: true to leave them out"
                )
            warn(f"{message}: left out")
        if len(overlong) == len(self.ids):
            raise DataError(f"no row of at most cutoff_len={cutoff_len} tokens is left")
        dropped = set(overlong)
        return [i for i in range(len(self.ids)) if i not in dropped]

    def _overlong_message(self, overlong: Sequence[int], cutoff_len: int) -> str:
        named = [f"{self.ids[i]} ({self.lengths[i].total})" for i in overlong[:MOST_EXAMPLES]]
        more = ", …" if len(overlong) > MOST_EXAMPLES else ""
        return (
            f"{len(overlong)} of {len(self.ids)} rows are over cutoff_len={cutoff_len} tokens: {', '.join(named)}{more}"
        )


def survey(conversations: Conversations, processor: Processor, what: str, num_workers: int = 1) -> Survey:
    """Measure every row with `num_workers` threads; `what` names the rows in the progress line.

    No photo is decoded. Raises `DataError` that lists all bad rows (the first few in words) when there are any.
    """
    if not len(conversations):
        raise DataError(f"{what}: no rows")
    looks = ordered_map(lambda row: _look(row, processor), _rows(conversations), num_workers)
    ids, lengths, unanswered = list[str](), list[Length](), list[str]()
    asked, faults = Asked(), list[DataError]()
    for look in progress(looks, len(conversations), f"measuring {what}"):
        if isinstance(look, DataError):
            faults.append(look)
            continue
        ids.append(look.id)
        lengths.append(look.length)
        asked |= look.asked
        if not look.is_answered:
            unanswered.append(look.id)
    if faults:
        shown = "\n  ".join(map(str, faults[:MOST_EXAMPLES]))
        raise DataError(f"{len(faults)} of {len(conversations)} rows of {what} cannot be used:\n  {shown}")
    return Survey(tuple(ids), tuple(lengths), asked, tuple(unanswered))


@dataclass(frozen=True)
class _Look:
    id: str
    length: Length
    asked: Asked
    is_answered: bool


def _rows(conversations: Conversations) -> Iterator[Conversation | DataError]:
    """Rows as they are read, by one thread: files are not shared between several."""
    for index in range(len(conversations)):
        try:
            yield conversations[index]
        except DataError as error:
            yield error


def _look(row: Conversation | DataError, processor: Processor) -> _Look | DataError:
    if isinstance(row, DataError):
        return row
    try:
        check_texts(row, processor)
        length = measure(row, processor)
    except DataError as error:
        return error
    return _Look(row.id, length, how_asked(row), row.answer is not None)
