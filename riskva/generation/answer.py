"""Encoded prompts become answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from riskva.encoding import Collator, Encoded, Processor
from riskva.recipe.stages import GenerationKeys

END_TOKENS = ("<|im_end|>", "<|endoftext|>")


@dataclass(frozen=True)
class Answer:
    """What a model wrote. `finish_reason` is `length` when `max_new_tokens` cut it off."""

    text: str
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True)
class Answerer:
    """Writes answers with one model; batches of prompts are padded on the left.

    `always_an_image` is the collator's: needed where other processes answer other prompts with parts of one model.
    """

    model: PreTrainedModel | PeftModel
    processor: Processor
    settings: GenerationConfig
    always_an_image: bool = False

    def __call__(self, prompts: Sequence[Encoded]) -> list[Answer]:
        """One answer a prompt, in order."""
        batch = Collator(self.processor, padding_side="left", always_an_image=self.always_an_image)(prompts)
        del batch["labels"]
        device = self.model.device
        # Not inference_mode: weights that ZeRO-3 gathers under it could not be trained afterwards
        with torch.no_grad():
            generate: Any = self.model.generate  # torch's types hide the method behind __getattr__
            ids: Tensor = generate(
                **{name: tensor.to(device) for name, tensor in batch.items()}, generation_config=self.settings
            )
        return [self._answer(row) for row in ids[:, batch["input_ids"].shape[1] :].cpu()]

    def _answer(self, ids: Tensor) -> Answer:
        ends = torch.isin(ids, torch.tensor(self.settings.eos_token_id)).nonzero()
        written = ids[: int(ends[0])] if len(ends) else ids
        text = self.processor.tokenizer.decode(written.tolist(), skip_special_tokens=True)
        return Answer(str(text), "stop" if len(ends) else "length")


def generation_settings(keys: GenerationKeys, processor: Processor) -> GenerationConfig:
    """The recipe's settings and nothing else: the hub's Qwen2.5-VL would silently add a repetition penalty of 1.05."""
    tokenizer = processor.tokenizer
    sampling = {"temperature": keys.temperature, "top_p": keys.top_p} if keys.do_sample else {}
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=keys.max_new_tokens,
        do_sample=keys.do_sample,
        repetition_penalty=keys.repetition_penalty,
        pad_token_id=processor.pad_token_id,
        eos_token_id=[tokenizer.convert_tokens_to_ids(token) for token in END_TOKENS],
        **sampling,
    )
