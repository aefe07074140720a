"""What llguidance's calls take, token by token, for `bench_predict.py`; with a vocabulary as large as Qwen2.5-VL's."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import Any, TypeVar

import torch
from make_tiny_model import SPECIAL_TOKENS
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

from riskva.encoding import Processor
from riskva.generation.answer import end_tokens
from riskva.generation.constraint import Constraint

T = TypeVar("T")

QWEN_TOKENS, QWEN_SCORES = 151_665, 151_936
"""Tokens of Qwen2.5-VL's tokenizer, and rows of the 3B's output layer."""
LONGEST_TOKEN = 24
"""Bytes."""


@dataclass(frozen=True)
class Calls:
    """Mean seconds of each call, per row and token."""

    vocabulary: str
    validate: float
    """Whether the likeliest token may come: once a token."""
    consume: float
    """Go on by one token: once a token."""
    mask: float
    """All tokens that may come: where the likeliest may not."""
    step: float
    """What RisKVA adds to a step of one row on the CPU, where the likeliest token may come; finding it is in it."""
    masked_step: float
    """The same where others are ruled out first."""


def large_tokenizer(small: Any, draw: random.Random, num_tokens: int = QWEN_TOKENS) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer, as large as Qwen2.5-VL's.

    Made up: the tokens of `small`, then random merges of two tokens that are whole text, so that what is said in a
    report is tokenized as `small` does it or shorter.
    """
    model = json.loads(small.backend_tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = dict(model["vocab"])
    merges = [tuple(pair) for pair in model["merges"]]
    whole = [one for one in vocabulary if len(one) > 1 and "\ufffd" not in small.convert_tokens_to_string([one])]
    while len(vocabulary) < num_tokens - len(SPECIAL_TOKENS):
        pair = draw.choice(whole), draw.choice(whole)
        made = "".join(pair)
        if made not in vocabulary and len(made) <= LONGEST_TOKEN:
            vocabulary[made] = len(vocabulary)
            merges.append(pair)
            whole.append(made)
    first, *others = SPECIAL_TOKENS
    return Qwen2Tokenizer(
        vocab=vocabulary, merges=merges, unk_token=None, eos_token=first, pad_token=first, extra_special_tokens=others
    )


def call_times(name: str, processor: Processor, num_scores: int, grammar: str, text: str) -> Calls:
    """Each call at each token of `text`, which the grammar allows."""
    tokenizer = processor.tokenizer
    constraint = Constraint(grammar, processor, num_scores, end_tokens(processor))
    matcher = constraint._matcher.deep_copy()  # as RisKVA makes it, to be asked apart from what it is asked for
    usual, masked = (constraint.for_batch(1, 0, is_greedy) for is_greedy in (True, False))
    tokens: Sequence[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = torch.empty(1, 0, dtype=torch.int64)
    times: list[tuple[float, ...]] = []
    for token in tokens:
        scores = torch.zeros(1, num_scores)
        scores[0, token] = 1.0
        step = timed(partial(usual, ids, scores))[0]
        masked_step = timed(partial(masked, ids, scores))[0]
        if scores[0, token] != 1.0:
            raise RuntimeError(f"the grammar does not allow {tokenizer.decode([token])!r} where the text has it")
        mask = timed(matcher.compute_bitmask)[0]
        validate = timed(partial(matcher.validate_tokens, [token]))[0]
        consume = timed(partial(matcher.consume_token, token))[0]
        times.append((validate, consume, mask, step, masked_step))
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    return Calls(name, *map(mean, zip(*times, strict=True)))


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and what it gave."""
    began = time.perf_counter()
    outcome = call()
    return time.perf_counter() - began, outcome
