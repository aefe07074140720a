"""An adapter merged into its base, and the proof that the merged model answers as the two did."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForImageTextToText, PreTrainedModel

from riskva.encoding import Collator, Encoded, Processor
from riskva.errors import ExportCheckError

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference of logits, as a share of the largest logit, by the base's dtype.

Measured on tiny random models with an adapter of rank 8 to 64: float32 2e-6, bfloat16 3e-2; a merge that misses the
adapter differs by 0.3 and more. Rounding W + BA to the dtype once is what merging does, so this is not an error.
"""


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


def check_export(folder: Path, expected: Tensor, probe: Encoded, processor: Processor) -> float:
    """Load the exported model as any user would and compare its logits on `probe` with base + adapter's.

    Returns the largest difference as a share of the largest logit. Raises `ExportCheckError` when it is too large.
    """
    exported = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto", local_files_only=True)
    difference = logits_of(exported, probe, processor) - expected
    share = (difference.abs().max() / expected.abs().max()).item()
    if not share <= TOLERANCE[exported.dtype]:
        raise ExportCheckError(
            f"{folder}: the exported model's logits differ from base + adapter's by {share:.2g} of the largest "
            f"(allowed: {TOLERANCE[exported.dtype]:g}); do not use it"
        )
    return share
