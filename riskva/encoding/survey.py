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
class Survey:
    """What a pass over the rows found; `lengths` and `ids` run parallel to the rows."""

    ids: tuple[str, ...]
    lengths: tuple[Length, ...]
    system_prompts: frozenset[str | None]
    questions: frozenset[str]
    """First user turns, `<image>` marks included."""
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
    seen = list(progress(looks, len(conversations), f"measuring {what}"))
    faults = [look for look in seen if isinstance(look, DataError)]
    if faults:
        shown = "\n  ".join(map(str, faults[:MOST_EXAMPLES]))
        raise DataError(f"{len(faults)} of {len(seen)} rows of {what} cannot be used:\n  {shown}")
    good = [look for look in seen if isinstance(look, _Look)]
    return Survey(
        ids=tuple(look.id for look in good),
        lengths=tuple(look.length for look in good),
        system_prompts=frozenset(look.system for look in good),
        questions=frozenset(look.question for look in good),
        unanswered=tuple(look.id for look in good if not look.is_answered),
    )


@dataclass(frozen=True)
class _Look:
    id: str
    length: Length
    system: str | None
    question: str
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
    return _Look(row.id, length, row.system, _first_question(row), row.answer is not None)


def _first_question(conversation: Conversation) -> str:
    return next(message.content for message in conversation.messages if message.role == "user")
