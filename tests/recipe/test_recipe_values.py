"""What a word means depends on what is expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recipe_loading import Load

from riskva.recipe import EvalRecipe, PrepareRecipe, SftRecipe
from riskva.report import DEFAULT_FORMAT


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("learning_rate: 5e-6", 5e-6),
        ("learning_rate: 1", 1),
        ("save_strategy: no", "no"),
        ("save_strategy: 'no'", "no"),
        ("run_name: off", "off"),
        ("run_name: 007", "007"),
        ("run_name: 1e3", "1e3"),
        ("bf16: true", True),
        ("bf16: no", False),
        ("bf16: On", True),
        ("max_steps: 1e3", 1000),
        ("max_steps: 20.0", 20),
        ("save_steps: 0.25", 0.25),
        ("report_to: none", "none"),
        ("report_to: tensorboard,wandb", ["tensorboard", "wandb"]),
        ("report_to: [tensorboard, wandb]", ["tensorboard", "wandb"]),
        ("lr_scheduler_kwargs: {num_cycles: 2, name: no}", {"num_cycles": 2, "name": "no"}),
        ("resume_from_checkpoint: true", True),
        ("resume_from_checkpoint: o/checkpoint-5", "o/checkpoint-5"),
        ("deepspeed: {zero_optimization: {stage: 2}}", {"zero_optimization": {"stage": 2}}),
        ("max_grad_norm: .inf", float("inf")),
    ],
)
def test_training_fields_take_the_type_that_is_expected(load: Load, sft: str, line: str, value: Any) -> None:
    recipe = load(f"{sft}{line}\n").recipe
    assert isinstance(recipe, SftRecipe)
    (found,) = recipe.training.values()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("value", ["q_proj,v_proj", "q_proj, v_proj,", "[q_proj, v_proj]", "\n- q_proj\n- v_proj"])
def test_lists_of_names_take_commas_too(load: Load, sft: str, value: str) -> None:
    recipe = load(f"{sft}lora_target: {value}\n").recipe
    assert isinstance(recipe, SftRecipe)
    assert recipe.lora_target == ("q_proj", "v_proj")


def test_keys_that_stages_share_with_transformers_are_fields_of_the_stage(load: Load, evaluate: str, sft: str) -> None:
    lines = "bf16: true\nseed: 3\nper_device_eval_batch_size: 2\n"
    predicted = load(evaluate + lines).recipe
    trained = load(sft + lines).recipe
    assert isinstance(predicted, EvalRecipe)
    assert isinstance(trained, SftRecipe)
    assert (predicted.bf16, predicted.seed, predicted.per_device_eval_batch_size) == (True, 3, 2)
    assert trained.training == {"bf16": True, "seed": 3, "per_device_eval_batch_size": 2}


def test_answer_fields_become_the_report_format(load: Load, prepare: str, evaluate: str) -> None:
    lines = "".join(
        f"- {{label: {one.label}, column: {one.column}, is_level: {str(one.is_level).lower()}}}\n"
        for one in DEFAULT_FORMAT.fields
    )
    for text in (prepare, evaluate):
        recipe = load(f"{text}answer_fields:\n{lines}").recipe
        assert isinstance(recipe, PrepareRecipe | EvalRecipe)
        assert recipe.report_format() == DEFAULT_FORMAT


def test_without_answer_fields_there_is_no_format(load: Load, prepare: str) -> None:
    recipe = load(prepare).recipe
    assert isinstance(recipe, PrepareRecipe)
    assert recipe.report_format() is None


def test_recipes_are_frozen() -> None:
    recipe = PrepareRecipe(stage="prepare", preview=Path("x"))
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"freeze_language_model": True}, "everything is frozen"),
        ({"training": {"learning_rat": 1}}, "no fields of TrainingArguments that a recipe sets: learning_rat"),
        ({"training": {"bf16": True, "fp16": True}}, "bf16 and fp16 contradict each other"),
        ({"dataset": " , "}, "dataset: names no data set"),
    ],
)
def test_recipes_built_by_hand_are_checked_too(values: dict[str, Any], message: str) -> None:
    needed = {"stage": "sft", "model_name_or_path": "m", "dataset": "d", "output_dir": "o"}
    assert SftRecipe.model_validate(needed).dataset == ("d",)
    with pytest.raises(ValueError, match=message):
        SftRecipe.model_validate(needed | values)
