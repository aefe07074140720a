"""Groups of weights with learning rates and weight decay of their own.

A weight's rate is that of the part it is in, times `loraplus_lr_ratio` if it is one of LoRA's B; whether it decays is
Trainer's rule. Schedules scale the rate of each group, so they keep their proportions.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from riskva.errors import RecipeError
from riskva.recipe import SftRecipe
from riskva.recipe.deepspeed import deepspeed_settings

Part = Literal["language", "vision", "projector"]

PROJECTOR = re.compile(r"(?:^|\.)visual\.merger\.")
VISION = re.compile(r"(?:^|\.)visual\.")
WRAPPERS = re.compile(r"(?:_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module)\.")
"""What FSDP and torch.compile put into names."""

OWN_GROUPS = ("params", "model", "optimizer_dict")
"""Arguments in which transformers hands over the groups of optimizers that choose them."""


@dataclass(frozen=True)
class LearningRates:
    """What a recipe sets besides `learning_rate`; None where it sets nothing."""

    vision: float | None = None
    merger: float | None = None
    loraplus_ratio: float | None = None

    @classmethod
    def of(cls, recipe: SftRecipe) -> LearningRates:
        """The recipe's. Raises `RecipeError` where DeepSpeed's configuration sets one learning rate for all."""
        rates = cls(recipe.vision_lr, recipe.merger_lr, recipe.loraplus_lr_ratio)
        sections = [name for name in ("optimizer", "scheduler") if name in deepspeed_settings(recipe)]
        if rates.are_set and sections:
            raise RecipeError(
                f"deepspeed: its section {' and '.join(sections)} has one learning rate for all weights, against "
                "vision_lr, merger_lr or loraplus_lr_ratio; delete it, and transformers' own is used"
            )
        return rates

    @property
    def are_set(self) -> bool:
        """Whether any weight has another rate than `learning_rate`."""
        return self != LearningRates()


class _Kind(NamedTuple):
    """What the weights of a group have in common."""

    part: Part
    is_fast: bool
    """LoRA+'s B: its rate is `loraplus_ratio` times that of the part."""
    decays: bool

    @property
    def label(self) -> str:
        return self.part + " lora_B" * self.is_fast + " no_decay" * (not self.decays)

    def rate(self, base: float, rates: LearningRates) -> float:
        own = {"vision": rates.vision, "projector": rates.merger}.get(self.part)
        return (base if own is None else own) * (rates.loraplus_ratio or 1 if self.is_fast else 1)


def part_of(name: str) -> Part:
    """The part of the model that a parameter is in, whatever PEFT, FSDP or torch.compile put around its name."""
    name = WRAPPERS.sub("", name)
    if PROJECTOR.search(name):
        return "projector"
    return "vision" if VISION.search(name) else "language"


def parameter_groups(
    model: nn.Module, args: TrainingArguments, rates: LearningRates, decaying: Collection[str]
) -> list[dict[str, Any]]:
    """The trainable weights of `model` as an optimizer takes them; Trainer's two groups when no rate is set.

    Otherwise none is empty, each has a `name`, and those at `learning_rate` come first: Trainer logs the first one's
    rate. `decaying` names the weights that decay (`Trainer.get_decay_parameter_names`). Raises `RecipeError` when a
    rate is for weights of which none trains.
    """
    decaying = frozenset(decaying)
    trainable = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not rates.are_set:
        both = [[one for name, one in trainable.items() if (name in decaying) is decays] for decays in (True, False)]
        return [{"params": both[0], "weight_decay": args.weight_decay}, {"params": both[1], "weight_decay": 0.0}]
    _require_used(rates, trainable)
    kinds: dict[_Kind, list[nn.Parameter]] = {}
    for name, weight in trainable.items():
        is_fast = rates.loraplus_ratio is not None and _is_fast(name, weight)
        kinds.setdefault(_Kind(part_of(name), is_fast, name in decaying), []).append(weight)
    groups = [_group(kind, weights, args, rates) for kind, weights in kinds.items()]
    return sorted(groups, key=lambda group: group["lr"] != args.learning_rate)


def with_groups(
    optimizer: tuple[Any, Mapping[str, Any]], groups: list[dict[str, Any]]
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """What `Trainer.get_optimizer_cls_and_kwargs` gives, with `groups` where Trainer looks for those of GaLore's kind.

    Raises `RecipeError` for an optimizer that chooses its groups itself.
    """
    kind, arguments = optimizer
    chooses = any(name in arguments for name in OWN_GROUPS)
    if chooses or not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        name = getattr(kind, "__name__", kind)
        raise RecipeError(f"optim: {name} groups the weights itself, so none can have a learning rate of its own")
    return kind, {**arguments, "params": groups}


def rates_by_group(groups: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The current learning rate of each named group, as a log shows it: `learning_rate/vision lora_B`."""
    return {f"learning_rate/{group['name']}": float(group["lr"]) for group in groups if "name" in group}


def _group(kind: _Kind, weights: list[nn.Parameter], args: TrainingArguments, rates: LearningRates) -> dict[str, Any]:
    return {
        "params": weights,
        "weight_decay": args.weight_decay if kind.decays else 0.0,
        "lr": kind.rate(args.learning_rate, rates),
        "name": kind.label,
    }


def _is_fast(name: str, weight: Tensor) -> bool:
    """PEFT's rule for LoRA+ (`create_loraplus_optimizer`): B, and vectors such as DoRA's magnitudes."""
    return "lora_B" in name or len(getattr(weight, "ds_shape", weight.shape)) == 1


def _require_used(rates: LearningRates, names: Collection[str]) -> None:
    parts = {part_of(name) for name in names}
    unused = [
        *(["vision_lr"] if rates.vision is not None and "vision" not in parts else []),
        *(["merger_lr"] if rates.merger is not None and "projector" not in parts else []),
        *(["loraplus_lr_ratio"] if rates.loraplus_ratio is not None and not any("lora_B" in n for n in names) else []),
    ]
    if unused:
        raise RecipeError(f"{', '.join(unused)}: none of the weights that it is for trains; leave it out")
