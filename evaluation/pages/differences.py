"""Where two texts differ, word by word, so that a reader's eye goes to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from itertools import groupby

from evaluation.text_overlap import segmenter

MOST_WORDS = 400
"""Words of a text that are compared; an answer that loops has thousands, and what follows differs anyhow."""

Pieces = list[str]
"""A text in pieces that are by turns the same and different; the first is the same, and may be empty."""


def differences(expected: str, answered: str) -> tuple[Pieces, Pieces]:
    """The pieces of both texts; joined, they are the texts."""
    if expected == answered:
        return [expected], [answered]
    left, right = _words(expected), _words(answered)
    matcher = SequenceMatcher(None, left[:MOST_WORDS], right[:MOST_WORDS], autojunk=False)
    pairs = [
        pair
        for tag, *(a_start, a_end, b_start, b_end) in matcher.get_opcodes()
        for pair in _split("".join(left[a_start:a_end]), "".join(right[b_start:b_end]), tag == "equal")
    ]
    pairs.append((True, "".join(left[MOST_WORDS:]), "".join(right[MOST_WORDS:])))
    return _pieces((differs, text) for differs, text, _ in pairs), _pieces(
        (differs, text) for differs, _, text in pairs
    )


def _split(expected: str, answered: str, is_same: bool) -> list[tuple[bool, str, str]]:
    """The stretch as (whether it differs, both texts), without what differing words begin and end with alike.

    Words are cut by what stands around them: 空鼓 is a word in one sentence, and half of 空鼓不 in another.
    """
    if is_same:
        return [(False, expected, answered)]
    before = _num_alike(expected, answered)
    after = _num_alike(expected[before:][::-1], answered[before:][::-1])
    ends = len(expected) - after, len(answered) - after
    return [
        (False, expected[:before], answered[:before]),
        (True, expected[before : ends[0]], answered[before : ends[1]]),
        (False, expected[ends[0] :], answered[ends[1] :]),
    ]


def _num_alike(left: str, right: str) -> int:
    """How many characters both begin with; 0 for a single one, so that 渗水 and 积水 differ as the words they are."""
    pairs = enumerate(zip(left, right, strict=False))
    count = next((place for place, (one, other) in pairs if one != other), min(len(left), len(right)))
    return count if count > 1 else 0


def _words(text: str) -> Sequence[str]:
    words: list[str] = segmenter().lcut(text)
    return words


def _pieces(stretches: Iterable[tuple[bool, str]]) -> Pieces:
    runs = groupby(((differs, text) for differs, text in stretches if text), key=lambda stretch: stretch[0])
    pieces = [(differs, "".join(text for _, text in run)) for differs, run in runs]
    begins_differing = bool(pieces) and pieces[0][0]
    return [""] * begins_differing + [text for _, text in pieces]
