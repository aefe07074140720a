"""What a model may write: tokens that cannot belong to a report any more are ruled out before one is chosen.

The grammar of a report is llguidance's (a Lark dialect); it knows nothing of tokens, so that every way of spelling a
text in tokens is allowed. It bounds every field's length and leaves the level three words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import llguidance.hf
import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor
from transformers import LogitsProcessor

from riskva.encoding import Processor
from riskva.report import LEVEL_LABELS, ReportField, ReportFormat

Form = Literal["report", "json"]

FIRST = r"\p{C}\p{Z}"
"""A text does not begin with white space or an invisible character, so that it is never empty."""
OTHER = r"\p{Cc}\p{Zl}\p{Zp}"
"""Nothing in a text ends its line."""


SLICES = tuple(rf"""[^"\\{OTHER}]{times}""" for times in ("{1,10}", "{1,30}", "+"))
"""Tokens that llguidance looks at together while a text is written: a mask took 0.7 ms instead of 2.9 ms on average,
measured over a vocabulary of 151,936 tokens."""


def grammar_of(report_format: ReportFormat, form: Form, max_field_chars: int) -> str:
    """The grammar of all reports of that form whose texts have at most `max_field_chars` characters.

    `report` is what `ReportFormat.render` writes, `json` one object with the fields in their order, whose texts hold
    neither quotation marks nor backslashes.
    """
    forbidden = '"\\\\' if form == "json" else ""
    text = rf"/[^{forbidden}{FIRST}][^{forbidden}{OTHER}]{{0,{max_field_chars - 1}}}/"
    pieces = (_json_pieces if form == "json" else _report_pieces)(report_format.fields)
    levels = " | ".join(map(_literal, LEVEL_LABELS))
    return f"start: {' '.join(pieces)}\nLEVEL: {levels}\nTEXT: {text}\n"


def _report_pieces(fields: Sequence[ReportField]) -> list[str]:
    pieces = []
    for number, one in enumerate(fields):
        pieces += [_literal(("\n" if number else "") + f"**{one.label}**: "), _kind(one)]
    return pieces


def _json_pieces(fields: Sequence[ReportField]) -> list[str]:
    pieces = []
    for number, one in enumerate(fields):
        name = json.dumps(one.label, ensure_ascii=False)
        pieces += [_literal(('", ' if number else "{") + f'{name}: "'), _kind(one)]
    return [*pieces, _literal('"}')]


def _kind(one: ReportField) -> str:
    return "LEVEL" if one.is_level else "TEXT"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True)
class Constraint:
    """A grammar for one model's vocabulary of `num_tokens` tokens, of which `end_tokens` end an answer."""

    grammar: str
    processor: Processor
    num_tokens: int
    end_tokens: tuple[int, ...]

    def for_batch(self, num_rows: int, first: int, is_greedy: bool) -> ConstrainedRows:
        """What `generate` asks at each step; the rows' own tokens begin at column `first`."""
        matchers = [self._matcher.deep_copy() for _ in range(num_rows)]
        return ConstrainedRows(matchers, frozenset(self.end_tokens), first, is_greedy)

    @cached_property
    def _matcher(self) -> LLMatcher:
        matcher = LLMatcher(self._tokenizer, self.grammar)
        if matcher.is_error():
            raise ValueError(f"llguidance refuses the grammar: {matcher.get_error()}")
        return matcher

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        return llguidance.hf.from_tokenizer(
            cast(Any, self.processor.tokenizer),  # whose type does not say that it is a fast one
            n_vocab=self.num_tokens,
            eos_token=list(self.end_tokens),
            slices=list(SLICES),
        )


class ConstrainedRows(LogitsProcessor):
    """The grammar's state in each row of a batch.

    A mask over the vocabulary is the dear part. While the likeliest token is allowed, ruling out others changes
    nothing that is greedily chosen, so that rows of a trained model hardly ever need one.
    """

    def __init__(self, matchers: Sequence[LLMatcher], end_tokens: frozenset[int], first: int, is_greedy: bool) -> None:
        self._open = dict(enumerate(matchers))
        self._end_tokens = end_tokens
        self._first = first
        self._is_greedy = is_greedy

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores (B, V), tokens that no report can go on with at -inf."""
        if input_ids.shape[1] > self._first:
            self._take(input_ids[:, -1].tolist())
        likeliest = scores.argmax(dim=-1).tolist() if self._is_greedy else None
        for row, matcher in self._open.items():
            if likeliest is None or not matcher.validate_tokens([likeliest[row]]):
                scores[row, ~_allowed(matcher, scores.shape[1]).to(scores.device)] = -torch.inf
        return scores

    def _take(self, tokens: Sequence[int]) -> None:
        for row, matcher in list(self._open.items()):
            if tokens[row] in self._end_tokens:
                del self._open[row]
            elif not matcher.consume_token(tokens[row]):
                raise RuntimeError(f"a token that the grammar forbids was chosen: {matcher.get_error()}")


def _allowed(matcher: LLMatcher, num_scores: int) -> Tensor:
    """(V,): which tokens may come next; scores behind the vocabulary belong to no token."""
    bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")[:num_scores]
    return torch.from_numpy(np.pad(bits, (0, num_scores - len(bits))).astype(bool))
