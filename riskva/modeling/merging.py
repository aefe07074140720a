"""An adapter merged into its base, and the proof that the merged model answers as the two did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, PreTrainedModel

from riskva.console import warn
from riskva.encoding import Collator, Encoded, Processor
from riskva.errors import ExportCheckError

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference of logits, as a share of the largest logit, by the base's dtype.

Measured on tiny random models with adapters of rank 8 and 64: float32 5e-7, float16 1.3e-3, bfloat16 1e-2 with 2
layers and 2e-2 with 16. Rounding W + BA to the dtype once is what merging does, so this is no error; the comparison of
weights is the sharp one, this one shows that the model runs.
"""

LEAST_KEPT = 0.9
"""A warning says so when rounding keeps less of the adapter's change than this share."""


@dataclass(frozen=True)
class Checked:
    """What a check of an exported model found.

    `logit_difference` is the largest one on the probe, as a share of the largest logit. `kept_share` is how much of
    the adapter's change of the weights outlasted rounding to the base's dtype, 1 being all of it.
    """

    logit_difference: float
    kept_share: float


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


def check_export(folder: Path, reference: PeftModel, expected: Tensor, probe: Encoded, processor: Processor) -> Checked:
    """Load the exported model as any user would and hold it against base + adapter.

    Every adapted weight must be W + scale·BA (under DoRA with rows of the lengths that were trained), rounded to its
    dtype, and every other one the base's, bit for bit; the logits on `probe` must be those `expected` (T, vocabulary)
    of base + adapter. Raises `ExportCheckError` naming the first weight that is not. `reference` is the adapter on its
    base, unmerged.
    """
    exported = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto", local_files_only=True)
    kept_share = check_weights(exported, reference)
    difference = (logits_of(exported, probe, processor) - expected).abs().max() / expected.abs().max()
    if not difference <= TOLERANCE[exported.dtype]:
        raise ExportCheckError(
            f"{folder}: the exported model's logits differ from base + adapter's by {difference:.2g} of the largest "
            f"(allowed: {TOLERANCE[exported.dtype]:g}); do not use it"
        )
    if kept_share < LEAST_KEPT:
        warn(
            f"{exported.dtype} keeps only {kept_share:.0%} of what the adapter changes: its updates are smaller than "
            "rounding. Predict with base + adapter, or train further"
        )
    return Checked(float(difference), kept_share)


@torch.inference_mode()
def check_weights(exported: PreTrainedModel, reference: PeftModel) -> float:
    """Compare every weight with base + adapter's; the share of the adapter's change that rounding kept.

    Raises `ExportCheckError` for the first weight that is wrong.
    """
    wrapped: Any = reference.base_model  # LoraModel, whose types do not know the model inside
    parts: dict[str, nn.Module] = dict(wrapped.model.named_modules())
    kept = wanted = 0.0
    for module_name, module in exported.named_modules():
        part = parts[module_name]
        for name, weight in module.named_parameters(recurse=False):
            base, change = _base_and_change(part, name)
            if change is None:
                right = torch.equal(weight, base)
            else:
                right = bool(((weight - base).float() - change).abs().le(_rounding(base, change)).all())
                kept += ((weight - base).float() * change).sum().item()
                wanted += change.square().sum().item()
            if not right:
                raise ExportCheckError(f"{module_name}.{name} is not what merging gives; do not use the export")
    return kept / wanted if wanted else 1.0


def _base_and_change(part: nn.Module, name: str) -> tuple[Tensor, Tensor | None]:
    """A base weight, and what the adapter adds to it, in float32; None where no adapter sits."""
    if not isinstance(part, LoraLayer):
        return part.get_parameter(name), None
    base = part.get_base_layer().get_parameter(name)
    if name != "weight":
        return base, None
    adapter: Any = part
    change: Tensor = adapter.get_delta_weight("default").float()
    if "default" in adapter.lora_magnitude_vector:  # DoRA
        rows, lengths = base.float() + change, adapter.lora_magnitude_vector["default"].weight.float()
        change = rows * (lengths / rows.norm(dim=1))[:, None] - base.float()
    return base, change


def _rounding(base: Tensor, change: Tensor) -> Tensor:
    """How far rounding may move each sum: the change and the sum are each rounded once, DoRA's lengths in float32."""
    eps = 2 * torch.finfo(base.dtype).eps + 4 * torch.finfo(torch.float32).eps
    return eps * (base.float().abs() + change.abs())
