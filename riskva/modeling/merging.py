"""An adapter merged into its base: one tensor in memory at a time, one file of weights before it is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from riskva.console import progress
from riskva.errors import ExportCheckError
from riskva.modeling.adapted_weights import AdaptedWeights
from riskva.modeling.weight_files import StoredWeights, write_weights


def merge_and_save(
    weights: AdaptedWeights, folder: Path, max_shard_bytes: int, device: torch.device | None = None
) -> None:
    """Write base + adapter as the weights of one model, under the base's names and in its dtypes.

    Sums are made in float32 on `device` (the CPU unless given), weight by weight. Raises `ExportCheckError` when a
    tensor of the base is not written, or one of the adapter's modules not used, exactly once.
    """
    names = list(weights.stored.files)
    sizes = {name: weights.stored[name].nbytes for name in names}
    used: list[str] = []
    write_weights(folder, sizes, _merged(weights, names, device or torch.device("cpu"), used), max_shard_bytes)
    if sorted(used) != sorted(weights.modules):
        raise ExportCheckError(f"{folder}: {len(used)} of {len(weights.modules)} weights were adapted; do not use it")
    if sorted(StoredWeights.of(folder).files) != sorted(names):
        raise ExportCheckError(f"{folder}: its tensors are not those of {weights.base} by name; do not use it")


def _merged(
    weights: AdaptedWeights, names: list[str], device: torch.device, used: list[str]
) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of the export; the places of the changed ones are added to `used`."""
    for name in progress(names, len(names), "merging", "tensor"):
        tensor, place = weights.stored[name], weights.places.get(name, "")
        if place in weights.modules:
            used.append(place)
            tensor = weights.merged(place, tensor, device)
        yield name, tensor
