"""Rows made elsewhere, in LLaMA-Factory's forms: text alone, one image and several in one batch, by its own recipe."""

import json
from pathlib import Path

import pytest
import torch
from running import SHORT_TRAINING, losses_of, riskva_run, start
from user_rows import drawn_photo

from riskva.cli import main
from riskva.data.datasets import open_datasets
from riskva.encoding import PackedCollator, encode, load_processor
from riskva.modeling.loading import load_model
from riskva.training.trainer import sample_losses

pytestmark = pytest.mark.slow

TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two registered data sets: several images and several turns as sharegpt, text alone as alpaca."""
    folder = tmp_path_factory.mktemp("mixed")
    for number in range(4):
        (folder / f"{number}.png").write_bytes(drawn_photo(number, 112, 84 + 28 * number).read())
    seen = [
        {"messages": _turns("<image>看", "墙面裂缝"), "images": ["0.png"]},
        {"messages": _turns("<image>与<image>比较", "第二张更重"), "images": ["1.png", "2.png"]},
        {"messages": _turns("<image>一", "渗水", "还有呢？", "没有了"), "images": ["3.png"]},
    ]
    (folder / "seen.json").write_text(json.dumps(seen, ensure_ascii=False), encoding="utf-8")
    told = [{"instruction": f"什么是{word}？", "output": f"{word}是一种缺陷。"} for word in ("空鼓", "起砂", "泛碱")]
    (folder / "told.json").write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
    columns = {"messages": "messages", "images": "images"}
    registry = {
        "seen": {"file_name": "seen.json", "formatting": "sharegpt", "columns": columns, "tags": TAGS},
        "told": {"file_name": "told.json"},
    }
    (folder / "dataset_info.json").write_text(json.dumps(registry), encoding="utf-8")
    return folder


def _turns(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant") * (len(texts) // 2)
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]


def test_a_mixed_batch_gives_each_row_its_own_loss(mixed: Path, tiny_model: Path) -> None:
    processor = load_processor(tiny_model)
    rows = [encode(row, processor) for row in open_datasets(["seen", "told"], mixed)]
    model = load_model(tiny_model)
    together, _ = sample_losses(model, PackedCollator(processor)(rows))
    alone = torch.cat([sample_losses(model, PackedCollator(processor)([row]))[0] for row in rows])
    # Measured: at most 2e-5 apart in summed losses of 60 to 150.
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-3)


def test_llamafactorys_own_recipe_trains_on_them(mixed: Path, tiny_model_hub: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "qwen2_5vl_lora_sft.yaml"
    recipe.write_text(
        f"""
### model
model_name_or_path: {tiny_model_hub}
image_max_pixels: 262144
video_max_pixels: 16384
trust_remote_code: true

### method
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all

### dataset
dataset: seen,told
dataset_dir: {mixed}
template: qwen2_vl
cutoff_len: 2048
max_samples: 1000
overwrite_cache: true
preprocessing_num_workers: 16
dataloader_num_workers: 0

### output
output_dir: {tmp_path / "out"}
logging_steps: 1
save_steps: 500
plot_loss: true
overwrite_output_dir: true
save_only_model: false
report_to: none

### train
per_device_train_batch_size: 3
gradient_accumulation_steps: 1
learning_rate: 1.0e-3
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
resume_from_checkpoint: null
""",
        encoding="utf-8",
    )
    assert main([str(recipe)]) == 0
    assert len(losses_of(tmp_path / "out")) == 6

    export = tmp_path / "merge.yaml"
    export.write_text(
        f"""
model_name_or_path: {tiny_model_hub}
adapter_name_or_path: {tmp_path / "out"}
template: qwen2_vl
trust_remote_code: true
export_dir: {tmp_path / "merged"}
export_size: 5
export_device: cpu
export_legacy_format: false
""",
        encoding="utf-8",
    )
    assert main([str(export)]) == 0
    assert (tmp_path / "merged/riskva.json").is_file()


def test_zero3_does_not_hang_when_one_process_has_no_image(mixed: Path, tiny_model: Path, tmp_path: Path) -> None:
    """With one row a process, most steps pair a row with images and one without."""
    worker = start(
        "sft_lora_zero3.yaml",
        f"model_name_or_path={tiny_model}",
        f"dataset_dir={mixed}",
        "dataset=seen,told",
        f"output_dir={tmp_path}",
        "nproc_per_node=2",
        "per_device_train_batch_size=1",
        "num_train_epochs=2",
        "eval_dataset=null",
        "eval_strategy=no",
        "save_strategy=no",
        *SHORT_TRAINING,
    )
    _, said = worker.communicate(timeout=300)
    assert worker.returncode == 0, said
    assert len(losses_of(tmp_path)) == 6


def test_validation_rows_are_split_off(mixed: Path, tiny_model: Path, tmp_path: Path) -> None:
    places = (f"model_name_or_path={tiny_model}", f"dataset_dir={mixed}", "dataset=seen,told", f"output_dir={tmp_path}")
    keys = ("eval_dataset=null", "val_size=0.34", "num_train_epochs=1", "save_strategy=no", *SHORT_TRAINING)
    assert riskva_run("sft_lora.yaml", *places, *keys, "per_device_train_batch_size=2") == 0
    assert len(losses_of(tmp_path)) == 2
    assert json.loads((tmp_path / "eval_results.json").read_text())["eval_loss"] > 0
