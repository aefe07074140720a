"""ZeRO-2, ZeRO-3 and plain data parallelism over two processes against one, by one override each."""

from pathlib import Path

import pytest
from running import SHORT_TRAINING, log_of, losses_of, start
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

NUM_STEPS = 5

SHORT = (*(key for key in SHORT_TRAINING if not key.startswith("gradient_acc")), "save_strategy=no", "eval_strategy=no")


def run(recipe: str, model: Path, data: Path, out: Path, processes: int) -> list[float]:
    """The losses of a run whose optimiser steps hold 8 rows, however many processes share them."""
    worker = start(
        recipe,
        f"model_name_or_path={model}",
        f"dataset_dir={data}",
        f"output_dir={out}",
        f"nproc_per_node={processes}",
        "per_device_train_batch_size=2",
        f"gradient_accumulation_steps={4 // processes}",
        f"max_steps={NUM_STEPS}",
        "max_samples=8",  # one step an epoch: a last, smaller step would repeat rows to give every process as many
        *SHORT,
    )
    _, said = worker.communicate(timeout=400)
    assert worker.returncode == 0, said
    return losses_of(out)


def test_zero_and_data_parallel_losses_equal_a_single_process(
    tiny_model: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {
        "single": ("sft_lora.yaml", 1),
        "two processes": ("sft_lora.yaml", 2),
        "ZeRO-2": ("sft_lora_zero2.yaml", 2),
        "ZeRO-3": ("sft_lora_zero3.yaml", 2),
    }
    outputs = {name: tmp_path / name for name in runs}
    losses = {name: run(recipe, tiny_model, prepared, outputs[name], n) for name, (recipe, n) in runs.items()}
    with capsys.disabled():
        print("\n" + "".join(f"{name:>16}" for name in losses))
        for row in zip(*losses.values(), strict=True):
            print("".join(f"{loss:16.6f}" for loss in row))
    single = load_file(outputs["single"] / "adapter_model.safetensors")
    for name in runs:
        assert len(losses[name]) == NUM_STEPS
        # Measured: at most 2e-6 apart.
        assert losses[name] == pytest.approx(losses["single"], abs=1e-4)
        saved = load_file(outputs[name] / "adapter_model.safetensors")
        assert saved.keys() == single.keys()
        # Adam divides by the square root of tiny second moments: single weights may differ by more than losses do.
        assert all((saved[key] - single[key]).abs().mean() < 1e-5 for key in single), name
        assert len({entry["eval_loss"] for entry in log_of(outputs[name]) if "eval_loss" in entry}) == 1
    final = [log_of(out)[-1]["eval_loss"] for out in outputs.values()]
    assert final == pytest.approx([final[0]] * len(final), abs=1e-4)


def test_one_failing_process_ends_all(tiny_model: Path, prepared: Path, tmp_path: Path) -> None:
    worker = start(
        "sft_lora.yaml",
        f"model_name_or_path={tiny_model}",
        f"dataset_dir={prepared}",
        f"output_dir={tmp_path}",
        "dataset=building_defect_trian",
        "nproc_per_node=2",
        *SHORT,
    )
    _, said = worker.communicate(timeout=120)
    assert worker.returncode == 1
    assert "building_defect_train" in said
    assert "Traceback" not in said
