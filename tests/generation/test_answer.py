"""Answers against transformers' generate on one row, and the settings that must not leak in from the model's folder."""

from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration
from user_rows import drawn_conversations

from riskva.encoding import Collator, Processor, encode, load_processor
from riskva.generation.answer import Answerer, generation_settings
from riskva.generation.setup import build_answerer
from riskva.recipe import PredictRecipe


@pytest.fixture(scope="module")
def processor(tiny_model_hub: Path) -> Processor:
    return load_processor(tiny_model_hub)


def recipe(model: Path, **keys: object) -> PredictRecipe:
    fixed = {"stage": "predict", "output_dir": "o", "eval_dataset": ("d",), "max_new_tokens": 12}
    return PredictRecipe.model_validate(fixed | {"model_name_or_path": str(model)} | keys)


def test_greedy_answers_equal_transformers_and_ignore_the_folders_settings(
    tiny_model_hub: Path, processor: Processor
) -> None:
    """The hub's generation_config samples and penalises repetition; a recipe that asks for neither gets neither."""
    answerer = build_answerer(recipe(tiny_model_hub), processor)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model_hub)
    assert model.generation_config.repetition_penalty != 1.0
    rows = [encode(row.prompt, processor) for row in drawn_conversations(3)]
    for row, answer in zip(rows, answerer(rows), strict=True):
        batch = Collator(processor, padding_side="left")([row])
        del batch["labels"]
        ids = model.generate(**batch, do_sample=False, repetition_penalty=1.0, max_new_tokens=12, top_k=None)
        expected = processor.tokenizer.decode(ids[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        assert answer.text == expected
        assert answer.finish_reason in ("stop", "length")


def test_finish_reason_tells_a_cut_answer(tiny_model_hub: Path, processor: Processor) -> None:
    settings = generation_settings(recipe(tiny_model_hub), processor)
    answerer = Answerer(Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model_hub), processor, settings)
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    words = processor.tokenizer("墙面裂缝", add_special_tokens=False)["input_ids"]
    padding = [processor.pad_token_id] * 2
    stopped = answerer._answer(torch.tensor([*words, end, *padding]))
    cut = answerer._answer(torch.tensor(words))
    assert (stopped.text, stopped.finish_reason) == ("墙面裂缝", "stop")
    assert (cut.text, cut.finish_reason) == ("墙面裂缝", "length")


def test_sampling_keys_reach_the_settings(tiny_model_hub: Path, processor: Processor) -> None:
    keys = recipe(tiny_model_hub, do_sample=True, temperature=0.3, top_p=0.8, repetition_penalty=1.1)
    settings = generation_settings(keys, processor)
    assert (settings.temperature, settings.top_p, settings.repetition_penalty) == (0.3, 0.8, 1.1)
