"""An adapter merged into its base, and the proof that the merged model answers as the two did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForImageTextToText, PreTrainedModel

from riskva.console import warn
from riskva.encoding import Collator, Encoded, Processor
from riskva.errors import ExportCheckError

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference of logits, as a share of the largest logit, by the base's dtype.

Measured on tiny random models with adapters of rank 8 and 64: float32 5e-7, float16 1.3e-3, bfloat16 9.5e-3. Rounding
W + BA to the dtype once is what merging does, so this is no error; deeper models round more often.
"""

MOST_OF_THE_EFFECT = 0.5
"""A merged model must lie nearer to base + adapter than this share of the adapter's own effect, or it missed it.

Measured on the same models: 5e-7 (float32) to 9e-3 (bfloat16).
"""


@dataclass(frozen=True)
class ExpectedLogits:
    """What base + adapter answer to a probe, and the base alone; both (T, vocabulary) float32."""

    adapted: Tensor
    base: Tensor


@torch.inference_mode()
def logits_of(model: PreTrainedModel | PeftModel, probe: Encoded, processor: Processor) -> Tensor:
    """The model's logits (T, vocabulary) on one encoded sample, in float32 on the CPU."""
    batch = Collator(processor)([probe])
    del batch["labels"]
    device = next(model.parameters()).device
    logits: Tensor = model.eval()(**{name: tensor.to(device) for name, tensor in batch.items()}).logits
    return logits[0].float().cpu()


def merge_and_save(model: PeftModel, folder: Path, max_shard_gb: int) -> None:
    """Write base + adapter as one model, in the base's dtype; `model` is used up."""
    merged = model.merge_and_unload(safe_merge=True)
    merged.save_pretrained(folder, max_shard_size=f"{max_shard_gb}GB")


def expected_logits(model: PeftModel, probe: Encoded, processor: Processor) -> ExpectedLogits:
    """The logits that an export of `model` is held against."""
    adapted = logits_of(model, probe, processor)
    with model.disable_adapter():
        return ExpectedLogits(adapted, logits_of(model, probe, processor))


def check_export(folder: Path, expected: ExpectedLogits, probe: Encoded, processor: Processor) -> float:
    """Load the exported model as any user would and compare its logits on `probe` with base + adapter's.

    Returns the largest difference as a share of the largest logit. Raises `ExportCheckError` when that is over the
    dtype's `TOLERANCE`, or when the model lies nearer to the bare base although the adapter's effect is larger than
    rounding.
    """
    exported = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto", local_files_only=True)
    scale = expected.adapted.abs().max().item()
    error = _largest(logits_of(exported, probe, processor), expected.adapted) / scale
    effect = _largest(expected.base, expected.adapted) / scale
    rounding = TOLERANCE[exported.dtype] / 10
    missed = effect > rounding and not error < MOST_OF_THE_EFFECT * effect
    if missed or not error <= TOLERANCE[exported.dtype]:
        raise ExportCheckError(
            f"{folder}: the exported model's logits differ from base + adapter's by {error:.2g} of the largest "
            f"(allowed: {TOLERANCE[exported.dtype]:g}; the adapter itself makes {effect:.2g}); do not use it"
        )
    if effect <= rounding:
        warn(f"the adapter changes logits by {effect:.1e} of the largest, no more than rounding does: is it trained?")
    return error


def _largest(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()
