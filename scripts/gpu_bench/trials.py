"""A line of the table: its model, micro-batches that fill the memory, and steps that are timed."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean, median
from typing import Any

import torch
from bench_shapes import collator_tokens, lengths_of, sample, tiny_config
from count_flops import lora_recipe, photo_grid, published_config

from gpu_bench.models import Line, build, mean_loss, on_device
from riskva.encoding import Collator, Encoded, PackedCollator
from riskva.modeling.checkpointing import checkpoint_layers, memory_at_hand, num_layers_to_checkpoint
from riskva.modeling.flops import Batch, model_flops
from riskva.modeling.memory import Load, Planner
from riskva.modeling.shapes import Shapes, shapes_of
from riskva.training.throughput import matmul_rate

QUESTION, ANSWER = 60, (60, 140)
"""Text tokens around the photo; the fewest and the most of the answer."""
NUM_BATCHES = 3
"""Different ones, taken in turn; all are warm-up once."""
FILLED = 0.92
"""Share of the device's memory that a micro-batch may fill by estimate; the allocator's fragments need the rest."""
ENOUGH_TOKENS = 4096
"""In a micro-batch; rather than with less, some layers are checkpointed."""


@dataclass(frozen=True)
class Settings:
    """How lines are measured."""

    device: str
    is_tiny: bool
    steps: int
    samples: int | None
    """Samples of a micro-batch; None: what the memory allows."""
    max_tokens: int


@dataclass(frozen=True)
class Measured:
    """A line's numbers."""

    samples: int
    tokens_a_sample: float
    layers_checkpointed: int
    seconds: list[float]
    """Of each step."""
    samples_per_second: float
    needed_tflops: float
    """Of a step, in 10^12 operations."""
    matmul_tflops: float
    """The device's rate, per second."""
    mfu: float
    peak_bytes: int
    estimated_bytes: int | None
    """`riskva.modeling.memory`'s, without CUDA's own; None for what it does not plan."""
    loss: float


class NoRoomError(RuntimeError):
    """Not even the smallest micro-batch fits."""


@dataclass(frozen=True)
class MicroBatch:
    """What the model takes, and what it is made of."""

    tensors: dict[str, Any]
    counted: Batch


@dataclass(frozen=True)
class Trial:
    """A line's model, ready to take steps."""

    line: Line
    config: Any
    model: Any
    optimizer: torch.optim.Optimizer
    device: torch.device

    @classmethod
    def of(cls, line: Line, settings: Settings) -> Trial:
        """The line's model with AdamW."""
        torch.manual_seed(0)
        device = torch.device(settings.device)
        config: Any = tiny_config() if settings.is_tiny else published_config(line.model)
        model = build(line, config, device)
        weights = [one for one in model.parameters() if one.requires_grad]
        return cls(line, config, model, torch.optim.AdamW(weights, lr=1e-4, fused=True), device)

    @cached_property
    def shapes(self) -> Shapes:
        """The model's matrices, for counting."""
        return shapes_of(self.config, lora_recipe())

    @property
    def num_layers(self) -> int:
        """Layers of the language model."""
        return int(self.config.text_config.num_hidden_layers)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches of each photo."""
        return photo_grid((self.line.photo, self.line.photo))

    @property
    def tokens_a_sample(self) -> int:
        """On average."""
        return self.grid[1] * self.grid[2] // 4 + QUESTION + sum(ANSWER) // 2

    def checkpoint(self, num: int) -> None:
        """Compute the first layers twice, where that is the line's to choose."""
        if self.line.has("no_grad"):
            checkpoint_layers(self.model, num)

    def batches(self, num_samples: int) -> list[MicroBatch]:
        """Different ones of so many samples."""
        return [self._batch(range(start * num_samples, (start + 1) * num_samples)) for start in range(NUM_BATCHES)]

    def _batch(self, seeds: Sequence[int]) -> MicroBatch:
        samples = [self._sample(seed) for seed in seeds]
        tokens = collator_tokens(self.config)
        collator = PackedCollator(tokens) if self.line.has("packed") else Collator(tokens)
        supervised = sum(int((one.labels >= 0).sum()) for one in samples)
        grids = [] if self.line.has("cached") else [self.grid] * len(samples)
        return MicroBatch(collator(samples), Batch(lengths_of(samples), supervised, grids))

    def _sample(self, seed: int) -> Encoded:
        features = None
        if self.line.has("cached"):
            text = self.config.text_config
            features = torch.randn(self.grid[1] * self.grid[2] // 4, text.hidden_size, dtype=torch.bfloat16)
        answer = ANSWER[0] + seed * 37 % (ANSWER[1] - ANSWER[0] + 1)
        return sample(
            self.config, self.grid, num_text=QUESTION + answer, num_supervised=answer, seed=seed, features=features
        )

    def step(self, batch: MicroBatch) -> float:
        """Forward, backward, AdamW; the mean loss of a supervised token."""
        tensors = on_device(batch.tensors, self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = mean_loss(self.model(**tensors))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())  # waits for the device

    def survives(self, batches: Sequence[MicroBatch]) -> bool:
        """Whether the memory is enough for a step with each; they warm up what is made once."""
        is_enough = True
        try:
            for batch in batches:
                self.step(batch)
        except torch.OutOfMemoryError:
            is_enough = False
        if not is_enough:  # only here have the failed step's tensors gone, with the exception that held them
            self.optimizer.zero_grad()
            gc.collect()
            torch.cuda.empty_cache()
        return is_enough


def begin_peak(device: torch.device) -> None:
    """Forget the most memory so far; a CPU's process cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> int:
    """The most bytes of tensors on a GPU since `begin_peak`; on a CPU the process's most resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fitting_samples(trial: Trial, max_tokens: int) -> int:
    """The samples that fill the memory, from the peaks with one and with two; 0 if not even one fits."""
    peaks = []
    for number in (1, 2):
        batches = trial.batches(number)[:2]
        begin_peak(trial.device)
        if not trial.survives(batches):
            return len(peaks)
        peaks.append(peak(trial.device))
    room = torch.cuda.get_device_properties(trial.device).total_memory * FILLED - peaks[0]
    most = max(1, max_tokens // trial.tokens_a_sample)
    return min(most, 1 + int(room // max(1, peaks[1] - peaks[0])))


def planner(trial: Trial, samples: int, tokens: int | None = None) -> Planner:
    """What RisKVA's planner makes of a micro-batch of so many samples, of average length or so many tokens."""
    patches = 0 if trial.line.has("cached") else samples * trial.grid[1] * trial.grid[2]
    load = Load(tokens or samples * trial.tokens_a_sample, samples, patches)
    return Planner(trial.shapes, lora_recipe(training={"bf16": True}), load, is_cuda=trial.device.type == "cuda")


def settle(trial: Trial, settings: Settings) -> tuple[list[MicroBatch], int]:
    """Micro-batches that the memory is enough for, and how many layers are checkpointed for them.

    Raises `NoRoomError` where there are none.
    """
    layers = 0 if trial.line.has("as_needed") else trial.num_layers
    trial.checkpoint(layers)
    samples = settings.samples or fitting_samples(trial, settings.max_tokens)
    enough = -(-ENOUGH_TOKENS // trial.tokens_a_sample)
    if settings.samples is None and trial.line.has("as_needed") and samples < enough:
        samples = enough
        at_hand = memory_at_hand(trial.device)
        layers = num_layers_to_checkpoint(planner(trial, samples).bytes_with, trial.num_layers, at_hand)
    for number, num_checkpointed in smaller_and_smaller(samples, layers, trial.num_layers):
        trial.checkpoint(num_checkpointed)
        batches = trial.batches(number)
        if trial.survives(batches):
            return batches, num_checkpointed
    raise NoRoomError(f"{trial.line.key}: the memory is not enough for one sample")


def smaller_and_smaller(samples: int, layers: int, num_layers: int) -> Iterator[tuple[int, int]]:
    """What to try next when the memory was not enough: more layers checkpointed, then fewer samples."""
    samples = max(samples, 1)
    yield samples, layers
    while layers < num_layers:
        layers = min(num_layers, layers + 1 + num_layers // 8)
        yield samples, layers
    while samples > 1:
        samples = min(samples - 1, int(samples * 0.85))
        yield samples, layers


def measure(line: Line, settings: Settings) -> Measured:
    """The line, in this process."""
    trial = Trial.of(line, settings)
    rate = matmul_rate(trial.device, torch.bfloat16)
    batches, layers = settle(trial, settings)
    begin_peak(trial.device)
    steps = [timed(trial, batches[number % NUM_BATCHES]) for number in range(settings.steps)]
    seconds, samples = median(one for one, _ in steps), len(batches[0].counted.lengths)
    needed = mean(model_flops(trial.shapes, one.counted) for one in batches)
    return Measured(
        samples=samples,
        tokens_a_sample=mean(one.counted.num_tokens for one in batches) / samples,
        layers_checkpointed=layers,
        seconds=[one for one, _ in steps],
        samples_per_second=samples / seconds,
        needed_tflops=needed / 1e12,
        matmul_tflops=rate / 1e12,
        mfu=needed / seconds / rate,
        peak_bytes=peak(trial.device),
        estimated_bytes=estimated(trial, batches, layers),
        loss=steps[-1][1],
    )


def timed(trial: Trial, batch: MicroBatch) -> tuple[float, float]:
    """The seconds of a step, and its loss."""
    began = time.perf_counter()
    loss = trial.step(batch)
    return time.perf_counter() - began, loss


def estimated(trial: Trial, batches: Sequence[MicroBatch], layers: int) -> int | None:
    """The memory that is planned for, as `Measured` has it."""
    if not trial.line.has("no_grad"):
        return None
    largest = max(one.counted.num_tokens for one in batches)
    estimate = planner(trial, len(batches[0].counted.lengths), largest).with_checkpointed(layers)
    return estimate.total - estimate.overhead
