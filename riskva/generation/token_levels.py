"""How sure an endpoint was of a level, as far as the likeliest tokens that it reports tell.

An approximation: of each level's word only the first token counts, where the built-in engine takes all of them. With
words that are one token each there is no difference but this: what the endpoint does not list counts as nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from riskva.generation.confidence import LevelProbabilities
from riskva.generation.level_place import level_place
from riskva.report import LEVEL_LABELS, ReportFormat


@dataclass(frozen=True)
class TokenChoice:
    """A token of an answer, as UTF-8, and the log-probabilities of what could have stood there, itself included."""

    piece: bytes
    log_probabilities: Mapping[bytes, float]


def levels_from_tokens(
    text: str, choices: Sequence[TokenChoice], report_format: ReportFormat
) -> LevelProbabilities | None:
    """The probabilities of 轻微, 中等 and 严重 where `text` says its level; they add up to 1.

    None where it says none, where the tokens are not those of the text, and where one of the three is not listed:
    what is not known is not made up.
    """
    place = level_place(text, report_format)
    if place is None:
        return None
    before = text[:place].encode()
    number, start = _token_at(len(before), choices)
    if number == len(choices) or not b"".join(one.piece for one in choices[: number + 1]).startswith(before):
        return None
    rest = before[start:]
    if _level_of(choices[number].piece, rest) is None:
        return None
    return _shares(choices[number].log_probabilities, rest)


def _token_at(place: int, choices: Sequence[TokenChoice]) -> tuple[int, int]:
    """Which token holds byte `place` of the text, and where that token begins."""
    start = 0
    for number, one in enumerate(choices):
        if start + len(one.piece) > place:
            return number, start
        start += len(one.piece)
    return len(choices), start


def _shares(log_probabilities: Mapping[bytes, float], rest: bytes) -> LevelProbabilities | None:
    sums = [0.0] * len(LEVEL_LABELS)
    for piece, log_probability in log_probabilities.items():
        level = _level_of(piece, rest)
        if level is not None:
            sums[level] += math.exp(log_probability)
    if min(sums) <= 0:
        return None
    light, moderate, severe = (one / math.fsum(sums) for one in sums)
    return light, moderate, severe


def _level_of(piece: bytes, rest: bytes) -> int | None:
    """The one level whose word `piece` begins behind `rest`; None where it begins none, or two alike."""
    if len(piece) <= len(rest):
        return None
    words = (rest + label.encode() for label in LEVEL_LABELS)
    fitting = [level for level, word in enumerate(words) if word.startswith(piece) or piece.startswith(word)]
    return fitting[0] if len(fitting) == 1 else None
