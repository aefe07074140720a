"""A table of photos becomes a fine-tuned model and a score, by the shipped recipes with overrides."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from running import SHORT_TRAINING, log_of, riskva_run
from transformers import AutoModelForImageTextToText, Qwen2_5_VLForConditionalGeneration

from riskva.data.datasets import open_datasets
from riskva.encoding import encode, load_processor
from riskva.modeling.context import ModelContext
from riskva.modeling.export_check import logits_of
from riskva.report import DEFAULT_FORMAT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tiny_model_hub: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter, trained for a few steps on a model in the hub's layout, because users start from that one."""
    out = tmp_path_factory.mktemp("trained") / "sft"
    status = riskva_run(
        "sft_lora.yaml",
        f"model_name_or_path={tiny_model_hub}",
        f"dataset_dir={prepared}",
        f"output_dir={out}",
        "num_train_epochs=3",
        "learning_rate=5e-3",
        *(value for value in SHORT_TRAINING if not value.startswith("learning_rate")),
    )
    assert status == 0
    return out


def test_sft_leaves_all_that_the_design_lists(trained: Path, tiny_model_hub: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {
        "adapter_model.safetensors",
        "riskva.json",
        "recipe.yaml",
        "train_results.json",
        "trainer_log.jsonl",
    } <= names
    assert {"training_loss.png", "preprocessor_config.json", "tokenizer.json", "chat_template.json"} <= names
    checkpoints = sorted(trained.glob("checkpoint-*"))
    assert checkpoints
    for folder in (trained, *checkpoints):
        context = ModelContext.load(folder)
        assert context is not None
        assert context.report_format == DEFAULT_FORMAT
        assert str(context.question).startswith("<image>")
        assert context.image_max_pixels == 1048576
        assert (folder / "tokenizer.json").read_bytes() == (tiny_model_hub / "tokenizer.json").read_bytes()


def test_loss_falls_and_evaluation_runs_during_training(trained: Path) -> None:
    log = log_of(trained)
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]
    assert sum("eval_loss" in entry for entry in log) >= 3
    assert log[-1]["current_steps"] == log[-1]["total_steps"]


def test_adapter_trained_and_holds_no_vision_weights(trained: Path, tiny_model_hub: Path, prepared: Path) -> None:
    processor = load_processor(tiny_model_hub)
    row = encode(open_datasets(["building_defect_test"], prepared)[0], processor)
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model_hub)
    before = logits_of(base, row, processor)
    adapted = PeftModel.from_pretrained(base, str(trained))
    assert not any("visual" in name for name, _ in adapted.named_parameters() if "lora_" in name)
    assert (logits_of(adapted, row, processor) - before).abs().max() > 0.1


def test_eval_writes_predictions_and_scores(
    trained: Path, tiny_model_hub: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = (f"model_name_or_path={tiny_model_hub}", f"adapter_name_or_path={trained}", f"dataset_dir={prepared}")
    assert riskva_run("eval.yaml", *keys, f"output_dir={tmp_path / 'eval'}", "max_new_tokens=40", "bf16=false") == 0
    printed = capsys.readouterr()
    assert "macro-F1" in printed.out
    lines = [json.loads(line) for line in (tmp_path / "eval/generated_predictions.jsonl").open(encoding="utf-8")]
    expected = open_datasets(["building_defect_test"], prepared)
    assert [line["id"] for line in lines] == expected.ids
    assert [line["label"] for line in lines] == [row.answer for row in expected]
    metrics = json.loads((tmp_path / "eval/metrics.json").read_text(encoding="utf-8"))
    assert metrics["num_samples"] == len(lines)
    assert {"accuracy", "macro_f1", "floor_accuracy"} <= metrics["risk_level"].keys()

    again = tmp_path / "again"
    predictions = tmp_path / "eval/generated_predictions.jsonl"
    assert riskva_run("eval.yaml", f"predictions={predictions}", keys[2], f"output_dir={again}") == 0
    assert json.loads((again / "metrics.json").read_text(encoding="utf-8")) == metrics

    freely = ("constrain=off", "max_new_tokens=40", "bf16=false")  # as eval asks
    assert riskva_run("predict.yaml", *keys, f"output_dir={tmp_path / 'p'}", *freely) == 0
    assert (tmp_path / "p/generated_predictions.jsonl").read_bytes() == predictions.read_bytes()


def test_batch_size_changes_no_greedy_answer(
    trained: Path, tiny_model_hub: Path, prepared: Path, tmp_path: Path
) -> None:
    keys = (f"model_name_or_path={tiny_model_hub}", f"adapter_name_or_path={trained}", f"dataset_dir={prepared}")
    for size in (1, 3):
        out = f"output_dir={tmp_path / str(size)}"
        settings = (f"per_device_eval_batch_size={size}", "max_new_tokens=24", "bf16=false")
        assert riskva_run("predict.yaml", *keys, out, *settings) == 0
    alone, together = ((tmp_path / name / "generated_predictions.jsonl").read_bytes() for name in ("1", "3"))
    assert alone == together


def test_export_loads_and_answers_as_base_and_adapter(
    trained: Path, tiny_model_hub: Path, prepared: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    keys = (f"model_name_or_path={tiny_model_hub}", f"adapter_name_or_path={trained}", f"export_dir={out}")
    assert riskva_run("export.yaml", *keys) == 0
    processor = load_processor(out)
    row = encode(open_datasets(["building_defect_val"], prepared)[0], processor)
    merged = AutoModelForImageTextToText.from_pretrained(out)
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model_hub)
    adapted = PeftModel.from_pretrained(base, str(trained))
    # Measured: 3e-6 apart in float32, logits of up to 9.
    torch.testing.assert_close(
        logits_of(merged, row, processor), logits_of(adapted, row, processor), atol=1e-4, rtol=1e-4
    )
    assert ModelContext.load(out) is not None
    assert (out / "preprocessor_config.json").is_file()


def test_the_prompt_is_a_prefix_for_every_prepared_row(prepared: Path, tiny_model_hub: Path) -> None:
    processor = load_processor(tiny_model_hub)
    names = [f"building_defect_{split}" for split in ("train", "val", "test")]
    rows = open_datasets(names, prepared)
    assert len(rows) == 24
    for row in rows:
        whole, prompt = encode(row, processor).input_ids, encode(row.prompt, processor).input_ids
        assert len(prompt) < len(whole)
        assert torch.equal(whole[: len(prompt)], prompt)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_real_photos_go_through(form: str, real_photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    table = (f"csv_path={real_photos / 'metadata.csv'}", f"image_base_path={real_photos}")
    assert riskva_run(f"prepare_{form}.yaml", *table, f"output_dir={tmp_path / 'data'}") == 0
    model = (f"model_name_or_path={tiny_model}", f"dataset_dir={tmp_path / 'data'}")
    training = (f"output_dir={tmp_path / 'sft'}", "max_steps=2", "image_max_pixels=50176", *SHORT_TRAINING)
    assert riskva_run("sft_lora.yaml", *model, *training) == 0
    adapter = f"adapter_name_or_path={tmp_path / 'sft'}"
    assert (
        riskva_run("eval.yaml", *model, adapter, f"output_dir={tmp_path / 'eval'}", "max_new_tokens=16", "bf16=false")
        == 0
    )
    assert riskva_run("export.yaml", model[0], adapter, f"export_dir={tmp_path / 'merged'}") == 0


@pytest.mark.parametrize("keys", [("finetuning_type=freeze", "freeze_trainable_layers=1"), ("finetuning_type=full",)])
def test_full_and_freeze_tuning_save_whole_models(
    keys: tuple[str, ...], tiny_model_hub: Path, prepared: Path, tmp_path: Path
) -> None:
    places = (f"model_name_or_path={tiny_model_hub}", f"dataset_dir={prepared}", f"output_dir={tmp_path}")
    assert riskva_run("sft_full.yaml", *places, "deepspeed=null", "max_steps=2", *keys, *SHORT_TRAINING) == 0
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path)
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model_hub)
    changed = {
        name
        for (name, weight), (_, old) in zip(model.named_parameters(), base.named_parameters(), strict=True)
        if not torch.equal(weight, old)
    }
    last = len(base.model.language_model.layers) - 1
    assert any(f"layers.{last}." in name for name in changed)
    assert not any("visual" in name for name in changed)
    assert ("lm_head.weight" in changed) is (keys == ("finetuning_type=full",))
