"""LLaMA-Factory's own recipes run as they are, and what RisKVA cannot honour is never dropped in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from recipe_loading import Faults, Load

from riskva.recipe import EvalRecipe, ExportRecipe, SftRecipe
from riskva.recipe.keys import STAGES, stage_keys
from riskva.recipe.llamafactory import IGNORED, asks_for_nothing, foreign_keys
from riskva.recipe.training_fields import RISKVA_SETS
from riskva.recipe.translations import REMOVED, TRANSLATIONS

# Keys and values of LLaMA-Factory's examples for Qwen2.5-VL: training, merging and predicting.
TRAIN = {
    "model_name_or_path": "Qwen/Qwen2.5-VL-7B-Instruct",
    "image_max_pixels": 262144,
    "video_max_pixels": 16384,
    "trust_remote_code": True,
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_rank": 8,
    "lora_target": "all",
    "dataset": "mllm_demo,identity,alpaca_en_demo",
    "template": "qwen2_vl",
    "cutoff_len": 2048,
    "max_samples": 1000,
    "overwrite_cache": True,
    "preprocessing_num_workers": 16,
    "dataloader_num_workers": 4,
    "output_dir": "saves/qwen2_5vl-7b/lora/sft",
    "logging_steps": 10,
    "save_steps": 500,
    "plot_loss": True,
    "overwrite_output_dir": True,
    "save_only_model": False,
    "report_to": "none",
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8,
    "learning_rate": 1.0e-4,
    "num_train_epochs": 3.0,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "bf16": True,
    "ddp_timeout": 180000000,
    "resume_from_checkpoint": None,
}
EXPORT = {
    "model_name_or_path": "Qwen/Qwen2.5-VL-7B-Instruct",
    "adapter_name_or_path": "saves/qwen2_5vl-7b/lora/sft",
    "template": "qwen2_vl",
    "finetuning_type": "lora",
    "trust_remote_code": True,
    "export_dir": "output/qwen2_5vl_lora_sft",
    "export_size": 5,
    "export_device": "cpu",
    "export_legacy_format": False,
}
PREDICT = {
    "model_name_or_path": "Qwen/Qwen2.5-VL-7B-Instruct",
    "adapter_name_or_path": "saves/qwen2_5vl-7b/lora/sft",
    "stage": "sft",
    "do_predict": True,
    "finetuning_type": "lora",
    "eval_dataset": "identity,alpaca_en_demo",
    "template": "qwen2_vl",
    "cutoff_len": 2048,
    "max_samples": 50,
    "overwrite_cache": True,
    "preprocessing_num_workers": 16,
    "output_dir": "saves/qwen2_5vl-7b/lora/predict",
    "overwrite_output_dir": True,
    "per_device_eval_batch_size": 1,
    "predict_with_generate": True,
    "ddp_timeout": 180000000,
}


def warned(warnings: tuple[str, ...]) -> list[str]:
    return [warning.split(": ")[1] for warning in warnings]


def test_its_training_recipe_trains(load: Load) -> None:
    loaded = load(yaml.safe_dump(TRAIN, sort_keys=False))
    recipe = loaded.recipe
    assert isinstance(recipe, SftRecipe)
    assert recipe.dataset == ("mllm_demo", "identity", "alpaca_en_demo")
    assert (recipe.lora_rank, recipe.lora_alpha, recipe.lora_target) == (8, None, ("all",))
    assert recipe.overwrite_output_dir
    assert recipe.training["warmup_steps"] == 0.1
    assert recipe.training["learning_rate"] == 1e-4
    assert "resume_from_checkpoint" not in recipe.training
    assert loaded.warnings == (
        "r.yaml:3: video_max_pixels: ignored: RisKVA reads photos only",
        "r.yaml:4: trust_remote_code: ignored: RisKVA never runs code from a model's repository",
        "r.yaml:14: overwrite_cache: ignored: RisKVA keeps lengths alone, and measures again what has changed",
    )


def test_its_full_tuning_recipe_trains(load: Load) -> None:
    Path("ds.json").write_text("{}")
    full = {**TRAIN, "finetuning_type": "full", "deepspeed": "ds.json", "pad_to_multiple_of": 28}
    recipe = load(yaml.safe_dump(full)).recipe
    assert isinstance(recipe, SftRecipe)
    assert recipe.training["deepspeed"] == "ds.json"


def test_its_merge_recipe_exports(load: Load) -> None:
    loaded = load(yaml.safe_dump(EXPORT, sort_keys=False))
    assert isinstance(loaded.recipe, ExportRecipe)
    assert warned(loaded.warnings) == ["finetuning_type", "trust_remote_code", "export_legacy_format"]


def test_its_prediction_recipe_evaluates(load: Load) -> None:
    loaded = load(yaml.safe_dump(PREDICT, sort_keys=False))
    assert isinstance(loaded.recipe, EvalRecipe)
    assert loaded.recipe.eval_dataset == ("identity", "alpaca_en_demo")
    assert loaded.recipe.per_device_eval_batch_size == 1
    assert warned(loaded.warnings) == ["finetuning_type", "overwrite_cache", "ddp_timeout"]


def test_a_recipe_of_our_own_may_not_hold_keys_of_training(faults: Faults, evaluate: str) -> None:
    (found,) = faults(evaluate + "ddp_timeout: 5\n")
    assert found == "r.yaml:5: ddp_timeout: belongs to stage sft, and this recipe is stage eval"


def test_a_typing_error_in_a_borrowed_recipe_is_still_an_error(faults: Faults) -> None:
    (found,) = faults(yaml.safe_dump({**PREDICT, "max_new_token": 5}, sort_keys=False))
    assert found == "r.yaml:17: max_new_token: unknown key; did you mean max_new_tokens?"


@pytest.mark.parametrize(
    "line",
    [
        "quantization_method: hqq",
        "quantization_type: fp4",
        "double_quantization: false",
        "train_on_prompt: true",
        "mask_history: true",
        "pissa_init: true",
        "default_system: 你好",
        "infer_dtype: float16",
        "rope_scaling: linear",
        "ignore_pad_token_for_loss: false",
        "resize_vocab: true",
    ],
)
def test_a_value_that_would_change_the_result_is_an_error(faults: Faults, sft: str, line: str) -> None:
    key = line.split(":", maxsplit=1)[0]
    text = "LLaMA-Factory knows this key, RisKVA does not (yet); leave it out or at its default"
    assert faults(f"{sft}{line}\n") == [f"r.yaml:5: {key}: {text}"]


@pytest.mark.parametrize(
    "line",
    [
        "packing: false",
        "neat_packing: false",
        "packing: false\nneat_packing: false",
        "quantization_bit: null",
        "quantization_bit:",
        "quantization_method: bnb",
        "quantization_type: nf4",
        "use_dora: false",
        "use_rslora: false",
        "loraplus_lr_ratio: null",
        "loraplus_lr_embedding: 1.0e-6",
        "infer_dtype: auto",
        "mix_strategy: concat",
        "double_quantization: true",
        "pissa_iter: 16",
        "resources_per_worker: {GPU: 1}",
    ],
)
def test_its_default_asks_for_nothing(load: Load, sft: str, line: str) -> None:
    loaded = load(f"{sft}{line}\n")
    assert loaded.recipe == load(sft).recipe
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("key", "value", "inert"),
    [
        ("pissa_iter", True, False),
        ("num_beams", 1, True),
        ("num_beams", True, False),
        ("shift_attn", 0, False),
        ("fp8", False, True),
        ("double_quantization", False, False),
    ],
)
def test_only_the_default_itself_is_inert(key: str, value: Any, inert: bool) -> None:
    assert asks_for_nothing(key, value) is inert


def test_a_quantised_export_is_refused_with_the_reason(faults: Faults) -> None:
    recipe = "stage: export\nmodel_name_or_path: m\nadapter_name_or_path: a\nexport_dir: o\n"
    (fault,) = faults(recipe + "export_quantization_bit: 4\n")
    assert fault.startswith("r.yaml:5: export_quantization_bit: LLaMA-Factory knows this key, RisKVA does not offer it")


def test_no_key_is_both_ours_and_foreign() -> None:
    ours = {key for stage in STAGES for key in stage_keys(stage).schemas} | {*TRANSLATIONS, *RISKVA_SETS, *REMOVED}
    assert not ours & set(foreign_keys())
    assert not ours & set(IGNORED)
    assert set(IGNORED) <= set(foreign_keys())
