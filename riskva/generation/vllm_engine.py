"""vLLM as the engine that answers prompts: merged weights on NVIDIA GPUs, many rows at once.

Written from the source of vLLM 0.33.0 and tested against a stand-in; it has not been run with vLLM itself. What a row
is asked is what the built-in engine asks: the ids of `riskva.encoding.encode`, photos at the size that it makes of
them, which vLLM's own resizing leaves as they are, and the same grammar under llguidance.

How sure the model is of a level costs further requests of one token each. They hold the prompt and the answer up to
the level, which vLLM has in its prefix cache: one a row where the three words are single tokens, and one more for each
different beginning of a longer word.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch
from packaging.version import Version
from PIL import Image

from riskva.data.conversation import Conversation
from riskva.encoding import Processor, encode, photo_pixels
from riskva.errors import ModelError, RecipeError
from riskva.generation.answer import Answer, FinishReason, end_tokens
from riskva.generation.confidence import LevelBranch, LevelProbabilities, level_branch, normalised
from riskva.generation.prompts import require_fitting
from riskva.recipe.key_groups import GenerationKeys
from riskva.report import ReportFormat

OLDEST_VLLM = "0.33"
"""The first version whose source was read: `logprob_token_ids` and the rest are as they are there."""

PROMPTS_AT_ONCE = 256
"""How many prompts to hand over together: vLLM makes its own batches of them, and a photo is at most some 3 MB."""

_OTHERWISE = "or set infer_backend: huggingface"
_SPARE_TOKENS = 16
"""Room for a level's word that is longer than the one that was written."""


def require_vllm(adapter_name_or_path: str | None = None) -> None:
    """Raise `RecipeError` in one line where vLLM cannot be used: before any work starts."""
    if adapter_name_or_path:
        raise RecipeError(
            "infer_backend: vllm takes merged weights, not an adapter; merge it first with stage: export and name the "
            f"result as model_name_or_path, {_OTHERWISE}"
        )
    if importlib.util.find_spec("vllm") is None:
        raise RecipeError(f"infer_backend: vllm is not installed; pip install -e '.[vllm]', {_OTHERWISE}")
    version = importlib.metadata.version("vllm")
    if Version(version) < Version(OLDEST_VLLM):
        raise RecipeError(f"infer_backend: needs vLLM {OLDEST_VLLM} or newer, found {version}; update it, {_OTHERWISE}")
    if not torch.cuda.is_available():
        raise RecipeError(f"infer_backend: vllm needs a CUDA GPU, and torch finds none here; run on one, {_OTHERWISE}")


@dataclass(frozen=True)
class VllmPrompt:
    """A row as vLLM takes it: ids in which each photo is a single `<|image_pad|>`, and the photos (RGB) in order."""

    prompt_token_ids: list[int]
    photos: tuple[Image.Image, ...]


@dataclass(frozen=True)
class VllmEncoder:
    """Conversations become prompts; picklable, for DataLoader workers."""

    processor: Processor
    cutoff_len: int

    def __call__(self, conversation: Conversation) -> VllmPrompt:
        """Raises `DataError` naming the row when it cannot be encoded, or has more than `cutoff_len` tokens."""
        pixels = photo_pixels(conversation, self.processor)
        ids = encode(conversation, self.processor, pixels).input_ids.tolist()
        require_fitting(conversation, len(ids), self.cutoff_len)
        return VllmPrompt(list(self._collapsed(ids)), tuple(map(Image.fromarray, pixels)))

    def _collapsed(self, ids: Sequence[int]) -> Iterator[int]:
        """vLLM puts each photo's run in the place of one token itself; other tokens always part two photos."""
        for id, run in groupby(ids):
            yield from (id,) if id == self.processor.image_token_id else run


class VllmEngine:
    """Answers prompts with a merged model under vLLM."""

    def __init__(
        self,
        model_folder: Path,
        processor: Processor,
        keys: GenerationKeys,
        report_format: ReportFormat,
        *,
        cutoff_len: int,
        grammar: str | None = None,
    ) -> None:
        """`grammar` is what `riskva.generation.constraint.grammar_of` gives. Loads the model, which takes a while."""
        from vllm import LLM  # type: ignore[import-not-found, unused-ignore]

        self._processor = processor
        self._report_format = report_format
        self._sampling = _sampling(keys, processor, grammar)
        self._llm: Any = LLM(**_engine_arguments(model_folder, processor, keys, cutoff_len))

    def __call__(self, prompts: Sequence[VllmPrompt]) -> list[Answer]:
        """One answer a prompt, in order."""
        outputs = self._generate([(prompt, ()) for prompt in prompts], self._sampling)
        answers = [self._answer(output.outputs[0]) for output in outputs]
        tokenizer = self._processor.tokenizer
        branches = [level_branch(ids, tokenizer, self._report_format) for _, ids in answers]
        contexts = [
            (prompt, tuple(ids[: branch.num_before]) if branch else ())
            for prompt, (_, ids), branch in zip(prompts, answers, branches, strict=True)
        ]
        levels = self._levels(contexts, branches)
        return [
            Answer(answer.text, answer.finish_reason, one) for (answer, _), one in zip(answers, levels, strict=True)
        ]

    def _generate(self, asked: Sequence[tuple[VllmPrompt, tuple[int, ...]]], sampling: Any) -> list[Any]:
        """vLLM's outputs for prompts that go on with some ids; `sampling` is one for all, or one each."""
        inputs = [_input(prompt, more) for prompt, more in asked]
        return list(self._llm.generate(inputs, sampling, use_tqdm=False))

    def _answer(self, output: Any) -> tuple[Answer, list[int]]:
        """The answer, and its ids up to the end token."""
        if output.finish_reason not in ("stop", "length"):
            raise ModelError(f"vLLM ended an answer with {output.finish_reason!r}; its log says why")
        ends = end_tokens(self._processor)
        ids = list(output.token_ids)
        ids = ids[: next((place for place, id in enumerate(ids) if id in ends), len(ids))]
        text = str(self._processor.tokenizer.decode(ids, skip_special_tokens=True))
        return Answer(text, cast(FinishReason, output.finish_reason)), ids

    def _levels(
        self, contexts: Sequence[tuple[VllmPrompt, tuple[int, ...]]], branches: Sequence[LevelBranch | None]
    ) -> list[LevelProbabilities | None]:
        """Each row's probabilities of the three levels; `contexts` are the prompts with the answers up to there."""
        steps = [
            (row, beginning, sorted(ids))
            for row, branch in enumerate(branches)
            if branch is not None
            for beginning, ids in _next_ids(branch).items()
        ]
        if not steps:
            return [None] * len(branches)
        asked = [(contexts[row][0], contexts[row][1] + beginning) for row, beginning, _ in steps]
        outputs = self._generate(asked, [_scoring(ids) for _, _, ids in steps])
        found: list[dict[tuple[int, ...], Mapping[int, Any]]] = [{} for _ in branches]
        for (row, beginning, _), output in zip(steps, outputs, strict=True):
            found[row][beginning] = output.outputs[0].logprobs[0]
        return [_shares(branch, one) if branch else None for branch, one in zip(branches, found, strict=True)]


def _engine_arguments(
    model_folder: Path, processor: Processor, keys: GenerationKeys, cutoff_len: int
) -> dict[str, Any]:
    size = processor.image_processor.size
    return {
        "model": str(model_folder),
        "dtype": "bfloat16" if keys.bf16 else _saved_dtype(model_folder),
        "seed": keys.seed,
        "max_model_len": cutoff_len + keys.max_new_tokens + _SPARE_TOKENS,
        "limit_mm_per_prompt": {"video": 0},
        "mm_processor_kwargs": {"size": {"shortest_edge": size["shortest_edge"], "longest_edge": size["longest_edge"]}},
        "structured_outputs_config": {"backend": "guidance"},  # the one that reads llguidance's grammars
        "generation_config": "vllm",  # the recipe's settings and nothing else
        "logprobs_mode": "raw_logprobs",  # before the grammar and penalties, as the built-in engine takes them
    }


def _saved_dtype(model_folder: Path) -> str:
    """The precision that the model was saved in: vLLM's own `auto` would halve float32."""
    config = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    return str(config.get("dtype") or config.get("torch_dtype") or "auto")


def _sampling(keys: GenerationKeys, processor: Processor, grammar: str | None) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import (  # type: ignore[import-not-found, unused-ignore]
        StructuredOutputsParams,
    )

    choice = (
        {"temperature": keys.temperature, "top_p": keys.top_p, "seed": keys.seed}
        if keys.do_sample
        else {"temperature": 0.0}
    )
    return SamplingParams(
        max_tokens=keys.max_new_tokens,
        repetition_penalty=keys.repetition_penalty,
        stop_token_ids=list(end_tokens(processor)),
        structured_outputs=StructuredOutputsParams(grammar=grammar) if grammar else None,
        **choice,
    )


def _scoring(ids: list[int]) -> Any:
    """How likely each of `ids` is as the next token."""
    from vllm import SamplingParams

    return SamplingParams(temperature=0.0, max_tokens=1, logprob_token_ids=ids)


def _input(prompt: VllmPrompt, more: Sequence[int]) -> dict[str, Any]:
    """vLLM's `TokensPrompt`, which is a plain dict."""
    tokens: dict[str, Any] = {"prompt_token_ids": [*prompt.prompt_token_ids, *more]}
    return tokens | {"multi_modal_data": {"image": list(prompt.photos)}} if prompt.photos else tokens


def _next_ids(branch: LevelBranch) -> dict[tuple[int, ...], set[int]]:
    """By each beginning of a level's word, the tokens that go on from it towards one of the three."""
    found: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for word in branch.words:
        for place, id in enumerate(word):
            found[word[:place]].add(id)
    return dict(found)


def _shares(branch: LevelBranch, found: Mapping[tuple[int, ...], Mapping[int, Any]]) -> LevelProbabilities:
    """The words' sequence probabilities, normalised over the three."""
    logs = [math.fsum(float(found[word[:place]][id].logprob) for place, id in enumerate(word)) for word in branch.words]
    return normalised(logs)
