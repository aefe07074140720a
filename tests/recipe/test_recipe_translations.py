"""Other names of the same keys: transformers 4's and LLaMA-Factory's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recipe_loading import Faults, Load

from riskva.recipe import PrepareRecipe, SftRecipe
from riskva.recipe.keys import STAGES, stage_keys
from riskva.recipe.training_fields import training_schemas
from riskva.recipe.translations import REMOVED, TRANSLATIONS


@pytest.mark.parametrize(
    ("lines", "training"),
    [
        ("warmup_ratio: 0.03", {"warmup_steps": 0.03}),
        ("warmup_ratio: 0.0", {}),
        ("warmup_ratio: 0.03\nwarmup_steps: 0", {"warmup_steps": 0.03}),
        ("warmup_steps: 0\nwarmup_ratio: 0.03", {"warmup_steps": 0.03}),
        ("warmup_ratio: 0\nwarmup_steps: 20", {"warmup_steps": 20}),
        ("warmup_steps: 20", {"warmup_steps": 20}),
        ("evaluation_strategy: no", {"eval_strategy": "no"}),
        ("evaluation_strategy: no\neval_strategy: no", {"eval_strategy": "no"}),
        ("group_by_length: true", {"train_sampling_strategy": "group_by_length"}),
        ("group_by_length: false", {}),
        ("group_by_length: false\ntrain_sampling_strategy: sequential", {"train_sampling_strategy": "sequential"}),
        ("adafactor: true", {"optim": "adafactor"}),
        ("no_cuda: true", {"use_cpu": True}),
        ("save_safetensors: true", {}),
        ("remove_unused_columns: false", {}),
        ("label_names: [labels]", {}),
        ("local_rank: -1", {}),
        ("fp16_opt_level: O1", {}),
    ],
)
def test_old_names_of_training_fields(load: Load, sft: str, lines: str, training: dict[str, Any]) -> None:
    loaded = load(f"{sft}{lines}\n")
    assert isinstance(loaded.recipe, SftRecipe)
    assert loaded.recipe.training == training
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("lines", "packing"),
    [
        ("neat_packing: true", True),
        ("packing: true\nneat_packing: true", True),
        ("packing: true\nneat_packing: false", True),
        ("neat_packing: false\npacking: true", True),
        ("neat_packing: false", False),
    ],
)
def test_neat_packing_is_packing(load: Load, sft: str, lines: str, packing: bool) -> None:
    loaded = load(f"{sft}{lines}\n")
    assert isinstance(loaded.recipe, SftRecipe)
    assert loaded.recipe.packing is packing
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "packing: false\nneat_packing: true",
            "neat_packing: contradicts packing (r.yaml:5); both set packing, keep one",
        ),
        (
            "warmup_ratio: 0.1\nwarmup_steps: 20",
            "warmup_steps: contradicts warmup_ratio (r.yaml:5); both set warmup_steps, keep one",
        ),
        (
            "warmup_steps: 20\nwarmup_ratio: 0.1",
            "warmup_ratio: contradicts warmup_steps (r.yaml:5); both set warmup_steps, keep one",
        ),
        (
            "eval_strategy: no\nevaluation_strategy: epoch",
            "evaluation_strategy: contradicts eval_strategy (r.yaml:5); both set",
        ),
        (
            "flash_attn: fa2\nattn_implementation: sdpa",
            "attn_implementation: contradicts flash_attn (r.yaml:5); both set",
        ),
    ],
)
def test_two_names_of_one_key_must_agree(faults: Faults, sft: str, lines: str, message: str) -> None:
    (found,) = faults(f"{sft}{lines}\n")
    assert found.startswith(f"r.yaml:6: {message}")


def test_an_old_name_replaces_the_new_one_of_an_extended_recipe(load: Load, sft: str) -> None:
    Path("base.yaml").write_text(sft + "warmup_steps: 100\n")
    loaded = load("extends: base.yaml\nwarmup_ratio: 0.1\n")
    assert isinstance(loaded.recipe, SftRecipe)
    assert loaded.recipe.training == {"warmup_steps": 0.1}
    assert loaded.origins["warmup_steps"] == "r.yaml:2"
    back = load("extends: base.yaml\nwarmup_ratio: 0.1\n", "warmup_steps=7").recipe
    assert isinstance(back, SftRecipe)
    assert back.training == {"warmup_steps": 7}


@pytest.mark.parametrize(
    ("word", "implementation"),
    [("auto", "sdpa"), ("disabled", "eager"), ("sdpa", "sdpa"), ("fa2", "flash_attention_2")],
)
def test_flash_attn_names_an_implementation(load: Load, sft: str, word: str, implementation: str) -> None:
    recipe = load(f"{sft}flash_attn: {word}\n").recipe
    assert isinstance(recipe, SftRecipe)
    assert recipe.attn_implementation == implementation


def test_output_path_is_output_dir(load: Load) -> None:
    recipe = load("stage: prepare\ncsv_path: a\nimage_base_path: b\noutput_path: c\n").recipe
    assert isinstance(recipe, PrepareRecipe)
    assert recipe.output_dir == Path("c")


def test_logging_dir_stays_in_the_recipe_for_the_job_to_honour(load: Load, sft: str) -> None:
    recipe = load(sft + "logging_dir: runs/a\n").recipe
    assert isinstance(recipe, SftRecipe)
    assert recipe.logging_dir == Path("runs/a")
    assert recipe.training == {}


def test_every_translation_leads_to_a_key_and_hides_none() -> None:
    keys = {key for stage in STAGES for key in stage_keys(stage).schemas}
    assert {translation.key for translation in TRANSLATIONS.values()} <= keys
    assert not set(TRANSLATIONS) & keys
    assert not set(REMOVED) & set(training_schemas())
