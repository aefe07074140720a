import random
import subprocess
import sys
import time

import jieba
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_chinese import Rouge

from evaluation.text_overlap import bleu, most_frequent, rouge, rouge_beside_floor, signature
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
PARTS = ("墙面", "裂缝", "。", "！", "？", "……", "”", "“", "\n", " ", "\u3000", "渗水", "0.3mm", "，", "严重", "*", ":")


def _authority(prediction: str, reference: str) -> dict[str, float]:
    """rouge-chinese called as LLaMA-Factory's metric calls it."""
    scores = Rouge().get_scores(" ".join(jieba.cut(prediction)), " ".join(jieba.cut(reference)))[0]
    return {name: 100 * one["f"] for name, one in scores.items()}


@pytest.mark.parametrize(("prediction", "reference"), PAIRS)
def test_rouge_is_rouge_chineses_own(prediction: str, reference: str) -> None:
    assert rouge([prediction], [reference]) == _authority(prediction, reference)


def test_rouge_is_rouge_chineses_own_on_random_texts() -> None:
    draw = random.Random(11)
    num_tried = 0
    for _ in range(200):
        prediction, reference = ("".join(draw.choices(PARTS, k=draw.randint(1, 30))) for _ in range(2))
        if prediction.split() and reference.split():
            assert rouge([prediction], [reference]) == _authority(prediction, reference), (prediction, reference)
            num_tried += 1
    assert num_tried > 150


def test_rouge_is_the_mean_over_samples() -> None:
    predictions, references = zip(*PAIRS, strict=True)
    singles = [_authority(*pair) for pair in PAIRS]
    scores = rouge(predictions, references)
    assert scores == pytest.approx({name: sum(one[name] for one in singles) / len(singles) for name in scores})
    assert len(scores) == 3


@pytest.mark.parametrize(("prediction", "reference"), [*PAIRS, ("a", "abcdefgh"), ("裂缝", "裂缝")])
def test_bleu_is_nltks(prediction: str, reference: str) -> None:
    smoothing = SmoothingFunction().method3
    expected = 100 * sentence_bleu([list(reference)], list(prediction), smoothing_function=smoothing)
    assert bleu([prediction], [reference]) == expected


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
    assert rouge_beside_floor(*forwards) == rouge_beside_floor(*backwards)
    assert bleu(*forwards) == bleu(*backwards)


def test_the_floor_is_the_most_frequent_reference() -> None:
    references = ["渗水", "裂缝", "空鼓", "裂缝"]
    scores = rouge_beside_floor(["起砂"] * 4, references)
    assert scores["rouge-1"] == 0.0
    assert scores["floor"] == rouge(["裂缝"] * 4, references)
    assert scores["floor"]["rouge-1"] == pytest.approx(50, abs=1e-6)


def test_ties_do_not_depend_on_the_order() -> None:
    assert most_frequent(["乙", "甲", "乙", "甲"]) == most_frequent(["甲", "甲", "乙", "乙"])


def test_a_looping_answer_is_scored_in_seconds() -> None:
    looping = "墙面存在裂缝，" * 3000
    start = time.monotonic()
    scores = rouge([looping], ["墙面存在裂缝，建议修补并观察。" * 20])
    # rouge-chinese's own ROUGE-L needs a dict of 2 million entries for this; measured here 0.05 s
    assert time.monotonic() - start < 5
    assert 0 < scores["rouge-l"] < 10


def test_lists_must_match() -> None:
    with pytest.raises(DataError, match=r"1 prediction\(s\) for 2 reference\(s\)"):
        rouge(["a"], ["a", "b"])
    with pytest.raises(DataError, match="at least one row"):
        bleu([], [])


def test_signature_names_versions() -> None:
    assert signature()["segmenter"] == f"jieba {jieba.__version__}"
    assert "method3" in signature()["bleu"]


def test_scoring_prints_nothing() -> None:
    code = "from evaluation.text_overlap import bleu, rouge; rouge(['裂缝'], ['渗水']); bleu(['裂', ''], ['渗水', 'a'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
