"""Groups of weights against Trainer's and PEFT's own, and how a schedule moves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from torch import nn
from transformers import Trainer, TrainingArguments

from riskva.errors import RecipeError
from riskva.modeling.loading import load_model
from riskva.modeling.tuning import prepare_tuning
from riskva.recipe import SftRecipe
from riskva.training.optimizer import LearningRates, parameter_groups, part_of, rates_by_group, with_groups

UNFROZEN = {"freeze_vision_tower": False, "freeze_multi_modal_projector": False}
RATE = 1e-4


def recipe(**keys: Any) -> SftRecipe:
    return SftRecipe(stage="sft", model_name_or_path="m", output_dir=Path("o"), dataset=("d",), lora_rank=4, **keys)


def tuned(folder: Path, **keys: Any) -> nn.Module:
    return prepare_tuning(load_model(folder), recipe(**keys))


class GroupingTrainer(Trainer):
    """Trainer with the one override that the groups need."""

    def __init__(self, model: nn.Module, args: TrainingArguments, rates: LearningRates) -> None:
        super().__init__(model, args)
        self.rates = rates

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None and self.rates.are_set:
            whole = self.model if model is None else model
            groups = parameter_groups(whole, self.args, self.rates, self.get_decay_parameter_names(whole))
            self.optimizer_cls_and_kwargs = with_groups(self.get_optimizer_cls_and_kwargs(self.args, whole), groups)
        return super().create_optimizer(model)


def arguments(folder: Path, **keys: Any) -> TrainingArguments:
    values = {"learning_rate": RATE, "weight_decay": 0.1, "use_cpu": True, "report_to": "none"}
    return TrainingArguments(str(folder), **values | keys)


def by_name(model: nn.Module, groups: list[dict[str, Any]], *keys: str) -> dict[str, tuple[Any, ...]]:
    """What `groups` say of each weight, by its name; each trainable weight must stand in exactly one of them."""
    names = {weight: name for name, weight in model.named_parameters()}
    of_groups = [(names[weight], tuple(group[key] for key in keys)) for group in groups for weight in group["params"]]
    found = dict(of_groups)
    assert len(of_groups) == len(found)
    assert set(found) == {name for name, weight in model.named_parameters() if weight.requires_grad}
    return found


@pytest.mark.parametrize("keys", [{}, {"finetuning_type": "full"}, {"use_dora": True, **UNFROZEN}])
def test_without_rates_the_groups_are_trainers(keys: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    model, args = tuned(tiny_model, **keys), arguments(tmp_path)
    trainer = Trainer(model, args)
    expected = trainer.create_optimizer().param_groups
    groups = parameter_groups(model, args, LearningRates(), trainer.get_decay_parameter_names(model))
    assert [set(group) for group in groups] == [{"params", "weight_decay"}] * 2
    for ours, theirs in zip(groups, expected, strict=True):
        assert [id(weight) for weight in ours["params"]] == [id(weight) for weight in theirs["params"]]
        assert ours["weight_decay"] == theirs["weight_decay"]


@pytest.mark.parametrize("keys", [{}, {"use_dora": True}, UNFROZEN])
def test_lora_plus_is_pefts(keys: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    model, args = tuned(tiny_model, **keys), arguments(tmp_path)
    assert isinstance(model, PeftModel)
    theirs = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=RATE, loraplus_lr_ratio=16, loraplus_weight_decay=0.1
    )
    ours = GroupingTrainer(model, args, LearningRates(loraplus_ratio=16)).create_optimizer()
    compared = ("lr", "weight_decay")
    assert by_name(model, ours.param_groups, *compared) == by_name(model, theirs.param_groups, *compared)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_each_part_has_its_rate_and_decays_as_in_trainer(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    model, args = tuned(tiny_model, finetuning_type=kind, **UNFROZEN), arguments(tmp_path)
    rates = LearningRates(2e-6, 3e-5, 16 if kind == "lora" else None)
    optimizer = GroupingTrainer(model, args, rates).create_optimizer()
    found = by_name(model, optimizer.param_groups, "lr", "weight_decay")
    plain = by_name(model, Trainer(model, args).create_optimizer().param_groups, "weight_decay")
    for name, (rate, decay) in found.items():
        part = 3e-5 if "visual.merger" in name else 2e-6 if "visual" in name else RATE
        assert rate == pytest.approx(part * (16 if "lora_B" in name else 1)), name
        assert (decay,) == plain[name]
    assert optimizer.param_groups[0]["lr"] == RATE  # the one that Trainer logs
    assert all(group["params"] for group in optimizer.param_groups)


def test_a_schedule_keeps_the_proportions(tiny_model: Path, tmp_path: Path) -> None:
    model = tuned(tiny_model, **UNFROZEN)
    rates = LearningRates(2e-6, 3e-5, 16)
    trainer = GroupingTrainer(model, arguments(tmp_path, warmup_steps=10, lr_scheduler_type="cosine"), rates)
    optimizer = trainer.create_optimizer()
    whole = rates_by_group(optimizer.param_groups)
    assert whole == {
        "learning_rate/language": RATE,
        "learning_rate/language lora_B": pytest.approx(16 * RATE),
        "learning_rate/vision": 2e-6,
        "learning_rate/vision lora_B": pytest.approx(32e-6),
        "learning_rate/projector": 3e-5,
        "learning_rate/projector lora_B": pytest.approx(48e-5),
    }
    scheduler = trainer.create_scheduler(num_training_steps=100)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    half = rates_by_group(optimizer.param_groups)
    assert half == {name: pytest.approx(rate / 2) for name, rate in whole.items()}


@pytest.mark.parametrize(
    ("rates", "named"),
    [
        (LearningRates(vision=1e-6), "vision_lr"),
        (LearningRates(vision=1e-6, merger=1e-6), "vision_lr, merger_lr"),
    ],
)
def test_a_rate_of_what_does_not_train_is_refused(
    rates: LearningRates, named: str, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=rf"^{named}: none of the weights that it is for trains"):
        parameter_groups(tuned(tiny_model), arguments(tmp_path), rates, [])


def test_lora_plus_needs_lora(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^loraplus_lr_ratio: none of the weights"):
        parameter_groups(
            tuned(tiny_model, finetuning_type="full"), arguments(tmp_path), LearningRates(None, None, 4), []
        )


@pytest.mark.parametrize("arguments", [{"params": []}, {"model": None}, {"optimizer_dict": {}}])
def test_an_optimizer_with_groups_of_its_own_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="optim: AdamW groups the weights itself"):
        with_groups((torch.optim.AdamW, arguments), [])
    with pytest.raises(RecipeError, match="groups the weights itself"):
        with_groups((lambda model: None, {}), [])


@pytest.mark.parametrize("section", ["optimizer", "scheduler"])
def test_a_section_of_deepspeed_with_one_rate_is_refused(section: str, tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({section: {"type": "AdamW"}}))
    training = {"deepspeed": str(path)}
    with pytest.raises(RecipeError, match=f"deepspeed: its section {section} has one learning rate"):
        LearningRates.of(recipe(loraplus_lr_ratio=16, training=training))
    assert not LearningRates.of(recipe(training=training)).are_set


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[2].glob("recipes/deepspeed/*.json")), ids=lambda p: p.name
)
def test_the_shipped_deepspeed_files_leave_the_rates_to_the_recipe(path: Path) -> None:
    assert LearningRates.of(recipe(loraplus_lr_ratio=16, training={"deepspeed": str(path)})).loraplus_ratio == 16


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("base_model.model.model.visual.blocks.0.attn.qkv.lora_A.default.weight", "vision"),
        ("model.visual.patch_embed.proj.weight", "vision"),
        ("module.model.visual.merger.mlp.0.weight", "projector"),
        ("model.visual.merger.ln_q.weight", "projector"),
        ("model._fsdp_wrapped_module.visual._fsdp_wrapped_module.merger.mlp.2.weight", "projector"),
        ("model.visual.blocks.3._orig_mod.mlp.gate_proj.weight", "vision"),
        ("model.language_model.layers.0.mlp.gate_proj.weight", "language"),
        ("lm_head.weight", "language"),
    ],
)
def test_part_of(name: str, part: str) -> None:
    assert part_of(name) == part
