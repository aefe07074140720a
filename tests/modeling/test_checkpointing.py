"""Checkpointed layers give the loss and gradients of others, and just as many are checkpointed as memory asks for."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from riskva.modeling.checkpointing import (
    checkpoint_layers,
    memory_at_hand,
    num_layers_to_checkpoint,
)
from riskva.modeling.loading import load_model
from riskva.modeling.tuning import prepare_tuning
from riskva.recipe import SftRecipe

LENGTHS = (24, 16)
IMAGE_TOKENS = 6
"""A photo of 4 x 6 patches, in the first sample."""


def recipe(**keys: Any) -> SftRecipe:
    return SftRecipe(stage="sft", model_name_or_path="m", output_dir=Path("o"), dataset=("d",), **keys)


def packed(model: torch.nn.Module) -> dict[str, Any]:
    """Two samples in a row, the first one with a photo; every token but the first eight of a sample is supervised."""
    image_token = model.config.image_token_id
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 200, (1, sum(LENGTHS)), generator=generator)
    labels = ids.clone()
    ids[0, 1 : 1 + IMAGE_TOKENS] = image_token
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    for start in (0, LENGTHS[0]):
        labels[0, start : start + 8] = -100
    return {
        "input_ids": ids,
        "labels": labels,
        "position_ids": positions.expand(4, 1, -1),
        "cu_seqlens": torch.tensor([0, LENGTHS[0], sum(LENGTHS)], dtype=torch.int32),
        "image_grid_thw": torch.tensor([[1, 4, 6]]),
        "pixel_values": torch.randn(24, 1176, generator=generator),
    }


def step(tiny_model: Path, num: int, **keys: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and all gradients with `num` layers checkpointed; the same dropout in every call."""
    torch.manual_seed(0)
    model = prepare_tuning(load_model(tiny_model), recipe(**keys)).train()
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # zero at first, and then no gradient would reach A
            torch.nn.init.normal_(weight, std=0.1)
    checkpoint_layers(model, num)
    torch.manual_seed(1)
    loss = model(**packed(model)).sums.sum()
    loss.backward()
    return loss.item(), {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize(
    "keys",
    [
        {"lora_rank": 4},
        {"lora_rank": 4, "lora_dropout": 0.3},
        {"finetuning_type": "full"},
        {"finetuning_type": "full", "freeze_vision_tower": False, "freeze_multi_modal_projector": False},
    ],
    ids=["lora", "dropout", "full", "tower"],
)
def test_loss_and_gradients_are_those_without(keys: dict[str, Any], tiny_model: Path) -> None:
    loss, gradients = step(tiny_model, 0, **keys)
    assert gradients
    for num in (1, 2):
        again, others = step(tiny_model, num, **keys)
        assert again == pytest.approx(loss, rel=1e-6)
        assert others.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(others[name], gradient, rtol=1e-5, atol=1e-6)  # measured: equal to the bit


def test_every_trained_weight_has_a_gradient_where_the_embeddings_are_frozen(tiny_model: Path) -> None:
    model = prepare_tuning(load_model(tiny_model), recipe(lora_rank=4))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert step(tiny_model, 2, lora_rank=4)[1].keys() == trained


@pytest.mark.parametrize(("freeze", "num_blocks"), [(True, 0), (False, 2)])
def test_just_the_first_layers_are_checkpointed(freeze: bool, num_blocks: int, tiny_model: Path) -> None:
    model = prepare_tuning(load_model(tiny_model), recipe(lora_rank=4, freeze_vision_tower=freeze))

    def checkpointed() -> list[str]:
        parts = [(name, one) for name, one in model.named_modules() if isinstance(one, GradientCheckpointingLayer)]
        return [re.sub(".*(?=visual|language)", "", name) for name, one in parts if one.gradient_checkpointing]

    checkpoint_layers(model, 1)
    assert checkpointed() == [f"visual.blocks.{i}" for i in range(num_blocks)] + ["language_model.layers.0"]
    checkpoint_layers(model, 0)
    assert checkpointed() == []


def test_as_few_layers_as_fit() -> None:
    def bytes_with(num: int) -> int:
        return 1000 - 100 * num

    assert num_layers_to_checkpoint(bytes_with, 4, 2000) == 0
    assert num_layers_to_checkpoint(bytes_with, 4, 1000) == 1  # a share is left alone
    assert num_layers_to_checkpoint(bytes_with, 4, 500) == 4  # nothing fits: as little as can be


def test_processes_share_the_memory_of_a_machine() -> None:
    alone, of_four = memory_at_hand("cpu"), memory_at_hand("cpu", 4)
    assert 2**27 < alone < 2**50
    assert of_four == pytest.approx(alone / 4, rel=0.1)


@pytest.mark.parametrize(("limit", "expected"), [("max", None), (str(1000 * 2**20), 1000 - 400 + 100)])
def test_container_leaves_what_its_limit_says(
    limit: str, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text(f"{400 * 2**20}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {100 * 2**20}\n")
    without = memory_at_hand("cpu")
    monkeypatch.setattr("riskva.main_memory._CGROUP", tmp_path)
    wanted = without if expected is None else min(without, expected * 2**20 // 2)
    assert memory_at_hand("cpu") == pytest.approx(wanted, rel=0.2)
