"""ROUGE and BLEU of Chinese texts, comparable with what LLaMA-Factory reports.

ROUGE-1/2/L: both texts segmented by jieba, scored by rouge-chinese pair by pair, F × 100, mean over the pairs.
BLEU-4: over characters, nltk with smoothing method 3, × 100, mean over the pairs. An empty side scores 0.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import TypedDict

import jieba
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_chinese import Rouge

from riskva.errors import DataError

# jieba announces on standard error that it loads its dictionary, at debug level and with a handler of its own.
jieba.setLogLevel(logging.WARNING)

RougeScores = TypedDict("RougeScores", {"rouge-1": float, "rouge-2": float, "rouge-l": float})


class RougeBesideFloor(RougeScores):
    """ROUGE in percent, and under `floor` what one constant answer scores on the same references."""

    floor: RougeScores


def rouge(predictions: Sequence[str], references: Sequence[str]) -> RougeScores:
    """Mean ROUGE-1, ROUGE-2 and ROUGE-L F-scores in percent, one prediction for each reference.

    Raises `DataError` when the lists are empty or differ in length.
    """
    _check(predictions, references)
    first, second, longest = zip(*map(_rouge_of_pair, predictions, references), strict=True)
    return {"rouge-1": _mean(first), "rouge-2": _mean(second), "rouge-l": _mean(longest)}


def rouge_beside_floor(predictions: Sequence[str], references: Sequence[str]) -> RougeBesideFloor:
    """`rouge` of the predictions, and of the most frequent reference given as the answer to every row."""
    scores = rouge(predictions, references)
    return {**scores, "floor": rouge([most_frequent(references)] * len(references), references)}


def bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Mean sentence BLEU-4 over characters in percent, one prediction for each reference.

    Raises `DataError` when the lists are empty or differ in length.
    """
    _check(predictions, references)
    return _mean(tuple(map(_bleu_of_pair, predictions, references)))


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
        "segmenter": f"jieba {version('jieba')}",
        "rouge": f"rouge-chinese {version('rouge-chinese')}, F-score",
        "bleu": f"BLEU-4 over characters, nltk {version('nltk')}, smoothing method3",
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


@lru_cache(maxsize=8192)
def _rouge_of_pair(prediction: str, reference: str) -> tuple[float, float, float]:
    answer, expected = _segmented(prediction), _segmented(reference)
    if not answer.split() or not expected.split():
        return 0.0, 0.0, 0.0
    ngrams = Rouge(metrics=["rouge-1", "rouge-2"]).get_scores(answer, expected)[0]
    return 100 * ngrams["rouge-1"]["f"], 100 * ngrams["rouge-2"]["f"], 100 * _rouge_l(answer, expected)


def _segmented(text: str) -> str:
    return " ".join(jieba.cut(text))


def _rouge_l(answer: str, expected: str) -> float:
    # rouge-chinese fills a Python dict of length × length entries for this: over a minute, and gigabytes, for an
    # answer that loops. The value here is the same to the last bit.
    answer_words, expected_words = _words(answer), _words(expected)
    common = _longest_common_subsequence(answer_words, expected_words)
    precision, recall = common / len(answer_words), common / len(expected_words)
    return 2.0 * ((precision * recall) / (precision + recall + 1e-8))


def _words(segmented: str) -> list[str]:
    """Words as rouge-chinese counts them: a sentence of nothing but white space is one empty word."""
    sentences = [" ".join(sentence.split()) for sentence in Rouge().cut_sent(segmented) if sentence]
    return [word for sentence in sentences for word in sentence.split(" ")]


def _longest_common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Its length, by the bit-parallel method of Hyyrö (2004): one big-integer row, one step a word of `right`."""
    places: dict[str, int] = {}
    for place, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(left)) - 1
    row = full
    for word in right:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(left) - row.bit_count()


def _bleu_of_pair(prediction: str, reference: str) -> float:
    if not prediction or not reference:
        return 0.0
    smoothing = SmoothingFunction().method3
    return 100 * float(sentence_bleu([list(reference)], list(prediction), smoothing_function=smoothing))
