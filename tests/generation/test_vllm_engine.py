"""vLLM's engine against a stand-in with the names and the rules of vLLM 0.33.0; vLLM itself needs a GPU."""

import importlib.machinery
import math
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from user_rows import drawn_conversations, drawn_photo

from riskva.data.conversation import Conversation, Message
from riskva.encoding import Processor, encode, load_processor
from riskva.errors import DataError, ModelError, RecipeError
from riskva.generation.answer import end_tokens
from riskva.generation.confidence import level_branch
from riskva.generation.constraint import grammar_of
from riskva.generation.vllm_engine import VllmEncoder, VllmEngine, VllmPrompt, require_vllm
from riskva.recipe.key_groups import GenerationKeys
from riskva.report import DEFAULT_FORMAT

LIMITS = (28 * 28 * 12, 28 * 28 * 4)


@dataclass
class StructuredOutputsParams:
    grammar: str | None = None


@dataclass
class SamplingParams:
    """The fields in use, with vLLM's defaults."""

    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = 16
    logprob_token_ids: list[int] | None = None
    structured_outputs: StructuredOutputsParams | None = None


@dataclass
class FakeVllm:
    """What was asked of vLLM, and what it answers: `written` gives an answer's ids and finish_reason."""

    arguments: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[list[dict[str, Any]], Any]] = field(default_factory=list)
    written: Callable[[int], tuple[list[int], str]] = lambda number: ([], "stop")

    def generate(self, prompts: list[dict[str, Any]], sampling_params: Any, *, use_tqdm: bool = True) -> list[Any]:
        self.calls.append((prompts, sampling_params))
        each = sampling_params if isinstance(sampling_params, list) else [sampling_params] * len(prompts)
        return [
            SimpleNamespace(outputs=[self._output(number, prompt, one)])
            for number, (prompt, one) in enumerate(zip(prompts, each, strict=True))
        ]

    def _output(self, number: int, prompt: dict[str, Any], sampling: SamplingParams) -> SimpleNamespace:
        if sampling.logprob_token_ids is None:
            ids, reason = self.written(number)
            return SimpleNamespace(token_ids=ids, finish_reason=reason, logprobs=None)
        asked = sampling.logprob_token_ids
        table = {id: SimpleNamespace(logprob=score(prompt["prompt_token_ids"], id)) for id in asked}
        return SimpleNamespace(
            token_ids=[7], finish_reason="length", logprobs=[{7: SimpleNamespace(logprob=0.0)} | table]
        )


def score(before: Sequence[int], id: int) -> float:
    """The stand-in's log-probability of `id` behind `before`: depends on all that it should depend on."""
    return -0.1 - (sum(place * one for place, one in enumerate(before)) + 3 * id) % 11 / 4


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> FakeVllm:
    fake = FakeVllm()

    def llm(
        *,
        model: str,
        dtype: str = "auto",
        seed: int = 0,
        max_model_len: int | None = None,
        limit_mm_per_prompt: dict[str, int] | None = None,
        mm_processor_kwargs: dict[str, Any] | None = None,
        structured_outputs_config: dict[str, Any] | None = None,
        generation_config: str = "auto",
        logprobs_mode: str = "raw_logprobs",
    ) -> FakeVllm:
        fake.arguments = dict(locals())
        return fake

    module, params = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    module.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    vars(module).update(LLM=llm, SamplingParams=SamplingParams, sampling_params=params)
    vars(params).update(StructuredOutputsParams=StructuredOutputsParams)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", params)
    return fake


@pytest.fixture(scope="module")
def processor(tiny_model_hub: Path) -> Processor:
    return load_processor(tiny_model_hub, *LIMITS)


def engine_of(folder: Path, processor: Processor, keys: GenerationKeys, grammar: str | None = None) -> VllmEngine:
    return VllmEngine(folder, processor, keys, DEFAULT_FORMAT, cutoff_len=2000, grammar=grammar)


def two_photos() -> Conversation:
    photos = (drawn_photo(1, 300, 150), drawn_photo(2, 33, 61))
    return Conversation("two", (Message("user", "<image><image>两张照片有什么缺陷？"),), photos)


@pytest.mark.parametrize(
    "row", [drawn_conversations(1)[0].prompt, two_photos(), drawn_conversations(1, False)[0].prompt]
)
def test_prompts_are_encodes_ids_with_a_photo_in_one_token(processor: Processor, row: Conversation) -> None:
    """vLLM puts one token for every four patches in each one's place: that must give encode's ids again."""
    encoded, prompt = encode(row, processor), VllmEncoder(processor, 2000)(row)
    lengths = iter(encoded.image_grid_thw.prod(dim=1) // 4)
    expanded = [
        one
        for id in prompt.prompt_token_ids
        for one in ([id] * int(next(lengths)) if id == processor.image_token_id else [id])
    ]
    assert expanded == encoded.input_ids.tolist()
    assert prompt.prompt_token_ids.count(processor.image_token_id) == len(prompt.photos) == len(row.photos)


def test_photos_have_the_size_that_transformers_leaves_alone(processor: Processor) -> None:
    """transformers' own image processor, with the limits that vLLM is given, makes encode's patches of them."""
    encoded, prompt = encode(two_photos(), processor), VllmEncoder(processor, 2000)(two_photos())
    assert [[one.height // 14, one.width // 14] for one in prompt.photos] == encoded.image_grid_thw[:, 1:].tolist()
    made = processor.image_processor(list(prompt.photos), return_tensors="pt")
    assert torch.equal(made["image_grid_thw"], encoded.image_grid_thw)
    np.testing.assert_array_equal(made["pixel_values"].numpy(), encoded.pixel_values.numpy())


def test_the_encoder_goes_to_other_processes_and_refuses_long_rows(processor: Processor) -> None:
    encoder = pickle.loads(pickle.dumps(VllmEncoder(processor, 20)))
    with pytest.raises(DataError, match=r"id two: \d+ tokens, over cutoff_len=20; raise cutoff_len"):
        encoder(two_photos())
    prompt = pickle.loads(pickle.dumps(VllmEncoder(processor, 2000)(two_photos())))
    assert [photo.mode for photo in prompt.photos] == ["RGB", "RGB"]


def test_the_recipes_settings_reach_vllm(vllm: FakeVllm, tiny_model_hub: Path, processor: Processor) -> None:
    grammar = grammar_of(DEFAULT_FORMAT, "report", 40)
    engine = engine_of(tiny_model_hub, processor, GenerationKeys(max_new_tokens=12), grammar)
    engine([VllmEncoder(processor, 2000)(two_photos()), VllmPrompt([1, 2], ())])
    ((prompts, sampling),) = vllm.calls
    greedy = SamplingParams(temperature=0.0, max_tokens=12, stop_token_ids=list(end_tokens(processor)))
    assert sampling == replace(greedy, structured_outputs=StructuredOutputsParams(grammar=grammar))
    assert len(prompts[0]["multi_modal_data"]["image"]) == 2
    assert prompts[1] == {"prompt_token_ids": [1, 2]}
    assert vllm.arguments["mm_processor_kwargs"] == {"size": {"longest_edge": LIMITS[0], "shortest_edge": LIMITS[1]}}
    assert vllm.arguments["structured_outputs_config"] == {"backend": "guidance"}
    assert vllm.arguments["generation_config"] == "vllm"
    assert vllm.arguments["model"] == str(tiny_model_hub)
    assert vllm.arguments["max_model_len"] >= 2000 + 12


def test_sampling_is_asked_for_only_by_the_recipe(vllm: FakeVllm, tiny_model_hub: Path, processor: Processor) -> None:
    keys = GenerationKeys(do_sample=True, temperature=0.3, top_p=0.8, repetition_penalty=1.1, seed=5)
    engine_of(tiny_model_hub, processor, keys)([VllmPrompt([1], ())])
    sampling = vllm.calls[0][1]
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.3, 0.8, 5)
    assert sampling.repetition_penalty == 1.1
    assert sampling.structured_outputs is None


def test_the_precision_is_the_saved_one_unless_the_recipe_says_bf16(
    vllm: FakeVllm, tiny_model_hub: Path, processor: Processor
) -> None:
    """vLLM's `auto` would make float16 or bfloat16 of float32."""
    engine_of(tiny_model_hub, processor, GenerationKeys())
    assert vllm.arguments["dtype"] == "float32"
    engine_of(tiny_model_hub, processor, GenerationKeys(bf16=True))
    assert vllm.arguments["dtype"] == "bfloat16"


def test_answers_end_before_their_end_token(vllm: FakeVllm, tiny_model_hub: Path, processor: Processor) -> None:
    words = processor.tokenizer("墙面裂缝", add_special_tokens=False)["input_ids"]
    outcomes = [([*words, end_tokens(processor)[0]], "stop"), (words, "length"), (words, "stop")]
    vllm.written = lambda number: outcomes[number]
    answers = engine_of(tiny_model_hub, processor, GenerationKeys())([VllmPrompt([1], ())] * 3)
    assert [(one.text, one.finish_reason) for one in answers] == [
        ("墙面裂缝", "stop"),
        ("墙面裂缝", "length"),
        ("墙面裂缝", "stop"),
    ]
    assert [one.level_probabilities for one in answers] == [None] * 3
    assert len(vllm.calls) == 1  # no level, so nothing more to ask


def test_an_answer_that_vllm_gave_up_is_no_answer(vllm: FakeVllm, tiny_model_hub: Path, processor: Processor) -> None:
    vllm.written = lambda number: ([], "abort")
    with pytest.raises(ModelError, match="vLLM ended an answer with 'abort'"):
        engine_of(tiny_model_hub, processor, GenerationKeys())([VllmPrompt([1], ())])


def test_levels_are_the_words_sequence_probabilities(
    vllm: FakeVllm, tiny_model_hub: Path, processor: Processor
) -> None:
    """Word by word, token by token, behind the prompt and the answer up to the level."""
    texts = [row.answer or "" for row in drawn_conversations(3)] + ["没有缺陷"]
    ids = [processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    vllm.written = lambda number: ([*ids[number], end_tokens(processor)[0]], "stop")
    prompts = [VllmEncoder(processor, 2000)(row.prompt) for row in drawn_conversations(4)]
    answers = engine_of(tiny_model_hub, processor, GenerationKeys())(prompts)
    for prompt, answer, written in zip(prompts[:3], answers, ids, strict=False):
        branch = level_branch(written, processor.tokenizer, DEFAULT_FORMAT)
        assert branch is not None
        before = [*prompt.prompt_token_ids, *written[: branch.num_before]]
        logs = []
        for word in branch.words:
            said = 0.0
            for place, id in enumerate(word):
                said += score([*before, *word[:place]], id)
            logs.append(said)
        expected = [math.exp(one) / sum(map(math.exp, logs)) for one in logs]
        assert answer.level_probabilities == pytest.approx(expected)
    assert answers[3].level_probabilities is None
    asked, sampling = vllm.calls[1]
    assert all(one.max_tokens == 1 and one.structured_outputs is None for one in sampling)
    assert all(len(one["multi_modal_data"]["image"]) == 1 for one in asked)


@pytest.fixture
def usable(vllm: FakeVllm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.33.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.usefixtures("usable")
def test_what_stands_in_vllms_way_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    require_vllm()  # nothing does yet
    with pytest.raises(RecipeError, match="merged weights, not an adapter; merge it first with stage: export"):
        require_vllm("outputs/sft")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match="needs a CUDA GPU, and torch finds none here"):
        require_vllm()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.19.1")
    with pytest.raises(RecipeError, match=r"needs vLLM 0\.33 or newer, found 0\.19\.1"):
        require_vllm()
    monkeypatch.delitem(sys.modules, "vllm")
    with pytest.raises(RecipeError, match=r"vllm is not installed; pip install -e '\.\[vllm\]'"):
        require_vllm()
