"""Answers against transformers' generate on one row, and the settings that must not leak in from the model's folder."""

from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration
from user_rows import drawn_conversations

from riskva.encoding import Collator, Processor, encode, load_processor
from riskva.generation.answer import Answerer, generation_settings
from riskva.generation.setup import build_answerer, context_of, processor_of
from riskva.modeling.context import ModelContext
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


def test_context_is_the_adapters_and_a_contradiction_is_said(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    ModelContext(base_model="m", image_max_pixels=50176).save(tmp_path)
    silent = recipe(tiny_model, adapter_name_or_path=str(tmp_path))
    assert context_of(silent).image_max_pixels == 50176
    assert processor_of(silent, context_of(silent)).image_processor.size["longest_edge"] == 50176
    assert capsys.readouterr().err == ""
    loud = recipe(tiny_model, adapter_name_or_path=str(tmp_path), image_max_pixels=100352)
    assert context_of(loud).image_max_pixels == 100352
    said = capsys.readouterr().err
    assert "100352" in said
    assert "50176" in said


def test_base_model_without_context_gets_the_defaults(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = context_of(recipe(tiny_model, image_max_pixels=12544))
    assert context.image_max_pixels == 12544
    assert capsys.readouterr().err == ""
