"""What trains must be able to: forms of LoRA, 4 bits and learning rates of parts, checked before anything loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recipe_loading import Faults, Load

from riskva.errors import RecipeError
from riskva.recipe import SftRecipe
from riskva.recipe.deepspeed import deepspeed_settings, splits_weights


@pytest.mark.parametrize("line", ["use_rslora: true", "use_dora: true", "loraplus_lr_ratio: 16", "quantization_bit: 4"])
@pytest.mark.parametrize("kind", ["full", "freeze"])
def test_forms_of_lora_need_lora(faults: Faults, load: Load, sft: str, line: str, kind: str) -> None:
    key = line.partition(":")[0]
    assert isinstance(load(f"{sft}{line}\n").recipe, SftRecipe)
    found = faults(f"{sft}finetuning_type: {kind}\n{line}\n")
    assert found == [f"r.yaml:6: {key}: needs finetuning_type: lora, found {kind}"]


@pytest.mark.parametrize(
    ("line", "remedy"),
    [("fsdp: full_shard", "deepspeed with ZeRO-2"), ("use_cpu: true", "quantization_bit: null")],
)
def test_four_bits_need_a_gpu_for_the_whole_model(faults: Faults, sft: str, line: str, remedy: str) -> None:
    key = line.partition(":")[0]
    found = faults(f"{sft}{line}\nquantization_bit: 4\n")
    assert found == [f"r.yaml:6: quantization_bit: quantization_bit cannot be combined with {key}; use {remedy}"]


def test_four_bits_are_the_only_ones(faults: Faults, sft: str) -> None:
    (found,) = faults(f"{sft}quantization_bit: 8\n")
    assert found.startswith("r.yaml:5: quantization_bit: ")


@pytest.mark.parametrize(
    ("key", "freeze"), [("vision_lr", "freeze_vision_tower"), ("merger_lr", "freeze_multi_modal_projector")]
)
def test_a_rate_is_for_a_part_that_trains(faults: Faults, load: Load, sft: str, key: str, freeze: str) -> None:
    text = f"{sft}{key}: 2.0e-6\n"
    assert faults(text) == [f"r.yaml:5: {key}: {key} is for weights that train; set {freeze}: false, or leave it out"]
    assert load(f"{text}{freeze}: false\n")
    assert load(f"{text}adapter_name_or_path: a\n")  # it says itself what trains


@pytest.mark.parametrize("optim", ["galore_adamw", "apollo_adamw", "lomo", "adalomo"])
def test_an_optimizer_that_groups_weights_itself_takes_no_rates(
    faults: Faults, load: Load, sft: str, optim: str
) -> None:
    text = f"{sft}optim: {optim}\n"
    assert load(text)
    (found,) = faults(f"{text}loraplus_lr_ratio: 16\n")
    assert found == (
        f"r.yaml:6: loraplus_lr_ratio: {optim} chooses the groups of weights itself; leave loraplus_lr_ratio out, "
        "or take optim: adamw_torch"
    )


def test_its_qlora_recipe_trains(load: Load, sft: str) -> None:
    lines = "quantization_bit: 4\nquantization_method: bnb\ndouble_quantization: true\nquantization_type: nf4\n"
    loaded = load(f"{sft}{lines}use_rslora: true\nuse_dora: true\nloraplus_lr_ratio: 16.0\n")
    recipe = loaded.recipe
    assert isinstance(recipe, SftRecipe)
    assert (recipe.quantization_bit, recipe.use_rslora, recipe.use_dora, recipe.loraplus_lr_ratio) == (
        4,
        True,
        True,
        16,
    )
    assert loaded.warnings == ()


def test_what_deepspeed_is_told(tmp_path: Path) -> None:
    needed = {"stage": "sft", "model_name_or_path": "m", "dataset": "d", "output_dir": "o"}
    path = tmp_path / "ds.json"
    told = {"zero_optimization": {"stage": 3}}
    path.write_text(json.dumps(told))
    for given, expected in ((None, {}), (told, told), (str(path), told)):
        recipe = SftRecipe.model_validate({**needed, "training": {"deepspeed": given}})
        assert deepspeed_settings(recipe) == expected
        assert splits_weights(recipe) is bool(expected)
    path.write_text("{")
    with pytest.raises(RecipeError, match=r"deepspeed: .*ds\.json cannot be read"):
        deepspeed_settings(recipe)
