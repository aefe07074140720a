"""Probabilities of levels against transformers' plain forward on prompt, answer and word, one row at a time."""

from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration
from user_rows import drawn_conversations

from riskva.encoding import Collator, Encoded, Processor, load_processor
from riskva.generation.answer import Answer, ReportWriter, Writer
from riskva.generation.confidence import level_branch
from riskva.generation.engines import load_answering, report_writer
from riskva.generation.prompts import PromptEncoder
from riskva.recipe.key_groups import GenerationKeys
from riskva.report import DEFAULT_FORMAT, LEVEL_LABELS


@pytest.fixture(scope="module")
def processor(tiny_model: Path) -> Processor:
    return load_processor(tiny_model)


@pytest.fixture(scope="module")
def prompts(processor: Processor) -> list[Encoded]:
    encode = PromptEncoder(processor, 4096)
    return [encode(row.prompt) for row in drawn_conversations(5)]


def writer_of(folder: Path, processor: Processor, attention: str = "sdpa") -> ReportWriter:
    keys = GenerationKeys(max_new_tokens=200, max_field_chars=6)
    return report_writer(
        load_answering(folder, None, torch.float32, attention), processor, DEFAULT_FORMAT, keys, "report"
    )


def by_forward(folder: Path, prompt: Encoded, ids: list[int], processor: Processor) -> torch.Tensor:
    """(3,): each word's probability behind the answer (its ids) up to its level, over the three."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    branch = level_branch(ids, processor.tokenizer, DEFAULT_FORMAT)
    assert branch is not None
    return torch.tensor(
        [_log(model, prompt, ids[: branch.num_before], word, processor) for word in branch.words]
    ).softmax(0)


@torch.no_grad()
def _log(
    model: torch.nn.Module, prompt: Encoded, before: list[int], word: tuple[int, ...], processor: Processor
) -> float:
    batch = Collator(processor)([prompt])
    del batch["labels"]
    more = torch.tensor([[*before, *word]])
    batch["input_ids"] = torch.cat([batch["input_ids"], more], dim=1)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    batch["mm_token_type_ids"] = torch.nn.functional.pad(batch["mm_token_type_ids"], (0, more.shape[1]))
    logs = model(**batch).logits[0].double().log_softmax(dim=-1)
    places = range(len(logs) - len(word) - 1, len(logs) - 1)
    return sum(float(logs[place, token]) for place, token in zip(places, word, strict=True))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_probabilities_are_those_of_the_words_behind_the_answer(
    tiny_model: Path, processor: Processor, prompts: list[Encoded], attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a batch say their level at different places; largest difference measured in float32: 1.2e-6."""
    written: list[list[int]] = []  # a model of random weights spells texts in other tokens than the tokenizer
    told = Writer.answer

    def answer(self: Writer, ids: torch.Tensor) -> tuple[Answer, list[int]]:
        one, own = told(self, ids)
        written.append(own)
        return one, own

    monkeypatch.setattr(Writer, "answer", answer)
    answers = writer_of(tiny_model, processor, attention)(prompts)
    assert len({answer.text.index("风险等级") for answer in answers}) > 1
    for prompt, ids, one in zip(prompts, written, answers, strict=True):
        expected = by_forward(tiny_model, prompt, ids, processor)
        assert one.level_probabilities is not None
        assert sum(one.level_probabilities) == pytest.approx(1)
        assert torch.tensor(one.level_probabilities).numpy() == pytest.approx(expected.numpy(), abs=1e-5)


BEFORE = "**风险描述**: 风险等级：严重的裂缝。\n**风险等级**: "


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        (BEFORE, "\n**缺陷描述**: 缝。"),
        ("1. 风险等级：", "。"),
        ("【风险等级】", ""),
        ("风险描述：裂。\n- **风险等级：** **", "**"),
        ('{"风险描述": "风险等级为严重", "风险等级": "', '", "缺陷描述": "缝"}'),
    ],
)
@pytest.mark.parametrize("level", LEVEL_LABELS)
def test_the_place_is_just_before_the_level(processor: Processor, before: str, behind: str, level: str) -> None:
    tokenizer = processor.tokenizer
    ids = tokenizer(before + level + behind, add_special_tokens=False)["input_ids"]
    branch = level_branch(ids, tokenizer, DEFAULT_FORMAT)
    assert branch is not None
    texts = [tokenizer.decode([*ids[: branch.num_before], *word]) for word in branch.words]
    assert texts == [before + label for label in LEVEL_LABELS]
    word = branch.words[LEVEL_LABELS.index(level)]
    assert tuple(ids[branch.num_before :][: len(word)]) == word


@pytest.mark.parametrize(
    "text", ["", "墙面有严重裂缝。", "**风险等级**: 一般", "**风险描述**: 风险等级：严重", "**风险等级**: 较严重"]
)
def test_where_no_level_is_said_there_is_no_place(processor: Processor, text: str) -> None:
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert level_branch(ids, processor.tokenizer, DEFAULT_FORMAT) is None


def test_a_character_that_is_split_between_tokens_is_no_fault(processor: Processor) -> None:
    """Bytes of a character that is not in the vocabulary, just before the level."""
    ids = processor.tokenizer("**风险描述**: 䶮\n**风险等级**: 严重", add_special_tokens=False)["input_ids"]
    branch = level_branch(ids, processor.tokenizer, DEFAULT_FORMAT)
    assert branch is not None
    assert branch.words[2] == tuple(ids[branch.num_before :])
