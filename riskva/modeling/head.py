"""The language model's head: logits, or the loss of supervised positions without the logits of all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

POSITIONS_AT_ONCE = 64
"""Positions whose logits exist together: 64 x 152,064 floats are 39 MB."""


class SupervisedHead(nn.Linear):
    """`lm_head`, which with `targets` gives losses in place of logits.

    The loss is worked out in here, and not by who calls it, because ZeRO-3 gathers a module's weight once for each call
    of the module, and processes must make the same number of calls however many positions each of them supervises.
    """

    def forward(self, hidden: Tensor, targets: Tensor | None = None, label_smoothing: float = 0.0) -> Tensor:
        """(…, V) logits of (…, H); with `targets` (S,), the cross entropy (S,) float32 of `hidden` (S, H).

        Logits are computed for a few positions at a time and never kept.
        """
        if targets is None:
            return super().forward(hidden)
        if not len(targets):
            return hidden.sum(dim=1).float()  # nothing, but with a gradient
        parts = zip(torch.split(hidden, POSITIONS_AT_ONCE), torch.split(targets, POSITIONS_AT_ONCE), strict=True)
        return torch.cat([self._losses(part, wanted, label_smoothing) for part, wanted in parts])

    def _losses(self, hidden: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        losses: Tensor
        if not torch.is_grad_enabled():
            losses = _losses(hidden, self.weight, targets, label_smoothing)
        elif self.weight.requires_grad:
            losses = checkpoint(
                _losses, hidden, self.weight, targets, label_smoothing, use_reentrant=False, preserve_rng_state=False
            )
        else:
            losses = _LossesOfFrozenHead.apply(hidden, self.weight, targets, label_smoothing)  # type: ignore[no-untyped-call]
        return losses


class _LossesOfFrozenHead(torch.autograd.Function):
    """`_losses`, whose gradient is worked out while the logits are there: two matrix products in place of three."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        losses, gradient = _losses_and_gradient(hidden, weight, targets, label_smoothing)
        # A position's loss depends on its own hidden state only, so its gradient can be scaled later.
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        # In float32: rounded, 1 / tokens would scale the whole step's gradients by one wrong factor
        return (gradient * gradients[0][:, None]).to(gradient.dtype), None, None, None


def _losses(hidden: Tensor, weight: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    logits = linear(hidden, weight).float()
    return cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)


def _losses_and_gradient(
    hidden: Tensor, weight: Tensor, targets: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """The cross entropy (S,) of `hidden` (S, H), and the gradient (S, H) of each position's own.

    The gradient is (softmax - target) W. The softmax's sum is divided by after the product, where a row has H numbers
    and not V; and what label smoothing takes from the target goes to the mean of all rows of W.
    """
    logits = linear(hidden, weight)
    weight = weight.to(logits.dtype)
    of_targets = logits.gather(1, targets[:, None]).float()
    highest = logits.amax(dim=1, keepdim=True).float()
    terms = logits.float().sub_(highest).exp_() if logits.dtype != torch.float32 else logits.sub_(highest).exp_()
    total = terms.sum(dim=1, keepdim=True)
    log_total = total.log() + highest
    gradient = (terms.to(weight.dtype) @ weight).float() / total - weight[targets].float() * (1 - label_smoothing)
    losses = log_total - (1 - label_smoothing) * of_targets
    if label_smoothing:
        mean = weight.float().mean(dim=0)
        losses -= label_smoothing * (hidden.float() @ mean)[:, None]
        gradient -= label_smoothing * mean
    return losses[:, 0], gradient.to(hidden.dtype)
