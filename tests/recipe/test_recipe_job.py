"""Which job a recipe asks for, in RisKVA's words and in LLaMA-Factory's."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_loading import Faults, Load

from riskva.recipe import EvalRecipe, ExportRecipe, PredictRecipe, SftRecipe

MODEL = "model_name_or_path: m\noutput_dir: o\n"

STAGES = "prepare, merge, sft, predict, calibrate, eval, compare, export"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("stage: sft\ndataset: d\n", SftRecipe),
        ("stage: sft\ndo_train: true\ndataset: d\n", SftRecipe),
        ("do_train: yes\ndataset: d\n", SftRecipe),
        ("stage: sft\ndo_train: true\ndo_predict: false\npredict_with_generate: false\ndataset: d\n", SftRecipe),
        ("do_train: true\npredict_with_generate: true\ndataset: d\neval_dataset: e\n", SftRecipe),
        ("stage: sft\ndo_predict: true\neval_dataset: d\n", EvalRecipe),
        ("stage: sft\ndo_train: false\ndo_predict: true\npredict_with_generate: true\neval_dataset: d\n", EvalRecipe),
        ("stage: predict\neval_dataset: d\n", PredictRecipe),
        ("stage: predict\ndo_predict: true\neval_dataset: d\n", PredictRecipe),
        ("stage: eval\neval_dataset: d\n", EvalRecipe),
    ],
)
def test_the_job_follows_from_the_stage_or_from_do_keys(load: Load, text: str, kind: type) -> None:
    assert type(load(text + MODEL).recipe) is kind


def test_export_dir_without_a_stage_exports(load: Load) -> None:
    recipe = load("model_name_or_path: m\nadapter_name_or_path: a\nexport_dir: e\n").recipe
    assert isinstance(recipe, ExportRecipe)
    assert recipe.export_dir == Path("e")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "stage: sfd\n",
            f"r.yaml:1: stage: expected one of {STAGES}, found 'sfd'; did you mean sft?",
        ),
        (
            "stage: dpo\n",
            f"r.yaml:1: stage: LLaMA-Factory has dpo, RisKVA has not (yet); it has {STAGES}",
        ),
        ("stage:\n", f"r.yaml:1: stage: expected one of {STAGES}"),
        ("dataset: d\n", f"r.yaml: stage: missing; one of {STAGES}"),
    ],
)
def test_no_such_stage(faults: Faults, text: str, message: str) -> None:
    assert faults(text) == [message]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "do_train: true\ndo_predict: true",
            "6: do_predict: training and predicting are two recipes here; write a second one",
        ),
        ("do_train: false", "5: do_train: is false, so there is nothing to do"),
        ("do_train: maybe", "5: do_train: expected true or false, found 'maybe'"),
        ("predict_with_generate: true", "5: predict_with_generate: there are no rows to answer; give eval_dataset"),
        ("predict_with_generate: maybe", "5: predict_with_generate: expected true or false, found 'maybe'"),
    ],
)
def test_do_keys_that_make_no_job(faults: Faults, sft: str, lines: str, message: str) -> None:
    (found,) = faults(f"{sft}{lines}\n")
    assert found.startswith(f"r.yaml:{message}")


def test_do_keys_must_fit_the_stage(faults: Faults, evaluate: str, prepare: str) -> None:
    assert faults(evaluate + "do_train: true\n") == ["r.yaml:5: do_train: contradicts stage: eval; leave it out"]
    assert faults(prepare + "do_predict: true\n") == ["r.yaml:5: do_predict: contradicts stage: prepare; leave it out"]
    (found,) = faults(evaluate + "predict_with_generate: false\n")
    assert found == "r.yaml:5: predict_with_generate: RisKVA's predictions are always generated; leave the key out"


def test_do_eval_beside_training_is_warned_of(load: Load, sft: str) -> None:
    loaded = load(sft + "do_eval: true\n")
    assert loaded.warnings == ("r.yaml:5: do_eval: ignored: eval_strategy says when to evaluate",)
