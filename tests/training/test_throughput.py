"""Rates by hand on a clock that the test turns, and that a slow loader is seen."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mixed_samples import TUNINGS, mixed_conversations, recipe
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments
from user_rows import drawn_conversations

from riskva.encoding import Encoded, PackedCollator, Processor, encode, load_processor
from riskva.modeling.flops import Batch, model_flops
from riskva.modeling.loading import load_model
from riskva.modeling.shapes import Shapes, shapes_of
from riskva.training import EncodedDataset, throughput
from riskva.training.throughput import RATES, Throughput, matmul_rate
from riskva.training.trainer import RiskTrainer

PEAK = 1e9


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    turned = Clock()
    monkeypatch.setattr(throughput.time, "perf_counter", turned)  # type: ignore[attr-defined]
    monkeypatch.setattr(throughput, "matmul_rate", lambda *_: PEAK)
    return turned


@pytest.fixture(scope="module")
def processor(tiny_model: Path) -> Processor:
    return load_processor(tiny_model)


@pytest.fixture(scope="module")
def shapes(tiny_model: Path) -> Shapes:
    return shapes_of(load_model(tiny_model).config, recipe(**TUNINGS["lora"]))


@pytest.fixture(scope="module")
def batch(processor: Processor) -> dict[str, Any]:
    return PackedCollator(processor)([encode(one, processor) for one in mixed_conversations()])


def counting(shapes: Shapes, num_processes: int = 1) -> Throughput:
    return Throughput(shapes, torch.float32, torch.device("cpu"), num_processes)


def alone(counts: Tensor) -> Tensor:
    return counts


def step(counted: Throughput, clock: Clock, batches: list[dict[str, Any]], waited: float, computed: float) -> None:
    clock.now += waited
    counted.begin_step(batches, waited)
    clock.now += computed
    counted.end_step()


def test_rates_are_counts_over_seconds(clock: Clock, shapes: Shapes, batch: dict[str, Any]) -> None:
    counted = counting(shapes)
    step(counted, clock, [batch, batch], waited=0.5, computed=1.5)
    clock.now += 1000  # an evaluation
    step(counted, clock, [batch], waited=0.25, computed=1.75)
    rates = counted.rates(alone)
    num_tokens, num_supervised = batch["labels"].numel(), int((batch["labels"] != -100).sum())
    assert rates["tokens_per_second"] == pytest.approx(3 * num_tokens / 4, abs=0.05)
    assert rates["supervised_tokens_per_second"] == pytest.approx(3 * num_supervised / 4, abs=0.05)
    assert rates["images_per_second"] == pytest.approx(3 * 6 / 4, abs=0.005)
    assert rates["data_wait_share"] == pytest.approx(0.75 / 4, abs=5e-5)
    lengths = tuple(batch["cu_seqlens"].diff().tolist())
    flops = model_flops(shapes, Batch(lengths, num_supervised, tuple(map(tuple, batch["image_grid_thw"].tolist()))))
    assert rates["mfu"] == pytest.approx(3 * flops / 4 / PEAK, abs=5e-5)
    assert rates["mfu"] > 0.01
    assert tuple(rates) == RATES


def test_each_entry_counts_anew(clock: Clock, shapes: Shapes, batch: dict[str, Any]) -> None:
    counted = counting(shapes)
    step(counted, clock, [batch], waited=3, computed=1)
    assert counted.rates(alone)["data_wait_share"] == 0.75
    step(counted, clock, [batch], waited=1, computed=3)
    assert counted.rates(alone)["data_wait_share"] == 0.25
    assert counted.rates(alone) == {}  # no step since


def test_cached_photos_count_as_images_and_not_as_work(clock: Clock, shapes: Shapes, batch: dict[str, Any]) -> None:
    counted = counting(shapes)
    found = []
    for has_features in ([False] * 6, [True] * 6):
        step(counted, clock, [batch | {"has_features": has_features}], waited=0, computed=1)
        found.append(counted.rates(alone))
    assert found[0]["images_per_second"] == found[1]["images_per_second"] == 6
    assert 0 < found[1]["mfu"] < found[0]["mfu"]


def test_rates_are_those_of_all_processes(clock: Clock, shapes: Shapes, batch: dict[str, Any]) -> None:
    """Two processes that do the same go twice as fast as one, and wait the same share on a device as busy."""
    one, two = counting(shapes), counting(shapes, num_processes=2)
    for counted in (one, two):
        step(counted, clock, [batch], waited=1, computed=3)
    single, double = one.rates(alone), two.rates(lambda counts: 2 * counts)
    for name in ("tokens_per_second", "supervised_tokens_per_second", "images_per_second"):
        assert double[name] == pytest.approx(2 * single[name], abs=0.1)
    for name in ("data_wait_share", "mfu"):
        assert double[name] == pytest.approx(single[name], abs=1e-4)


def test_a_matrix_products_rate_is_what_it_is_on_the_clock() -> None:
    rate = matmul_rate(torch.device("cpu"), torch.float32)
    matrix = torch.ones(1024, 1024)
    started = time.perf_counter()
    matrix @ matrix
    assert 0.1 < 2 * 1024**3 / (time.perf_counter() - started) / rate < 10


class SlowDataset(EncodedDataset):
    """Each row takes as many seconds more as this says."""

    seconds = 0.0

    def __getitem__(self, index: int) -> Encoded:
        time.sleep(self.seconds)
        return super().__getitem__(index)


class Entries(TrainerCallback):
    def __init__(self) -> None:
        self.entries: list[dict[str, float]] = []

    def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
        if logs and "loss" in logs:
            self.entries.append(dict(logs))


def logged(seconds: float, tiny_model: Path, processor: Processor, shapes: Shapes, out: Path) -> dict[str, float]:
    """The rates of three steps with a loader that is slow by so many seconds a row."""
    args = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=2,
        max_steps=3,
        logging_steps=3,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    entries, dataset = Entries(), SlowDataset(drawn_conversations(8), processor)
    object.__setattr__(dataset, "seconds", seconds)
    RiskTrainer(
        model=load_model(tiny_model),
        args=args,
        train_dataset=dataset,
        data_collator=PackedCollator(processor),
        callbacks=[entries],
        throughput=counting(shapes),
    ).train()
    (entry,) = entries.entries
    return entry


def test_waiting_for_a_slow_loader_is_seen(
    tiny_model: Path, processor: Processor, shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "matmul_rate", lambda *_: PEAK)
    fast, slow = (logged(seconds, tiny_model, processor, shapes, tmp_path) for seconds in (0.0, 0.2))
    assert set(RATES) <= fast.keys()
    assert slow["data_wait_share"] > 0.5  # each step waits 0.4 s, and computes for about 0.05 s
    assert slow["data_wait_share"] > fast["data_wait_share"] + 0.1
    assert slow["tokens_per_second"] < fast["tokens_per_second"]
    assert slow["images_per_second"] < 6 / 1.2
