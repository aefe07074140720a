"""A recipe written as YAML reads back as the same recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from recipe_loading import Load

from riskva.recipe import load_recipe, recipe_to_yaml

RECIPES = Path(__file__).resolve().parents[2] / "recipes"

TEXTS = [
    "stage: prepare\npreview: x\n",
    "stage: prepare\ncsv_path: a\nimage_base_path: b\noutput_dir: c\n"
    "split: {train: 1, val: 0, test: 0}\ngroup_by: '1e5'\n"
    "question: |\n  第一行\n  第二行 # 不是注释\nsystem_prompt: ''\n"
    "answer_fields:\n- {label: 风险等级, column: c, is_level: true}\n- {label: 位置信息, column: d, default: ''}\n"
    "- {label: 备注, column: 'null', default: 'no'}\n",
    "stage: sft\nmodel_name_or_path: '5e-6'\ndataset: a,b\noutput_dir: o\nlearning_rate: 5e-6\nsave_strategy: no\n"
    "report_to: [tensorboard]\nlr_scheduler_kwargs: {a: null, b: '1e3', c: [1, x]}\nmax_grad_norm: .inf\n"
    "logging_dir: l\n"
    "freeze_vision_tower: false\nfreeze_language_model: true\nwarmup_ratio: 0.1\n",
    "stage: sft\ndo_predict: true\nmodel_name_or_path: m\neval_dataset: d\noutput_dir: o\n",
    "stage: predict\nmodel_name_or_path: m\neval_dataset: [d]\noutput_dir: o\ntop_p: 0.5\n",
    "stage: eval\npredictions: p.jsonl\noutput_dir: o\n",
    "model_name_or_path: m\nadapter_name_or_path: a\nexport_dir: e\n",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("with_origins", [False, True])
def test_written_and_read_back_it_is_equal(load: Load, text: str, with_origins: bool) -> None:
    first = load(text)
    again = load(recipe_to_yaml(first.recipe, first.origins if with_origins else None))
    assert again.recipe == first.recipe
    assert again.warnings == ()


def test_comments_say_where_a_key_was_set(load: Load, sft: str) -> None:
    loaded = load(sft + "lora_target: q_proj,v_proj\nlearning_rate: 5e-6\n", "max_samples=3")
    lines = recipe_to_yaml(loaded.recipe, loaded.origins).splitlines()
    assert lines[0] == "stage: sft  # r.yaml:1"
    assert "lora_target: [q_proj, v_proj]  # r.yaml:5" in lines
    assert "learning_rate: 5.0e-06  # r.yaml:6" in lines
    assert "max_samples: 3  # command line" in lines
    assert "lora_rank: 64  # default" in lines
    assert not any(line.startswith(("training:", "lora_alpha:", "eval_dataset:")) for line in lines)


def test_text_of_several_lines_stays_readable(load: Load, prepare: str) -> None:
    loaded = load(prepare + "question: |-\n  第一行\n  第二行\n")
    text = recipe_to_yaml(loaded.recipe, loaded.origins)
    assert "question: |-  # r.yaml:5\n  第一行\n  第二行\n" in text
    assert yaml.safe_load(text)["question"] == "第一行\n第二行"


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: str(path.relative_to(RECIPES)))
def test_every_shipped_recipe_loads_without_a_warning(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECIPES.parent)
    assert load_recipe(path.relative_to(RECIPES.parent)).warnings == ()
