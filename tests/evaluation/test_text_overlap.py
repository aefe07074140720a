import random
import subprocess
import sys
import time

import jieba
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_chinese import Rouge

from evaluation import text_overlap
from evaluation.text_overlap import SEGMENTATIONS, bleu, bleu_of_pair, most_frequent, overlap, rouge, signature
from riskva.errors import DataError

PAIRS = (
    ("墙面存在明显裂缝，宽约0.3mm。", "墙面有一道斜向裂缝，宽约0.3mm，未渗水。"),
    ("雨水沿缝下渗，裂缝可能缓慢发展", "雨水沿缝下渗，裂缝可能缓慢发展"),
    ("**风险描述**: 脱落伤人\n**风险等级**: 严重", "**风险描述**: 可能脱落\n**风险等级**: 中等"),
    ("裂", "裂缝"),
    ("完全无关", "abc DEF 123"),
    ("第一句。第二句！“引用。”第三句……尾", "第一句？第二句。尾"),
    ("\n\n空行\n\n\n之间  双空格\t", "空行\n之间\n\n"),
    ("重复重复重复重复", "重复"),
    ("。", "。。"),
)
PARTS = (
    *(
        "墙面",
        "裂缝",
        "渗水",
        "顶棚",
        "空鼓",
        "严重",
        "的",
        "了",
        "在",
        "裂",
        "，",
        ",",
        "、",
        "：",
        "*",
        "**",
        ":",
        "-",
    ),
    *("。", "！", "？", "?", ".", "…", "……", "......", "......-", "”", "’", "“", "。”", "？’", "。 ”"),
    *("\n", "\n\n", "\r\n", " ", "\t", "\u3000", "\xa0", "\x1c", "\u2028", "\u200b"),
    *("0.3mm", "12", "3.5%", "C30", "a", "ABC def", "５ｍｍ", "é", "😀", "㎡", "〇", "𠮷"),
)
NUM_PAIRS = 5000


def _authority(prediction: str, reference: str, segmentation: str = "jieba") -> dict[str, float]:
    """rouge-chinese called as LLaMA-Factory's metric calls it, and the same over characters."""
    answer, expected = (
        " ".join(jieba.cut(text) if segmentation == "jieba" else (one for one in text if not one.isspace()))
        for text in (prediction, reference)
    )
    if not answer.split() or not expected.split():
        return dict.fromkeys(("rouge-1", "rouge-2", "rouge-l"), 0.0)
    return {name: 100 * one["f"] for name, one in Rouge().get_scores(answer, expected)[0].items()}


def _nltk_bleu(prediction: str, reference: str) -> float:
    smoothing = SmoothingFunction().method3
    return 100 * float(sentence_bleu([list(reference)], list(prediction), smoothing_function=smoothing))


def _random_pairs(seed: int, number: int = NUM_PAIRS) -> list[tuple[str, str]]:
    """Pairs of up to 30 parts; one in four has a side of one or two, and every other answer repeats the reference."""
    draw = random.Random(seed)
    pairs = []
    for row in range(number):
        reference = draw.choices(PARTS, k=draw.choice([0, 1, 2, 8, 20, 30]) if row % 4 == 0 else draw.randint(3, 30))
        kept = [part for part in reference if row % 2 and draw.random() < 0.7]
        pairs.append(("".join(kept + draw.choices(PARTS, k=draw.choice([0, 1, 2, 10]))), "".join(reference)))
    return pairs


@pytest.mark.parametrize("segmentation", SEGMENTATIONS)
@pytest.mark.parametrize(("prediction", "reference"), PAIRS)
def test_rouge_is_rouge_chineses_own(prediction: str, reference: str, segmentation: str) -> None:
    assert rouge([prediction], [reference], segmentation) == _authority(prediction, reference, segmentation)


@pytest.mark.parametrize("segmentation", SEGMENTATIONS)
def test_rouge_is_rouge_chineses_own_on_random_texts(segmentation: str) -> None:
    for prediction, reference in _random_pairs(11):
        expected = _authority(prediction, reference, segmentation)
        # the formulas are the same: not a bit differs in 5,000 pairs
        assert list(overlap(prediction, reference, segmentation)) == list(expected.values()), (prediction, reference)


def test_bleu_is_nltks_on_random_texts() -> None:
    for prediction, reference in _random_pairs(12):
        # the formulas are the same: not a bit differs in 5,000 pairs
        assert bleu_of_pair(prediction, reference) == _nltk_bleu(prediction, reference), (prediction, reference)


def test_scores_are_those_of_llama_factorys_recipe() -> None:
    pairs = _random_pairs(13, 300)
    collected: dict[str, list[float]] = {"rouge-1": [], "rouge-2": [], "rouge-l": [], "bleu-4": []}
    for pred, label in pairs:
        hypothesis, reference = list(jieba.cut(pred)), list(jieba.cut(label))
        if not " ".join(hypothesis).split() or not " ".join(reference).split():
            result = {"rouge-1": {"f": 0.0}, "rouge-2": {"f": 0.0}, "rouge-l": {"f": 0.0}}
        else:
            result = Rouge().get_scores(" ".join(hypothesis), " ".join(reference))[0]
        for name, one in result.items():
            collected[name].append(round(one["f"] * 100, 4))
        smoothed = sentence_bleu([list(label)], list(pred), smoothing_function=SmoothingFunction().method3)
        collected["bleu-4"].append(round(smoothed * 100, 4))
    means = {name: sum(scores) / len(scores) for name, scores in collected.items()}
    predictions, references = zip(*pairs, strict=True)
    ours = {**rouge(predictions, references), "bleu-4": bleu(predictions, references)}
    # it rounds each score to four digits; the means differ by 3e-6 at most here
    assert ours == pytest.approx(means, abs=1e-4)


def test_rouge_is_the_mean_over_samples() -> None:
    predictions, references = zip(*PAIRS, strict=True)
    singles = [_authority(*pair) for pair in PAIRS]
    scores = rouge(predictions, references)
    assert scores == pytest.approx({name: sum(one[name] for one in singles) / len(singles) for name in scores})
    assert len(scores) == 3


@pytest.mark.parametrize(("prediction", "reference"), [*PAIRS, ("a", "abcdefgh"), ("裂缝", "裂缝"), ("裂", "裂")])
def test_bleu_is_nltks(prediction: str, reference: str) -> None:
    assert bleu([prediction], [reference]) == _nltk_bleu(prediction, reference)


def test_characters_are_every_character_but_white_space() -> None:
    # of 3 and 4 characters 2 are common, in order; 1 pair of 2 and 3
    assert overlap("裂 缝\n大", "墙裂缝。", "characters") == pytest.approx((400 / 7, 40, 400 / 7), abs=1e-5)


def test_an_unknown_segmentation_is_refused() -> None:
    with pytest.raises(DataError, match="unknown segmentation 'word': expected one of jieba, characters"):
        rouge(["a"], ["a"], "word")


@pytest.mark.parametrize("text", ["墙面有一道斜向裂缝，宽约0.3mm。", "a b c d"])
def test_perfect_answers_score_a_hundred(text: str) -> None:
    # rouge-chinese adds 1e-8 to a denominator: a perfect score is 99.9999995
    assert rouge([text], [text]) == pytest.approx({"rouge-1": 100, "rouge-2": 100, "rouge-l": 100}, abs=1e-6)
    assert bleu([text], [text]) == pytest.approx(100)


@pytest.mark.parametrize(("prediction", "reference"), [("", "裂缝"), (" \n\u3000", "裂缝"), ("裂缝", ""), ("", "")])
def test_an_empty_side_scores_nothing_and_stays_in_the_mean(prediction: str, reference: str) -> None:
    assert set(rouge([prediction], [reference]).values()) == {0.0}
    halves = rouge([prediction, "裂缝"], [reference, "裂缝"])
    assert halves["rouge-1"] == pytest.approx(50, abs=1e-6)
    assert bleu([prediction], [reference]) == 0.0


def test_row_order_does_not_change_a_bit() -> None:
    draw = random.Random(5)
    pairs = [tuple("".join(draw.choices(PARTS, k=20)) for _ in range(2)) for _ in range(60)]
    backwards = list(zip(*reversed(pairs), strict=True))
    forwards = list(zip(*pairs, strict=True))
    for segmentation in SEGMENTATIONS:
        assert rouge(*forwards, segmentation) == rouge(*backwards, segmentation)
    assert bleu(*forwards) == bleu(*backwards)


def test_ties_do_not_depend_on_the_order() -> None:
    assert most_frequent(["乙", "甲", "乙", "甲"]) == most_frequent(["甲", "甲", "乙", "乙"])


@pytest.mark.parametrize("looping", ["墙面存在裂缝，" * 3000, "裂" * 9000, "。\n" * 9000])
def test_a_looping_answer_is_scored_in_seconds(looping: str) -> None:
    reference = "墙面存在裂缝，建议修补并观察。" * 20
    start = time.monotonic()
    by_words, by_characters = (overlap(looping, reference, segmentation) for segmentation in SEGMENTATIONS)
    bleu_of_pair(looping, reference)
    # rouge-chinese's own ROUGE-L needs a dict of 2 million entries for this; measured here 0.1 to 0.5 s, of which
    # jieba takes all but 0.1 s: its search of names copies a path for each of 9,000 characters
    assert time.monotonic() - start < 5
    assert by_words.rouge_l < 10
    assert 0 < by_characters.rouge_l < 10


def test_memory_holds_few_texts() -> None:
    caches = (text_overlap._profile, text_overlap._places, text_overlap._character_ngrams)
    assert all(cache.cache_info().maxsize == 512 for cache in caches)
    assert text_overlap._remembered_words.cache_info().maxsize == 2**15


def test_lists_must_match() -> None:
    with pytest.raises(DataError, match=r"1 prediction\(s\) for 2 reference\(s\)"):
        rouge(["a"], ["a", "b"])
    with pytest.raises(DataError, match="at least one row"):
        bleu([], [])


def test_signature_names_versions() -> None:
    assert signature()["segmenter"] == f"jieba {jieba.__version__}"
    assert "method3" in signature()["bleu"]
    assert set(SEGMENTATIONS) <= set(signature()["segmentations"].split(", "))


def test_scoring_prints_nothing() -> None:
    code = "from evaluation.text_overlap import bleu, rouge; rouge(['裂缝'], ['渗水']); bleu(['裂', ''], ['渗水', 'a'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
