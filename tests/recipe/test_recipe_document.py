"""Layers: files that extend each other, and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_loading import Faults, Load

from riskva.errors import RecipeError
from riskva.recipe import PrepareRecipe, SftRecipe, load_recipe


def test_a_recipe_replaces_keys_of_the_one_it_extends(load: Load, sft: str) -> None:
    Path("base.yaml").write_text(sft + "lora_rank: 8\nlora_alpha: 32\n")
    loaded = load("extends: base.yaml\nlora_rank: 16\nlearning_rate: 1e-5\n", "seed=7")
    assert isinstance(loaded.recipe, SftRecipe)
    assert (loaded.recipe.lora_rank, loaded.recipe.lora_alpha) == (16, 32)
    assert loaded.recipe.training == {"learning_rate": 1e-5, "seed": 7}
    assert loaded.origins == {
        "stage": "base.yaml:1",
        "model_name_or_path": "base.yaml:2",
        "dataset": "base.yaml:3",
        "output_dir": "base.yaml:4",
        "lora_rank": "r.yaml:2",
        "lora_alpha": "base.yaml:6",
        "learning_rate": "r.yaml:3",
        "seed": "command line",
    }


def test_extends_is_relative_to_the_file_that_says_it_and_chains(load: Load, sft: str) -> None:
    Path("shared/deep").mkdir(parents=True)
    Path("shared/root.yaml").write_text(sft)
    Path("shared/deep/middle.yaml").write_text("extends: ../root.yaml\nlora_rank: 2\n")
    loaded = load("extends: shared/deep/middle.yaml\n")
    assert loaded.origins["dataset"] == f"{Path('shared', 'root.yaml')}:3"
    assert loaded.origins["lora_rank"] == f"{Path('shared', 'deep', 'middle.yaml')}:2"


def test_null_in_the_extending_recipe_takes_a_key_back(load: Load, sft: str) -> None:
    Path("base.yaml").write_text(sft + "max_samples: 5\nrun_name: x\n")
    loaded = load("extends: base.yaml\nmax_samples: null\nrun_name:\n")
    assert isinstance(loaded.recipe, SftRecipe)
    assert loaded.recipe.max_samples is None
    assert loaded.recipe.training == {}


def test_a_loop_is_refused_with_its_chain(faults: Faults) -> None:
    Path("b.yaml").write_text("extends: c.yaml\n")
    Path("c.yaml").write_text("x: 1\nextends: r.yaml\n")
    assert faults("extends: b.yaml\n") == ["c.yaml:2: extends: a loop: r.yaml -> b.yaml -> c.yaml -> r.yaml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\nextends: bsae.yaml\n", "r.yaml:2: extends: there is no bsae.yaml; did you mean base.yaml?"),
        ("extends: [a, b]\n", "r.yaml:1: extends: expected the path of one recipe, relative to this file"),
        ("extends:\n", "r.yaml:1: extends: expected the path of one recipe, relative to this file"),
        ("", "r.yaml: the recipe is empty; it needs at least a stage"),
        ("# only a comment\n", "r.yaml: the recipe is empty; it needs at least a stage"),
        ("- stage: sft\n", "r.yaml:1: a recipe is a list of `key: value` lines, found something else"),
        ("just words\n", "r.yaml:1: a recipe is a list of `key: value` lines, found something else"),
    ],
)
def test_a_file_that_is_no_recipe(faults: Faults, text: str, message: str) -> None:
    Path("base.yaml").write_text("stage: sft\n")
    assert faults(text) == [message]


def test_keys_that_stand_twice_are_faults_at_every_depth(faults: Faults, prepare: str) -> None:
    text = prepare + "seed: 1\nseed: 2\nsplit:\n  train: 1\n  train: 0\n? [a]\n: 1\n<<: {seed: 3}\n"
    assert faults(text) == [
        "r.yaml:6: seed: stands twice, first in line 5; keep one",
        "r.yaml:9: split: train: stands twice, first in line 8; keep one",
        "r.yaml:10: a key must be a word, found a list or a mapping",
        "r.yaml:12: <<: merge keys are not supported; put the shared keys into a file and name it in extends",
    ]


def test_overrides_are_yaml_and_the_last_one_counts(load: Load, sft: str) -> None:
    recipe = load(sft, "learning_rate=5e-6", "dataset=[a, b]", "lora_rank=4", "lora_rank=8", "run_name=a=b").recipe
    assert isinstance(recipe, SftRecipe)
    assert recipe.training == {"learning_rate": 5e-6, "run_name": "a=b"}
    assert (recipe.dataset, recipe.lora_rank) == (("a", "b"), 8)


def test_an_override_without_a_value_unsets(load: Load, sft: str) -> None:
    assert load(sft + "max_samples: 5\n", "max_samples=").recipe == load(sft).recipe


def test_dotted_overrides_change_a_part_of_the_file_or_of_the_default(load: Load, sft: str, prepare: str) -> None:
    in_file = load(prepare + "split: {train: 0.5, val: 0.5}\n", "split.train=0.7", "split.val=0.3").recipe
    in_default = load(prepare, "split.train=0.7", "split.val=0.2").recipe
    created = load(sft, "lr_scheduler_kwargs.num_cycles=2").recipe
    assert isinstance(in_file, PrepareRecipe)
    assert isinstance(in_default, PrepareRecipe)
    assert isinstance(created, SftRecipe)
    assert in_file.split == {"train": 0.7, "val": 0.3}
    assert in_default.split == {"train": 0.7, "val": 0.2, "test": 0.1}
    assert created.training == {"lr_scheduler_kwargs": {"num_cycles": 2}}


def test_answer_fields_are_overridden_as_a_whole(load: Load, prepare: str) -> None:
    recipe = load(prepare, "answer_fields=[{label: 等级, column: c, is_level: true}]").recipe
    assert isinstance(recipe, PrepareRecipe)
    report_format = recipe.report_format()
    assert report_format is not None
    assert report_format.labels == ("等级",)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learning_rat=1", "command line: learning_rat: unknown key; did you mean learning_rate?"),
        ("lora_rank=abc", "command line: lora_rank: expected a whole number greater than 0, found 'abc'"),
        ("lora_rank", "command line: 'lora_rank': expected key=value, such as learning_rate=1e-5 or split.train=0.7"),
        ("=3", "command line: '=3': expected key=value, such as learning_rate=1e-5 or split.train=0.7"),
        ("a..b=3", "command line: 'a..b=3': expected key=value, such as learning_rate=1e-5 or split.train=0.7"),
        ("extends=x.yaml", "command line: extends: only a recipe file can extend another"),
        ("lora_rank.x=3", "command line: lora_rank.x: lora_rank is no mapping; set lora_rank as a whole"),
        ("cutoff_len.x=3", "command line: cutoff_len.x: cutoff_len is no mapping; set cutoff_len as a whole"),
        ("lora_target=[a", "command line: not valid YAML: while parsing a flow sequence"),
    ],
)
def test_a_wrong_override_is_reported_as_such(faults: Faults, sft: str, override: str, message: str) -> None:
    (found,) = faults(sft + "lora_rank: 3\n", override)
    assert found.startswith(message)


def test_aliases_are_followed_and_an_endless_one_is_refused(load: Load, faults: Faults, sft: str) -> None:
    recipe = load(sft + "run_name: &n a\nproject: *n\n").recipe
    assert isinstance(recipe, SftRecipe)
    assert recipe.training == {"run_name": "a", "project": "a"}
    (found,) = faults(sft + "lora_target: &x [a, *x]\n")
    assert found == "r.yaml:5: lora_target item 2: an alias that holds itself"


def test_a_missing_recipe_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nothing\.yaml: there is no such recipe"):
        load_recipe(tmp_path / "nothing.yaml")
