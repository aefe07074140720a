"""The loss against transformers' own forward, and against itself under every way of batching the same rows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Trainer, TrainerCallback, TrainingArguments, set_seed
from user_rows import drawn_conversations

from riskva.encoding import Collator, Encoded, PackedCollator, Processor, encode, load_processor
from riskva.modeling.loading import load_model
from riskva.training.dataset import EncodedDataset
from riskva.training.trainer import RiskTrainer, sample_losses


@pytest.fixture(scope="module")
def processor(tiny_model: Path) -> Processor:
    return load_processor(tiny_model)


@pytest.fixture(scope="module")
def rows(processor: Processor) -> list[Encoded]:
    return [encode(conversation, processor) for conversation in drawn_conversations(8)]


def test_loss_equals_transformers_own(tiny_model: Path, processor: Processor, rows: list[Encoded]) -> None:
    model = load_model(tiny_model)
    transformers_model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model)
    for row in rows:
        sums, counts = sample_losses(model, PackedCollator(processor)([row]))
        theirs = transformers_model(**Collator(processor)([row])).loss
        # Measured: at most 5e-6 apart over these rows in float32, of a loss of 9.
        assert (sums.sum() / counts.sum()).item() == pytest.approx(theirs.item(), abs=2e-5)


def test_loss_of_a_batch_is_that_of_its_rows(tiny_model: Path, processor: Processor, rows: list[Encoded]) -> None:
    model = load_model(tiny_model)
    together, counts = sample_losses(model, PackedCollator(processor)(rows))
    alone = torch.cat([sample_losses(model, PackedCollator(processor)([row]))[0] for row in rows])
    # Measured: packed rows and single ones differ by at most 3e-5 in summed losses of 300 to 800.
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-3)
    assert counts.tolist() == [int((row.labels != -100).sum()) for row in rows]


def test_blank_image_changes_no_loss(tiny_model: Path, processor: Processor) -> None:
    text_rows = [encode(conversation, processor) for conversation in drawn_conversations(3, with_photos=False)]
    model = load_model(tiny_model)
    plain, _ = sample_losses(model, PackedCollator(processor)(text_rows))
    model.always_runs_tower = True
    blank, _ = sample_losses(model, PackedCollator(processor)(text_rows))
    torch.testing.assert_close(plain, blank, rtol=1e-6, atol=1e-4)


class Norms(TrainerCallback):
    """Collects the logged loss and gradient norm of each step."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
        if logs and "loss" in logs:
            self.seen.append((logs["loss"], logs["grad_norm"]))


def train(
    model_folder: Path, processor: Processor, output: Path, shape: tuple[int, int], kind: type[Trainer]
) -> list[tuple[float, float]]:
    set_seed(3)
    norms = Norms()
    trainer = kind(
        model=(
            load_model(model_folder)
            if kind is RiskTrainer
            else Qwen2_5_VLForConditionalGeneration.from_pretrained(model_folder)
        ),
        args=TrainingArguments(
            output_dir=str(output),
            per_device_train_batch_size=shape[0],
            gradient_accumulation_steps=shape[1],
            max_steps=3,
            learning_rate=1e-3,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            max_grad_norm=1e9,
        ),
        train_dataset=EncodedDataset(drawn_conversations(24), processor),
        data_collator=PackedCollator(processor) if kind is RiskTrainer else Collator(processor),
        callbacks=[norms],
    )
    trainer.train()
    return norms.seen


@pytest.mark.slow
def test_gradient_accumulation_changes_nothing(tiny_model: Path, processor: Processor, tmp_path: Path) -> None:
    runs = [train(tiny_model, processor, tmp_path, shape, RiskTrainer) for shape in ((8, 1), (4, 2), (1, 8))]
    # Measured: 2e-7 apart at most, relative.
    for other in runs[1:]:
        for (loss, norm), (other_loss, other_norm) in zip(runs[0], other, strict=True):
            assert other_loss == pytest.approx(loss, rel=1e-5)
            assert other_norm == pytest.approx(norm, rel=1e-5)


@pytest.mark.slow
def test_plain_trainer_fails_the_same_check(tiny_model: Path, processor: Processor, tmp_path: Path) -> None:
    """What RiskTrainer is for: without it the loss depends on how rows are grouped. Measured: 1.6e-2 apart."""
    whole, split = (train(tiny_model, processor, tmp_path, shape, Trainer)[0] for shape in ((8, 1), (1, 8)))
    assert abs(whole[1] - split[1]) > 1e-3 * whole[1]
