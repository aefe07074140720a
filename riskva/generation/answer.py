"""Encoded prompts become answers."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import GenerationConfig, set_seed
from transformers.modeling_outputs import BaseModelOutputWithPooling

from riskva.encoding import Collator, Encoded, Processor
from riskva.generation.confidence import LevelProbabilities, Written, level_branch, level_probabilities
from riskva.generation.constraint import Constraint
from riskva.generation.reuse import PhotoFeatures, PromptPrefix
from riskva.modeling.model import Qwen2_5_VLForConditionalGeneration
from riskva.recipe.key_groups import GenerationKeys
from riskva.report import ReportFormat

END_TOKENS = ("<|im_end|>", "<|endoftext|>")

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Answer:
    """What a model wrote. `finish_reason` is `length` when `max_new_tokens` cut it off.

    `level_probabilities` are those of 轻微, 中等 and 严重 where the answer says its level, None where it says none and
    where nobody asked.
    """

    text: str
    finish_reason: FinishReason
    level_probabilities: LevelProbabilities | None = None


@dataclass(frozen=True)
class Writer:
    """Writes answers with one model; batches of prompts are padded on the left.

    The model must be without PEFT's wrapper, which would set a generation_config of its own; LoRA's layers are in the
    base. `always_an_image` is the collator's: needed where other processes answer other prompts with parts of one
    model.
    """

    model: Qwen2_5_VLForConditionalGeneration
    processor: Processor
    settings: GenerationConfig
    always_an_image: bool = False

    def __call__(self, prompts: Sequence[Encoded]) -> list[Answer]:
        """One answer a prompt, in order."""
        batch = self.collate(prompts)
        ids = self.generate(batch).sequences
        return [self.answer(row)[0] for row in ids[:, batch["input_ids"].shape[1] :].cpu()]

    def collate(self, prompts: Sequence[Encoded]) -> dict[str, Tensor]:
        """The prompts as `generate` takes them."""
        batch = Collator(self.processor, padding_side="left", always_an_image=self.always_an_image)(prompts)
        del batch["labels"]
        return batch

    def generate(self, batch: dict[str, Tensor], **more: Any) -> Any:
        """transformers' own output: `sequences` (B, P + T) and `past_key_values`."""
        inputs = {name: tensor.to(self.model.device) for name, tensor in batch.items()}
        model: Any = self.model  # whose types do not know that it generates
        # Not inference_mode: weights that ZeRO-3 gathers under it could not be trained afterwards
        with torch.no_grad():
            return model.generate(**inputs, **more, generation_config=self.settings)

    def answer(self, ids: Tensor) -> tuple[Answer, list[int]]:
        """The answer that ids (T,) on the CPU hold up to their end token, and these ids."""
        ends = torch.isin(ids, torch.tensor(self.settings.eos_token_id)).nonzero()
        written = ids[: int(ends[0])] if len(ends) else ids
        text = self.processor.tokenizer.decode(written.tolist(), skip_special_tokens=True)
        return Answer(str(text), "stop" if len(ends) else "length"), written.tolist()


@dataclass(frozen=True)
class ReportWriter:
    """Writes reports with a model whose weights stay: what prompts have in common is computed once.

    Under a `constraint` every answer that ends is a report. Answers say how sure the model is of their level. Prompts
    must have `photo_keys`.
    """

    writer: Writer
    report_format: ReportFormat
    constraint: Constraint | None = None
    seed: int = 0
    """Where answers are drawn: with the rows it decides which, whatever was drawn before."""
    _features: PhotoFeatures = field(default_factory=PhotoFeatures)
    _prefix: PromptPrefix = field(default_factory=PromptPrefix)

    def __call__(self, prompts: Sequence[Encoded]) -> list[Answer]:
        """One answer a prompt, in order."""
        model = self.writer.model
        if self.writer.settings.do_sample:
            set_seed(zlib.crc32(" ".join([str(self.seed), *(prompt.id for prompt in prompts)]).encode()))
        with torch.no_grad():
            num_shared, cache = self._prefix.of(prompts, model)
        batch = _padded_behind(self.writer.collate(prompts), num_shared)
        more: dict[str, Any] = {"past_key_values": cache} if cache is not None else {}
        if batch.pop("pixel_values", None) is not None:
            with torch.no_grad():
                features = self._features.of(prompts, model)
            more["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=features)}  # type: ignore[arg-type]
        length = batch["input_ids"].shape[1]
        if self.constraint is not None:
            is_greedy = not self.writer.settings.do_sample
            more["logits_processor"] = [self.constraint.for_batch(len(prompts), length, is_greedy)]
        # Those of an earlier batch, with which transformers would go on where a batch has no photo
        model.model.rope_deltas = None
        output = self.writer.generate(batch, **more)
        return self._with_levels(output, batch["attention_mask"].to(model.device), length)

    def _with_levels(self, output: Any, attention_mask: Tensor, length: int) -> list[Answer]:
        model, tokenizer = self.writer.model, self.writer.processor.tokenizer
        rows = [self.writer.answer(row) for row in output.sequences[:, length:].cpu()]
        branches = [level_branch(ids, tokenizer, self.report_format) for _, ids in rows]
        written = Written(output.sequences, attention_mask, model.model.rope_deltas, output.past_key_values)
        sure = level_probabilities(model, written, branches)
        return [Answer(answer.text, answer.finish_reason, one) for (answer, _), one in zip(rows, sure, strict=True)]


def _padded_behind(batch: dict[str, Tensor], num_shared: int) -> dict[str, Tensor]:
    """The batch with its first `num_shared` real tokens at the left and the padding behind them."""
    if not num_shared:
        return batch
    mask = batch["attention_mask"]
    places = torch.arange(mask.shape[1]).expand_as(mask)
    gaps = (mask == 0).sum(dim=1, keepdim=True)
    source = torch.where(
        places < num_shared, places + gaps, torch.where(places < num_shared + gaps, places - num_shared, places)
    )
    rows = ("input_ids", "attention_mask", "mm_token_type_ids")
    return {name: tensor.gather(1, source) if name in rows else tensor for name, tensor in batch.items()}


def generation_settings(keys: GenerationKeys, processor: Processor) -> GenerationConfig:
    """The recipe's settings and nothing else: the hub's Qwen2.5-VL would silently add a repetition penalty of 1.05."""
    # Without top_k, transformers would sample from the 50 likeliest tokens alone
    sampling = {"temperature": keys.temperature, "top_p": keys.top_p, "top_k": 0} if keys.do_sample else {}
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=keys.max_new_tokens,
        do_sample=keys.do_sample,
        repetition_penalty=keys.repetition_penalty,
        pad_token_id=processor.pad_token_id,
        eos_token_id=list(end_tokens(processor)),
        return_dict_in_generate=True,
        **sampling,
    )


def end_tokens(processor: Processor) -> tuple[int, ...]:
    """The tokens that end an answer."""
    vocabulary = processor.tokenizer.get_vocab()
    return tuple(vocabulary[token] for token in END_TOKENS)
