"""The proof that an exported model is its base + adapter: by its answers to fixed photos, and weight by weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from torch import Tensor
from transformers import AutoModelForImageTextToText, PreTrainedModel

from riskva.console import progress, warn
from riskva.encoding import Collator, Encoded, Processor
from riskva.errors import ExportCheckError
from riskva.modeling.adapted_weights import ADAPTER, AdaptedWeights, replacement
from riskva.modeling.loading import attach_adapter, load_model
from riskva.modeling.weight_files import StoredWeights

TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference of logits, as a share of the largest logit, by the base's dtype.

Measured on random models, tied and untied, with adapters of rank 8 and 64 (LoRA, rsLoRA, DoRA; language, or language
and vision) that change weights by 5 % and by 50 % of their length, the worst of each: with 2 layers float32 9e-7,
float16 2.0e-3, bfloat16 1.5e-2; with 16 layers 1.3e-6, 2.8e-3 and 2.5e-2; bfloat16 with 40 layers of width 1024 2.9e-2.
Merging rounds W + BA once and base + adapter rounds Wx + BAx, so this is no error; the comparison of weights is the
sharp one, this one shows that the whole model runs.
"""

LEAST_KEPT = 0.9
"""A warning says so when rounding keeps less of the adapter's change than this share."""


@dataclass(frozen=True)
class Likeness:
    """How near the export's logits are to those of base + adapter.

    `difference` is the largest one, and `share` that as a share of the largest logit; `agreement` is the share of
    positions whose likeliest token is the same.
    """

    difference: float
    share: float
    agreement: float


@torch.inference_mode()
def logits_of(model: PreTrainedModel | PeftModel, row: Encoded, processor: Processor) -> Tensor:
    """The model's logits (T, vocabulary) on one encoded sample, in float32 on the CPU."""
    batch = Collator(processor)([row])
    del batch["labels"]
    device = next(model.parameters()).device
    logits: Tensor = model.eval()(**{name: tensor.to(device) for name, tensor in batch.items()}).logits
    return logits[0].float().cpu()


def expected_logits(
    base: Path, adapter: Path, probes: Sequence[Encoded], processor: Processor, device: torch.device
) -> list[Tensor]:
    """What base + adapter says, unmerged, in the base's dtype: (T, vocabulary) for each probe."""
    model = attach_adapter(load_model(base), adapter).to(device)
    return [logits_of(model, probe, processor) for probe in probes]


def check_logits(
    folder: Path, expected: Sequence[Tensor], probes: Sequence[Encoded], processor: Processor, device: torch.device
) -> Likeness:
    """Load the exported model as any user of transformers would and compare what it says.

    Raises `ExportCheckError` when the logits differ by more than rounding explains.
    """
    exported = cast(Any, AutoModelForImageTextToText).from_pretrained(folder, dtype="auto", local_files_only=True)
    exported = exported.to(device)
    found = [logits_of(exported, probe, processor) for probe in probes]
    likeness = compare_logits(found, expected)
    allowed = TOLERANCE[exported.dtype]
    if not likeness.share <= allowed:  # a difference that is no number is none that is small
        raise ExportCheckError(
            f"{folder}: the exported model's logits differ from base + adapter's by {likeness.difference:.2g}, "
            f"{likeness.share:.2g} of the largest (allowed: {allowed:g}); do not use the export"
        )
    return likeness


def compare_logits(found: Sequence[Tensor], expected: Sequence[Tensor]) -> Likeness:
    """Logits (T, vocabulary) of the same probes, compared."""
    difference = max(float((one - other).abs().max()) for one, other in zip(found, expected, strict=True))
    largest = max(float(one.abs().max()) for one in expected)
    same = torch.cat([one.argmax(-1) == other.argmax(-1) for one, other in zip(found, expected, strict=True)])
    return Likeness(difference, difference / largest, float(same.float().mean()))


@torch.inference_mode()
def check_weights(folder: Path, weights: AdaptedWeights) -> float:
    """Compare every stored tensor with base + adapter's; the share of the adapter's change that rounding kept.

    Each adapted weight must be W + scale·BA (under DoRA with rows of the lengths that were trained), rounded once to
    its dtype, and every other tensor the base's, bit for bit. `weights` are freshly read. Raises `ExportCheckError`
    naming the first tensor that is wrong. One tensor is in memory at a time; sums are made on the CPU.
    """
    exported = StoredWeights.of(folder)
    if differing := weights.stored.files.keys() ^ exported.files.keys():
        raise ExportCheckError(f"{folder}: {min(differing)} is only in one of the export and its base; do not use it")
    kept = wanted = 0.0
    for name, weight, base in _pairs(weights.stored, exported):
        place = weights.places.get(name, "")
        change = _change(weights, place, base.float()) if place in weights.modules else None
        right = weight.dtype == base.dtype and weight.shape == base.shape
        if right and change is None:
            right = torch.equal(weight, base)
        elif right and change is not None:
            right = bool((weight.float() - base.float() - change).abs().le(_rounding(base, change)).all())
            kept += ((weight.float() - base.float()) * change).sum().item()
            wanted += change.square().sum().item()
        if not right:
            raise ExportCheckError(f"{folder}: {name} is not what merging gives; do not use the export")
    kept_share = kept / wanted if wanted else 1.0
    if kept_share < LEAST_KEPT:
        warn(
            f"rounding keeps only {kept_share:.0%} of what the adapter changes: its updates are smaller than the "
            "base's dtype tells apart. Predict with base + adapter, or train further"
        )
    return kept_share


def _pairs(base: StoredWeights, exported: StoredWeights) -> Iterator[tuple[str, Tensor, Tensor]]:
    for name in progress(base.files, len(base.files), "checking", "tensor"):
        yield name, exported[name], base[name]


def _change(weights: AdaptedWeights, place: str, base: Tensor) -> Tensor:
    """What the adapter adds to `base`, a weight in float32."""
    module: Any = weights.modules[place]
    if isinstance(module, ModulesToSaveWrapper):
        return replacement(module, place) - base
    change: Tensor = module.get_delta_weight(ADAPTER)
    if ADAPTER in module.lora_magnitude_vector:  # DoRA
        rows, lengths = base + change, module.lora_magnitude_vector[ADAPTER].weight
        change = rows * (lengths / rows.norm(dim=1))[:, None] - base
    return change


def _rounding(base: Tensor, change: Tensor) -> Tensor:
    """How far each sum may be moved: in float32, and then by being rounded once to the base's dtype."""
    noise = 4 * torch.finfo(torch.float32).eps * (base.float().abs() + change.abs() + change.abs().max())
    kind = torch.finfo(base.dtype)
    # Below the smallest normal number steps are all alike: in float16 that is 6e-5
    return noise + kind.eps / 2 * ((base.float() + change).abs() + noise).clamp(min=kind.smallest_normal)
