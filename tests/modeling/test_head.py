"""The head's losses against cross entropy on all logits at once, and what exists in memory meanwhile."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from riskva.modeling.head import POSITIONS_AT_ONCE, SupervisedHead

VOCABULARY = 211


def head(trains: bool) -> SupervisedHead:
    torch.manual_seed(0)
    return SupervisedHead(16, VOCABULARY, bias=False).requires_grad_(trains)


def inputs(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 16).requires_grad_(), torch.randint(0, VOCABULARY, (count,))


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("count", [1, POSITIONS_AT_ONCE, 3 * POSITIONS_AT_ONCE + 5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_and_gradients_are_those_of_all_logits(count: int, trains: bool, smoothing: float) -> None:
    module = head(trains)
    hidden, targets = inputs(count)
    weights = torch.rand(count)  # each position's loss may count differently
    losses = module(hidden, targets, smoothing)
    (losses * weights).sum().backward()
    ours = [one.grad.clone() for one in (hidden, module.weight) if one.grad is not None]

    hidden.grad = module.weight.grad = None
    theirs = cross_entropy(module(hidden), targets, reduction="none", label_smoothing=smoothing)
    (theirs * weights).sum().backward()
    torch.testing.assert_close(losses, theirs)
    for one, other in zip(ours, [one.grad for one in (hidden, module.weight) if one.grad is not None], strict=True):
        torch.testing.assert_close(one, other)


def test_without_gradients_it_gives_the_same_losses() -> None:
    module = head(trains=False)
    hidden, targets = inputs(100)
    with torch.no_grad():
        torch.testing.assert_close(module(hidden, targets), module(hidden, targets))
        assert not module(hidden, targets).requires_grad


def test_no_supervised_position_gives_no_loss_but_a_gradient() -> None:
    hidden, targets = inputs(0)
    losses = head(trains=True)(hidden, targets)
    losses.sum().backward()
    assert losses.shape == (0,)
    assert hidden.grad is not None


class LargestLogits(TorchDispatchMode):
    """Remembers the most positions for which a tensor over the vocabulary existed."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dim() and result.shape[-1] == VOCABULARY:
            self.most = max(self.most, result.numel() // VOCABULARY)
        return result


@pytest.mark.parametrize("trains", [False, True])
def test_logits_exist_for_a_few_positions_at_a_time(trains: bool) -> None:
    module = head(trains)
    hidden, targets = inputs(1000)
    with LargestLogits() as seen:
        module(hidden, targets).sum().backward()
    assert seen.most == POSITIONS_AT_ONCE
