"""How sure a model is of the level that it has written: the probabilities of the three answers at that very place.

After the text before the level, each of the three words is a short sequence of tokens, and its probability the product
of theirs. All are taken from the state that writing the answer has left behind, in one step more: the last token
before the level and the words' tokens attend to the answer up to there, and each word to itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from riskva.generation.level_place import level_place
from riskva.report import LEVEL_LABELS, ReportFormat

LevelProbabilities = tuple[float, float, float]


@dataclass(frozen=True)
class LevelBranch:
    """Where an answer says its level: behind its first `num_before` tokens.

    `words` are the tokens of what could have stood there, for 轻微, 中等 and 严重; where tokens do not end just before
    the level, they begin with the rest of the text before it.
    """

    num_before: int
    words: tuple[tuple[int, ...], ...]


def level_branch(
    answer_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, report_format: ReportFormat
) -> LevelBranch | None:
    """Where the answer (T ids, without an end token) says its level; None where it does not plainly do so."""
    text = _decoded(answer_ids, tokenizer)
    place = level_place(text, report_format)
    if place is None:
        return None
    before = text[:place]
    num_before = _longest_within(before, answer_ids, tokenizer)
    rest = before[len(_decoded(answer_ids[:num_before], tokenizer)) :]
    words = (tokenizer(rest + label, add_special_tokens=False)["input_ids"] for label in LEVEL_LABELS)
    return LevelBranch(num_before, tuple(map(tuple, words)))


def _longest_within(before: str, ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """The most of the first tokens whose text begins `before`."""
    low, high = 0, len(ids)
    while low < high:  # a character may be in several tokens: lengths alone first
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(_decoded(ids[:middle], tokenizer)) <= len(before) else (low, middle - 1)
    while not before.startswith(_decoded(ids[:low], tokenizer)):
        low -= 1
    return low


def _decoded(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True))


@dataclass(frozen=True)
class Written:
    """What writing answers has left behind.

    `sequences` (B, P + T) are the prompts, padded on the left, and the answers; `attention_mask` (B, P) is that of the
    prompts, `rope_deltas` (B, 1) what M-RoPE's positions differ by from the text's. `cache` holds all tokens but the
    last one.
    """

    sequences: Tensor
    attention_mask: Tensor
    rope_deltas: Tensor
    cache: Cache


def level_probabilities(
    model: Any, written: Written, branches: Sequence[LevelBranch | None]
) -> list[LevelProbabilities | None]:
    """The probabilities of the three levels in each row that has a branch; they add up to 1. Uses up the cache."""
    rows = [row for row, branch in enumerate(branches) if branch is not None]
    if not rows:
        return [None] * len(branches)
    tried = [_tried(branch) for branch in branches]
    steps = _Steps.of(tried, written)
    with torch.no_grad(), _attending_by_mask(model):
        logits = model(
            input_ids=steps.input_ids,
            attention_mask=dict.fromkeys(("full_attention", "sliding_attention"), steps.mask(model.dtype)),
            position_ids=steps.position_ids,
            past_key_values=written.cache,
            use_cache=True,
        ).logits
    found: list[LevelProbabilities | None] = [None] * len(branches)
    for row in rows:
        found[row] = normalised(tried[row].log_probabilities(logits[row].float().log_softmax(dim=-1).cpu()))
    return found


@contextmanager
def _attending_by_mask(model: Any) -> Iterator[None]:
    """Within, attention takes a mask of who sees whom, which flash-attention's kernels do not."""
    usual = model.config._attn_implementation
    if usual in ("sdpa", "eager"):
        yield
        return
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


@dataclass(frozen=True)
class _Tried:
    """One row's tokens to run once more: the last one before the level, then each word without its last token."""

    num_before: int
    words: tuple[tuple[int, ...], ...]

    @property
    def tails(self) -> list[tuple[int, ...]]:
        return [word[:-1] for word in self.words]

    @property
    def num_tokens(self) -> int:
        return 1 + sum(map(len, self.tails))

    @property
    def starts(self) -> list[int]:
        """Where each word begins among the tokens."""
        lengths = list(map(len, self.tails))
        return [1 + sum(lengths[:number]) for number in range(len(lengths))]

    def log_probabilities(self, logs: Tensor) -> list[float]:
        """Each word's, from the tokens' own (Q, V)."""
        return [
            math.fsum(float(logs[start + place - 1 if place else 0, token]) for place, token in enumerate(word))
            for start, word in zip(self.starts, self.words, strict=True)
        ]


def _tried(branch: LevelBranch | None) -> _Tried:
    return _Tried(branch.num_before, branch.words) if branch else _Tried(0, ())


@dataclass(frozen=True)
class _Steps:
    """The tokens of all rows as a batch: (B, Q) ids, (4, B, Q) positions, and (B, Q, C + Q) who sees whom.

    C columns lie in the cache.
    """

    input_ids: Tensor
    position_ids: Tensor
    sees: Tensor

    @classmethod
    def of(cls, tried: Sequence[_Tried], written: Written) -> _Steps:
        device = written.sequences.device
        num_prompt, num_cached = written.attention_mask.shape[1], written.cache.get_seq_length()
        num_rows, width = len(tried), max(one.num_tokens for one in tried)
        ids = torch.zeros(num_rows, width, dtype=torch.int64, device=device)
        behind = torch.zeros(num_rows, width, dtype=torch.int64, device=device)
        sees = torch.zeros(num_rows, width, num_cached + width, dtype=torch.bool, device=device)
        columns = torch.arange(num_cached, device=device)
        is_real = torch.nn.functional.pad(written.attention_mask.bool(), (0, num_cached - num_prompt), value=True)
        sees[:, :, num_cached:] = torch.eye(width, dtype=torch.bool, device=device)  # a column of padding, itself
        for row, one in enumerate(tried):
            last = num_prompt + one.num_before - 1
            ids[row, 0] = written.sequences[row, last]
            sees[row, :, :num_cached] = is_real[row] & (columns < last)
            sees[row, :, num_cached] = True
            behind[row, 0] = one.num_before - 1
            for start, tail in zip(one.starts, one.tails, strict=False):
                end = start + len(tail)
                ids[row, start:end] = torch.tensor(tail, dtype=torch.int64, device=device)
                behind[row, start:end] = one.num_before + torch.arange(len(tail), device=device)
                corner = num_cached + start
                sees[row, start:end, corner : corner + len(tail)] = torch.ones(len(tail), len(tail)).tril().bool()
        text = written.attention_mask.sum(dim=1, keepdim=True) + behind
        seen = text + written.rope_deltas.to(device)
        return cls(ids, torch.stack([text, seen, seen, seen]), sees)

    def mask(self, dtype: torch.dtype) -> Tensor:
        """(B, 1, Q, C + Q), added to attention's scores."""
        closed = torch.full(self.sees.shape, torch.finfo(dtype).min, dtype=dtype, device=self.sees.device)
        return closed.masked_fill(self.sees, 0)[:, None]


def normalised(logs: Sequence[float]) -> LevelProbabilities:
    """Probabilities that add up to 1, of three log-probabilities."""
    largest = max(logs)
    shares = [math.exp(one - largest) for one in logs]
    light, moderate, severe = (share / math.fsum(shares) for share in shares)
    return light, moderate, severe
