"""ROUGE and BLEU of Chinese texts, comparable with what LLaMA-Factory reports.

ROUGE-1/2/L: both texts segmented (by jieba into words, or into characters), scored pair by pair as rouge-chinese does,
F × 100, mean over the pairs. BLEU-4: over characters, as nltk does with smoothing method 3, × 100, mean over the pairs.
An empty side scores 0. rouge-chinese and nltk are what the tests hold these numbers against, to the last bit; they are
not called here, because a report of 220 characters takes them 8 ms, six times as long as it takes this.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from importlib.metadata import version
from itertools import pairwise
from types import ModuleType
from typing import NamedTuple, TypedDict

from riskva.errors import DataError

SEGMENTATIONS = ("jieba", "characters")
"""Into what a text is cut before words are compared: jieba's words, or every character that is not white space."""

RougeScores = TypedDict("RougeScores", {"rouge-1": float, "rouge-2": float, "rouge-l": float})

_EPSILON = 1e-8
"""What rouge-chinese adds to a denominator."""

_LONGEST_BLOCK = 256
"""Characters of a block that is worth remembering; only what loops is longer."""


class Overlap(NamedTuple):
    """ROUGE F-scores of one answer, in percent."""

    rouge_1: float
    rouge_2: float
    rouge_l: float


def overlap(prediction: str, reference: str, segmentation: str = "jieba") -> Overlap:
    """ROUGE-1, ROUGE-2 and ROUGE-L F-scores of one answer in percent; 0 where either side is empty.

    N-grams are counted as sets, as rouge-chinese does unless told otherwise. `segmentation` is one of `SEGMENTATIONS`;
    `DataError` for any other.
    """
    answer, expected = _profile(prediction, segmentation), _profile(reference, segmentation)
    if not answer.words or not expected.words:
        return Overlap(0.0, 0.0, 0.0)
    common = _longest_common_subsequence(answer.words, _places(reference, segmentation), len(expected.words))
    return Overlap(
        _f_score(len(answer.unigrams & expected.unigrams), len(answer.unigrams), len(expected.unigrams)),
        _f_score(len(answer.bigrams & expected.bigrams), len(answer.bigrams), len(expected.bigrams)),
        _f_score(common, len(answer.words), len(expected.words)),
    )


def bleu_of_pair(prediction: str, reference: str) -> float:
    """Sentence BLEU-4 of one answer over its characters, white space among them, in percent.

    Papineni et al. (2002) with the smoothing of mteval-v13a.pl, which nltk calls method 3: the k-th order without a
    match counts 1/2^k matches. Without a single common character it is 0.
    """
    answer, expected = _character_ngrams(prediction), _character_ngrams(reference)
    logarithms, num_missed = [], 0
    for order, counts in enumerate(answer):
        num_matched, num_ngrams = _num_matched(counts, expected[order]), max(1, len(prediction) - order)
        if not num_matched and not order:
            return 0.0
        num_missed += not num_matched
        logarithms.append(math.log(num_matched / num_ngrams if num_matched else 1 / (2**num_missed * num_ngrams)))
    mean = math.exp(math.fsum(one / 4 for one in logarithms))
    return 100 * (_brevity(len(prediction), len(reference)) * mean)


def rouge(predictions: Sequence[str], references: Sequence[str], segmentation: str = "jieba") -> RougeScores:
    """Mean ROUGE-1, ROUGE-2 and ROUGE-L F-scores in percent, one prediction for each reference.

    Raises `DataError` when the lists are empty or differ in length, or for a segmentation that is none.
    """
    _check(predictions, references)
    pairs = zip(predictions, references, strict=True)
    first, second, longest = zip(*(overlap(*pair, segmentation) for pair in pairs), strict=True)
    return {"rouge-1": _mean(first), "rouge-2": _mean(second), "rouge-l": _mean(longest)}


def bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Mean sentence BLEU-4 over characters in percent, one prediction for each reference.

    Raises `DataError` when the lists are empty or differ in length.
    """
    _check(predictions, references)
    return _mean(tuple(map(bleu_of_pair, predictions, references)))


def most_frequent(texts: Iterable[str]) -> str:
    """The text that occurs most often: the best that a constant answer can be guessed to be.

    Of equally frequent ones it is the first in code point order, so that the order of rows does not matter. Empty
    texts (rows that could not even be read) are no answer, unless there are no others.
    """
    counts = Counter(texts)
    if len(counts) > 1:
        counts.pop("", None)
    return min(counts, key=lambda text: (-counts[text], text))


def signature() -> dict[str, str]:
    """What the text scores depend on besides the texts: two runs compare only if these are equal."""
    return {
        "segmentations": ", ".join(SEGMENTATIONS),
        "segmenter": f"jieba {version('jieba')}",
        "characters": "every character but white space is a word",
        "rouge": f"as rouge-chinese {version('rouge-chinese')}, F-score, n-grams as sets",
        "bleu": f"BLEU-4 over characters, as nltk {version('nltk')}, smoothing method3",
        "averaging": "mean over samples, percent, an empty text scores 0",
    }


def _check(predictions: Sequence[str], references: Sequence[str]) -> None:
    if len(predictions) != len(references):
        raise DataError(f"{len(predictions)} prediction(s) for {len(references)} reference(s): give one a row")
    if not references:
        raise DataError("no texts to score: give at least one row")


def _mean(values: Sequence[float]) -> float:
    # fsum rounds once, so that the order of rows cannot change the last digit
    return math.fsum(values) / len(values)


class _Profile(NamedTuple):
    """A text as ROUGE sees it: its words in order, and which words and pairs of words there are."""

    words: Sequence[str]
    unigrams: frozenset[Hashable]
    bigrams: frozenset[Hashable]


# A report is scored against its three answers one after the other, or all reports against one answer: either way few
# texts are in use at a time. A report of 220 characters takes 50 KB here and 80 KB in `_character_ngrams`.
@lru_cache(maxsize=512)
def _profile(text: str, segmentation: str) -> _Profile:
    if segmentation not in SEGMENTATIONS:
        raise DataError(f"unknown segmentation {segmentation!r}: expected one of {', '.join(SEGMENTATIONS)}")
    words = "".join(text.split()) if segmentation == "characters" else _words(text)
    return _Profile(words, frozenset(words), frozenset(pairwise(words)))


def _words(text: str) -> Sequence[str]:
    """jieba's words as rouge-chinese counts them: a sentence of nothing but white space is one empty word."""
    if not text.split():
        return []
    words = [word for block in segmenter().re_han_default.split(text) for word in _words_of_block(block)]
    sentences = [" ".join(sentence.split()) for sentence in _sentence_cutter()(" ".join(words)) if sentence]
    return [word for sentence in sentences for word in sentence.split(" ")]


def _words_of_block(block: str) -> Sequence[str]:
    # jieba looks at each stretch between punctuation by itself; in reports most of them come again and again
    return _remembered_words(block) if len(block) <= _LONGEST_BLOCK else tuple(segmenter().cut(block))


@lru_cache(maxsize=2**15)
def _remembered_words(block: str) -> Sequence[str]:
    return tuple(segmenter().cut(block))


@cache
def segmenter() -> ModuleType:
    """jieba, loaded without a word."""
    import jieba

    # it announces on standard error that it loads its dictionary, at debug level and with a handler of its own
    jieba.setLogLevel(logging.WARNING)
    return jieba  # type: ignore[no-any-return]


@cache
def _sentence_cutter() -> Callable[[str], list[str]]:
    from rouge_chinese import Rouge

    return Rouge().cut_sent  # type: ignore[no-any-return]


def _f_score(num_common: int, num_answered: int, num_expected: int) -> float:
    """rouge-chinese's, in percent: without n-grams at all precision and recall are 0."""
    precision = num_common / num_answered if num_answered else 0.0
    recall = num_common / num_expected if num_expected else 0.0
    return 100 * (2.0 * ((precision * recall) / (precision + recall + _EPSILON)))


@lru_cache(maxsize=512)
def _places(text: str, segmentation: str) -> Mapping[str, int]:
    """For each word of the text the bits of its places, the first one lowest."""
    places: dict[str, int] = {}
    for place, word in enumerate(_profile(text, segmentation).words):
        places[word] = places.get(word, 0) | 1 << place
    return places


def _longest_common_subsequence(answer: Sequence[str], places: Mapping[str, int], num_expected: int) -> int:
    """Its length, by the bit-parallel method of Hyyrö (2004): one big-integer row, one step a word of the answer."""
    row = full = (1 << num_expected) - 1
    for word in answer:
        if word in places:
            matches = row & places[word]
            row = ((row + matches) | (row - matches)) & full
    return num_expected - row.bit_count()


@lru_cache(maxsize=512)
def _character_ngrams(text: str) -> tuple[Counter[str], ...]:
    """How often each stretch of 1, 2, 3 and 4 characters occurs, white space included."""
    return tuple(
        Counter([text[start : start + order] for start in range(len(text) - order + 1)]) for order in range(1, 5)
    )


def _num_matched(answer: Counter[str], expected: Counter[str]) -> int:
    return sum(min(answer[ngram], expected[ngram]) for ngram in answer.keys() & expected.keys())


def _brevity(num_answered: int, num_expected: int) -> float:
    return 1.0 if num_answered > num_expected else math.exp(1 - num_expected / num_answered)
