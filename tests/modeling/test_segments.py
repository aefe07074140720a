"""Attention within segments against one attention over the whole row with a mask."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from riskva.modeling.segments import attend_within

LENGTHS = {
    "one": [7],
    "of one place": [1, 1, 1],
    "different": [5, 12, 1, 8],
    "equal neighbours": [4, 4, 4, 9, 9],
    "equal ones apart": [4, 2, 4, 2, 4, 2, 4, 2, 4, 2],
    "a photo's windows": [16, 16, 8, 16, 16, 8, 4, 4, 2, 16, 8, 16, 8],
}


def masked_attention(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], is_causal: bool) -> Tensor:
    """By the formula, in float64, over all places at once."""
    segment = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    sees = segment[:, None] == segment[None]
    if is_causal:
        sees = sees.tril()
    groups = query.shape[1] // key.shape[1]
    query, key, value = (one.double().transpose(0, 1) for one in (query, key, value))
    key, value = (one.repeat_interleave(groups, dim=0) for one in (key, value))
    scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])
    return (scores.masked_fill(~sees, -math.inf).softmax(-1) @ value).transpose(0, 1)


def places(length: int, key_heads: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(length, heads, 16) for heads in (4, key_heads, key_heads)]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def bounds(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)


@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("name", LENGTHS)
def test_values_and_gradients_are_those_with_a_mask(name: str, is_causal: bool, key_heads: int) -> None:
    lengths = LENGTHS[name]
    ours = places(sum(lengths), key_heads)
    theirs = [one.detach().requires_grad_() for one in ours]
    found = attend_within(ours[0], ours[1], ours[2], bounds(lengths), is_causal=is_causal)
    expected = masked_attention(theirs[0], theirs[1], theirs[2], lengths, is_causal)
    # Measured: at most 8e-7 apart, gradients too.
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=5e-6)
    weights = torch.rand(found.shape, generator=torch.Generator().manual_seed(1))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=5e-6)


def test_bfloat16_is_as_near_as_its_rounding() -> None:
    lengths = LENGTHS["a photo's windows"]
    query, key, value = (one.detach().bfloat16() for one in places(sum(lengths), 2))
    found = attend_within(query, key, value, bounds(lengths), is_causal=True)
    assert found.dtype == torch.bfloat16
    expected = masked_attention(query, key, value, lengths, is_causal=True)
    torch.testing.assert_close(found.double(), expected, rtol=2**-7, atol=2**-7)


class AttentionCalls(TorchFunctionMode):
    """Counts calls of attention, and the scores that they compute."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.scores = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            self.calls += 1
            self.scores += args[0].shape[0] * args[0].shape[-2] * args[1].shape[-2]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "most"),
    [("one", 1), ("of one place", 1), ("equal neighbours", 2), ("equal ones apart", 2), ("a photo's windows", 4)],
)
def test_segments_of_one_length_share_a_call(name: str, most: int) -> None:
    lengths = LENGTHS[name]
    query, key, value = places(sum(lengths), 2)
    with AttentionCalls() as counted:
        attend_within(query, key, value, bounds(lengths), is_causal=False)
    assert counted.calls <= most
    assert counted.scores == sum(length**2 for length in lengths)  # nothing across segments, no padding


def test_a_segment_is_blind_to_all_others() -> None:
    """Also to what is no number: nothing of another segment is ever multiplied by zero."""
    lengths = LENGTHS["a photo's windows"]
    query, key, value = (one.detach() for one in places(sum(lengths), 2))
    before = attend_within(query, key, value, bounds(lengths), is_causal=False)
    start, end = bounds(lengths)[4:6].tolist()
    for one in (query, key, value):
        one[start:end] = math.nan
    after = attend_within(query, key, value, bounds(lengths), is_causal=False)
    assert after[start:end].isnan().all()
    others = torch.ones(len(query), dtype=torch.bool)
    others[start:end] = False
    assert after[others].equal(before[others])


def test_layouts_do_not_get_mixed_up() -> None:
    """What is remembered of one row's segments is not taken for another's."""
    for _ in range(2):
        for lengths in ([3, 9], [9, 3], [4, 4, 4], [12], [3, 1, 3, 1, 3, 1], [1, 3, 1, 3, 1, 3]):
            query, key, value = places(12, 2)
            found = attend_within(query, key, value, bounds(lengths), is_causal=True)
            expected = masked_attention(query, key, value, lengths, is_causal=True)
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=5e-6)
