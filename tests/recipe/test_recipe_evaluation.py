"""What a training recipe says of its evaluations: which metrics there are, and what they are good for."""

from __future__ import annotations

import pytest
from recipe_loading import Faults, Load

from riskva.recipe import SftRecipe

EVALUATED = "eval_dataset: e\neval_strategy: steps\n"
GENERATED = EVALUATED + "predict_with_generate: true\n"


@pytest.mark.parametrize(
    "name",
    ["risk_level_macro_f1", "risk_level_accuracy", "risk_level_severe_recall", "format_valid_rate", "rouge-l_图例"],
)
def test_scores_of_reports_choose_the_best_model_with_or_without_eval(load: Load, sft: str, name: str) -> None:
    for metric in (name, f"eval_{name}"):
        text = f"{sft}{GENERATED}metric_for_best_model: {metric}\nload_best_model_at_end: true\n"
        recipe = load(text + "save_strategy: steps\nearly_stopping_steps: 3\n").recipe
        assert isinstance(recipe, SftRecipe)
        assert recipe.training["metric_for_best_model"] == metric
        assert (recipe.early_stopping_steps, recipe.num_generated_samples, recipe.max_new_tokens) == (3, 64, 512)


def test_the_loss_needs_no_generation(load: Load, sft: str) -> None:
    for metric in ("loss", "eval_loss"):
        assert load(f"{sft}{EVALUATED}metric_for_best_model: {metric}\nearly_stopping_steps: 1\n")
    assert load(f"{sft}{EVALUATED}load_best_model_at_end: true\nearly_stopping_steps: 1\n")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            EVALUATED + "metric_for_best_model: risk_level_macro_f1",
            "7: metric_for_best_model: risk_level_macro_f1 needs predict_with_generate: true, which writes reports",
        ),
        (
            GENERATED + "metric_for_best_model: macro_f1",
            "8: metric_for_best_model: evaluation during training gives no macro_f1, but eval_loss, "
            "eval_risk_level_macro_f1, eval_risk_level_accuracy, eval_risk_level_severe_recall, "
            "eval_format_valid_rate, eval_rouge-l_{field}",
        ),
        (
            "eval_dataset: e\npredict_with_generate: true\nmetric_for_best_model: risk_level_accuracy",
            "7: metric_for_best_model: nothing is evaluated while training; set eval_strategy: steps or epoch",
        ),
        (
            "early_stopping_steps: 2",
            "5: early_stopping_steps: counts evaluations, and there are none while training; set eval_strategy",
        ),
        (EVALUATED + "early_stopping_steps: 2", "7: early_stopping_steps: needs metric_for_best_model, such as"),
        (EVALUATED + "early_stopping_steps: 0", "7: early_stopping_steps: expected a whole number greater than 0"),
        (EVALUATED + "save_strategy: best", "7: save_strategy: best needs metric_for_best_model, such as eval_loss"),
        ("predict_with_generate: true", "5: predict_with_generate: there are no rows to answer"),
        (
            GENERATED + "fsdp: full_shard",
            "7: predict_with_generate: predict_with_generate cannot be combined with fsdp",
        ),
    ],
)
def test_what_does_not_fit_is_said_at_once(faults: Faults, sft: str, lines: str, message: str) -> None:
    (found,) = faults(f"{sft}{lines}\n")
    assert found.startswith(f"r.yaml:{message}")


def test_the_nearest_metric_is_named(faults: Faults, sft: str) -> None:
    (found,) = faults(f"{sft}{GENERATED}metric_for_best_model: eval_risk_level_f1\n")
    assert found.endswith("; did you mean risk_level_macro_f1?")
