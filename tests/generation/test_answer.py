"""Answers against transformers' generate on one row, and the settings that must not leak in from the model's folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration
from user_rows import drawn_conversations, drawn_photo

from riskva.data.conversation import Conversation, Message
from riskva.encoding import Collator, Encoded, Processor, load_processor
from riskva.generation.answer import Answer, ReportWriter, Writer, generation_settings
from riskva.generation.constraint import Constraint
from riskva.generation.engines import load_answering, report_writer
from riskva.generation.prompts import PromptEncoder
from riskva.recipe.key_groups import GenerationKeys
from riskva.report import DEFAULT_FORMAT

KEYS = GenerationKeys(max_new_tokens=12)


@pytest.fixture(scope="module")
def processor(tiny_model_hub: Path) -> Processor:
    return load_processor(tiny_model_hub)


@pytest.fixture(scope="module")
def writer(tiny_model_hub: Path, processor: Processor) -> ReportWriter:
    return report_writer(load_answering(tiny_model_hub, None), processor, DEFAULT_FORMAT, KEYS, "off")


def encoded(rows: list[Conversation], processor: Processor) -> list[Encoded]:
    encode = PromptEncoder(processor, 4096)
    return [encode(row.prompt) for row in rows]


def told(rows: list[Conversation], *prompts: str | None) -> list[Conversation]:
    """The rows, each with the system prompt of its place."""
    return [
        Conversation(row.id, (*((Message("system", prompt),) if prompt else ()), *row.messages), row.photos)
        for row, prompt in zip(rows, prompts, strict=True)
    ]


def by_transformers(model: Any, prompt: Encoded, processor: Processor) -> str:
    batch = Collator(processor, padding_side="left")([prompt])
    del batch["labels"]
    greedy = {"do_sample": False, "repetition_penalty": 1.0, "top_k": None, "return_dict_in_generate": False}
    ids = model.generate(**batch, **greedy, max_new_tokens=12)
    return str(processor.tokenizer.decode(ids[0, batch["input_ids"].shape[1] :], skip_special_tokens=True))


@pytest.mark.parametrize(
    "system_prompts",
    [(None,) * 4, ("你是检查员。",) * 4, ("你是检查员。", "你是检查员。请看图。", "检查员。", None)],
    ids=["the template's", "one", "different ones"],
)
def test_greedy_answers_equal_transformers_and_ignore_the_folders_settings(
    writer: ReportWriter, tiny_model_hub: Path, processor: Processor, system_prompts: tuple[str | None, ...]
) -> None:
    """Batched, with the prompts' beginning and photos computed once, against transformers' own class row by row.

    The hub's generation_config samples and penalises repetition; a recipe that asks for neither gets neither.
    """
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model_hub)
    assert model.generation_config.repetition_penalty != 1.0
    rows = encoded(told(drawn_conversations(4), *system_prompts), processor)
    answers = writer(rows)
    assert [answer.text for answer in answers] == [by_transformers(model, row, processor) for row in rows]
    assert [answer.text for answer in writer(rows)] == [answer.text for answer in answers]


def test_rows_without_photos_and_with_several_are_answered_too(writer: ReportWriter, processor: Processor) -> None:
    photos = (drawn_photo(1), drawn_photo(2, 84, 140))
    two = Conversation("two", (Message("user", "<image>和<image>，哪张有裂缝？"),), photos)
    text = Conversation("text", (Message("user", "什么是空鼓？"),))
    rows = encoded([two, text], processor)
    expected = [by_transformers(writer.writer.model, row, processor) for row in rows]
    assert [answer.text for answer in writer(rows)] == expected
    assert [answer.text for answer in writer([rows[1]])] == expected[1:]


def test_finish_reason_tells_a_cut_answer(writer: ReportWriter, processor: Processor) -> None:
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    words = processor.tokenizer("墙面裂缝", add_special_tokens=False)["input_ids"]
    padding = [processor.pad_token_id] * 2
    assert writer.writer.answer(torch.tensor([*words, end, *padding])) == (Answer("墙面裂缝", "stop"), words)
    assert writer.writer.answer(torch.tensor(words)) == (Answer("墙面裂缝", "length"), words)


def test_sampling_keys_reach_the_settings(processor: Processor) -> None:
    keys = GenerationKeys(do_sample=True, temperature=0.3, top_p=0.8, repetition_penalty=1.1)
    settings = generation_settings(keys, processor)
    assert (settings.temperature, settings.top_p, settings.repetition_penalty) == (0.3, 0.8, 1.1)


def test_sampling_draws_from_all_tokens(writer: ReportWriter, processor: Processor) -> None:
    """Not from the 50 likeliest alone, which transformers takes where nobody says otherwise."""
    keys = GenerationKeys(max_new_tokens=1, do_sample=True, temperature=1e4)
    sampler = Writer(writer.writer.model, processor, generation_settings(keys, processor))
    (row,) = encoded(drawn_conversations(1), processor)
    torch.manual_seed(0)
    batch = sampler.collate([row] * 400)
    drawn = sampler.generate(batch).sequences[:, batch["input_ids"].shape[1]]
    assert len(drawn.unique()) > 100


def test_a_photo_goes_through_the_tower_once(
    tiny_model_hub: Path, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_answering(tiny_model_hub, None)
    seen: list[int] = []
    tower = model.photo_features
    monkeypatch.setattr(model, "photo_features", lambda pixels, grid: seen.append(len(pixels)) or tower(pixels, grid))
    writer = report_writer(model, processor, DEFAULT_FORMAT, KEYS, "off")
    first, second = encoded(drawn_conversations(2), processor)
    writer([first, first, second])
    writer([second, first])
    assert seen == [len(first.pixel_values), len(second.pixel_values)]


def test_the_prompts_beginning_is_run_once(
    tiny_model_hub: Path, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first pass of a batch takes the tokens behind what all prompts share."""
    model = load_answering(tiny_model_hub, None)
    widths: list[int] = []
    embed = model.get_input_embeddings()
    embed.register_forward_hook(lambda _, inputs, output: widths.append(inputs[0].shape[1]))
    writer = report_writer(model, processor, DEFAULT_FORMAT, GenerationKeys(max_new_tokens=1), "off")
    rows = encoded(told(drawn_conversations(2), "你是检查员。", "你是检查员。"), processor)
    shared = rows[0].input_ids.tolist().index(processor.image_token_id)
    longest = max(len(row.input_ids) for row in rows)
    writer(rows)
    writer(rows)
    assert widths == [shared, longest - shared, longest - shared]


def test_a_constraint_is_taken_up(writer: ReportWriter, processor: Processor) -> None:
    (row,) = encoded(drawn_conversations(1), processor)
    num_tokens = writer.writer.model.config.text_config.vocab_size
    ends = tuple(writer.writer.settings.eos_token_id)
    held = ReportWriter(writer.writer, DEFAULT_FORMAT, Constraint('start: "裂缝"', processor, num_tokens, ends))
    assert [answer.text for answer in held([row, row])] == ["裂缝", "裂缝"]
