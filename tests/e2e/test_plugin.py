"""RiskTrainer and the collator in a script that a user wrote: examples/own_trainer.py runs as the README shows it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from peft import PeftModel
from running import REPOSITORY
from transformers import Qwen2_5_VLForConditionalGeneration

pytestmark = pytest.mark.slow


def test_own_training_script(tiny_model: Path, prepared: Path, tmp_path: Path) -> None:
    script = REPOSITORY / "examples/own_trainer.py"
    run = subprocess.run(
        [sys.executable, str(script), str(tiny_model), str(prepared), str(tmp_path / "out")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "'loss'" in run.stdout or "train_loss" in run.stdout
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model)
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "out"))
    learned = [weight.abs().max().item() for name, weight in adapted.named_parameters() if "lora_B" in name]
    assert len(learned) == 2 * len(base.model.language_model.layers)
    assert min(learned) > 0
