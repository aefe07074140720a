"""How fast a run goes and what it waits for: what the training log says beside the loss."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from riskva.modeling.flops import Batch, model_flops
from riskva.modeling.shapes import Shapes

RATES = (
    "samples_per_second",
    "tokens_per_second",
    "supervised_tokens_per_second",
    "images_per_second",
    "data_wait_share",
    "mfu",
)
"""What a log entry gets; the last two are shares of 1."""

_SECONDS_TO_MEASURE = 0.2


@dataclass
class Throughput:
    """Counts what one process has trained on since the last log entry; evaluations and saving between steps are not in.

    `mfu` (PaLM, arXiv 2204.02311, appendix B) is the share of the device's rate that the model's own work took:
    without what checkpointing does twice, and without a vision tower whose features were cached. The device's rate is
    that of a large matrix product in the compute dtype, measured once.
    """

    shapes: Shapes
    dtype: torch.dtype
    device: torch.device
    num_processes: int = 1

    def __post_init__(self) -> None:
        self._peak: float | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._step_began: float | None = None
        self._seconds = self._waited = 0.0
        self._samples = self._tokens = self._supervised = self._images = self._flops = 0

    def begin_step(self, batches: Sequence[Mapping[str, Any]], seconds_waited: float) -> None:
        """Count the micro-batches of the step that begins, and how long this process has waited for them."""
        self._step_began = time.perf_counter() - seconds_waited
        self._waited += seconds_waited
        for batch in batches:
            counted = _counted(batch)
            self._samples += len(counted.lengths)
            self._tokens += counted.num_tokens
            self._supervised += counted.num_supervised
            self._images += len(batch.get("image_grid_thw", ()))
            self._flops += model_flops(self.shapes, counted)

    def end_step(self) -> None:
        """The step is over."""
        if self._step_began is not None:
            self._seconds += time.perf_counter() - self._step_began
            self._step_began = None

    def rates(self, sum_over_processes: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The rates since the last call, over all processes, which must all call it; then counting begins anew."""
        if self._peak is None:
            self._peak = matmul_rate(self.device, self.dtype)
        counted = [self._seconds, self._waited, self._peak, self._samples]
        counted += [self._tokens, self._supervised, self._images, self._flops]
        summed = sum_over_processes(torch.tensor(counted, dtype=torch.float64, device=self.device)).tolist()
        seconds, waited, peak, samples, tokens, supervised, images, flops = summed
        self._begin_anew()
        if not seconds:
            return {}
        per_second = self.num_processes / seconds
        return {
            "samples_per_second": round(samples * per_second, 2),
            "tokens_per_second": round(tokens * per_second, 1),
            "supervised_tokens_per_second": round(supervised * per_second, 1),
            "images_per_second": round(images * per_second, 2),
            "data_wait_share": round(waited / seconds, 4),
            "mfu": round(flops * per_second / peak, 4),
        }


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product on the device, as this process gets it."""
    side = 1024 if device.type == "cpu" else 8192
    # Random, because ones draw less power and run faster; not by the global generator, which dropout draws from
    draws = torch.Generator(device).manual_seed(0)
    matrix = torch.randn(side, side, generator=draws, device=device).to(dtype)
    _product(matrix)  # the first call chooses its kernel
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < _SECONDS_TO_MEASURE:
        _product(matrix)
        count += 1
    return 2 * side**3 * count / (time.perf_counter() - started)


def _product(matrix: Tensor) -> None:
    product = matrix @ matrix
    if product.is_cuda:
        torch.cuda.synchronize()


def _counted(batch: Mapping[str, Any]) -> Batch:
    grids: list[list[int]] = batch["image_grid_thw"].tolist() if "image_grid_thw" in batch else []
    has_features = batch.get("has_features") or [False] * len(grids)
    seen = [(one[0], one[1], one[2]) for one, is_kept in zip(grids, has_features, strict=True) if not is_kept]
    num_supervised = int((batch["labels"] >= 0).sum())
    return Batch(tuple(batch["cu_seqlens"].diff().tolist()), num_supervised, tuple(seen))
