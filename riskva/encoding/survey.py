"""A first pass over a data set: how long every row is and how it is asked, before anything is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from riskva.console import progress, warn
from riskva.data.conversation import Conversation, Conversations
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


def survey(conversations: Conversations, processor: Processor, what: str) -> Survey:
    """Measure every row; `what` names the rows in the progress line. No photo is decoded.

    Raises `DataError` that lists all bad rows (the first few in words) when there are any.
    """
    faults: list[str] = []
    ids: list[str] = []
    lengths: list[Length] = []
    system_prompts: set[str | None] = set()
    questions: set[str] = set()
    unanswered: list[str] = []
    for index in progress(range(len(conversations)), len(conversations), f"measuring {what}"):
        try:
            conversation = conversations[index]
            check_texts(conversation, processor)
            lengths.append(measure(conversation, processor))
        except DataError as error:
            faults.append(str(error))
            continue
        ids.append(conversation.id)
        system_prompts.add(conversation.system)
        questions.add(_first_question(conversation))
        if conversation.answer is None:
            unanswered.append(conversation.id)
    if faults:
        shown = "\n  ".join(faults[:MOST_EXAMPLES])
        raise DataError(f"{len(faults)} of {len(conversations)} rows of {what} cannot be used:\n  {shown}")
    if not ids:
        raise DataError(f"{what}: no rows")
    return Survey(tuple(ids), tuple(lengths), frozenset(system_prompts), frozenset(questions), tuple(unanswered))


def _first_question(conversation: Conversation) -> str:
    return next(message.content for message in conversation.messages if message.role == "user")
