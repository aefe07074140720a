"""Whether bench_gpu.py runs, on a CPU with tiny shapes; what it does where memory ends is tried on a pretended end."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench_gpu
import pytest
import torch
from bench_gpu import Results, lines_in_order, shown, table
from gpu_bench.checks import Check, check, largest, masked
from gpu_bench.models import LEVERS, Line
from gpu_bench.trials import NoRoomError, Settings, fitting_samples, measure, settle, smaller_and_smaller

SETTINGS = Settings("cpu", is_tiny=True, steps=1, samples=2, max_tokens=4096)
CPU = torch.device("cpu")


@pytest.mark.slow
def test_every_lever_but_the_compiler_runs_and_saves_work() -> None:
    lines = {lever: measure(Line("3B", 448, lever), SETTINGS) for lever in LEVERS if lever != "compiled"}
    assert {one.samples for one in lines.values()} == {2}
    assert len({one.tokens_a_sample for one in lines.values()}) == 1
    assert [one.layers_checkpointed for one in lines.values()] == [2, 2, 2, 2, 0]
    needed = [one.needed_tflops for one in lines.values()]
    assert needed[0] == needed[1] == needed[2] > needed[3] == needed[4]
    assert [one.estimated_bytes is None for one in lines.values()] == [True, True, False, False, False]
    losses = torch.tensor([one.loss for one in lines.values()])
    torch.testing.assert_close(losses[1], losses[2], rtol=1e-3, atol=0)  # of one class, so of the same weights
    assert losses.isfinite().all()


@pytest.mark.slow
def test_all_forms_agree_on_a_cpu() -> None:
    checks = check(CPU, is_tiny=True)
    assert [one.name for one in checks if not one.holds] == []
    assert len(checks) == 18


def test_a_check_that_is_no_number_does_not_hold() -> None:
    assert Check("x", 0.01, 0.01).holds
    assert not Check("x", 0.011, 0.01).holds
    assert not Check("x", float("nan"), 0.01).holds


def test_the_mask_keeps_segments_apart() -> None:
    query, key, value = (torch.randn(5, 2, 8) for _ in range(3))
    bounds = torch.tensor([0, 2, 5])
    whole = masked(query, key, value, bounds, is_causal=True)
    alone = masked(query[2:], key[2:], value[2:], torch.tensor([0, 3]), is_causal=True)
    assert largest(whole[2:], alone) < 1e-6
    assert largest(whole[0], value[0]) < 1e-6


def test_the_most_telling_lines_come_first() -> None:
    lines = list(lines_in_order(["7B", "3B"], [1024, 448], LEVERS))
    assert len(lines) == len(set(lines)) == 24
    assert [one.key for one in lines[:3]] == [f"7B, 1024 x 1024, {one}" for one in ("plain", "compiled", "as_needed")]
    assert lines[3] == Line("3B", 448, "plain")
    assert {one.key for one in lines[:12]} == {
        Line(*pair, lever).key for pair in bench_gpu.PAIRS[:2] for lever in LEVERS
    }
    assert [one.lever for one in lines_in_order(["3B"], [448], ["cached", "plain"])] == ["plain", "cached"]


def test_less_and_less_is_tried() -> None:
    tried = list(smaller_and_smaller(8, 20, 28))
    assert tried[:4] == [(8, 20), (8, 24), (8, 28), (6, 28)]
    assert tried[-1] == (1, 28)
    assert list(smaller_and_smaller(0, 2, 2)) == [(1, 2)]


@dataclass
class PretendedGpu:
    """A trial on a device whose memory ends: a token takes 1 byte of 100,000, or 10 in a layer that is not twice."""

    line: Line
    device: torch.device = CPU
    num_layers: int = 4
    tokens_a_sample: int = 1000
    tokens_at_least: int = 0
    layers: int = 0
    last: int = 0
    tried: list[tuple[int, int]] = field(default_factory=list)

    def checkpoint(self, num: int) -> None:
        self.layers = num

    def batches(self, num_samples: int) -> list[int]:
        return [num_samples] * 3

    def survives(self, batches: list[int]) -> bool:
        self.tried.append((batches[0], self.layers))
        each = 2 * self.layers + 10 * (self.num_layers - self.layers)
        self.last = self.tokens_a_sample * each * batches[0]
        return self.last + self.tokens_at_least < 100_000


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes pretended trials, whose peaks the benchmark takes for measured ones."""

    def make(lever: str, **others: Any) -> Any:
        trial = PretendedGpu(Line("7B", 1024, lever), **others)
        monkeypatch.setattr("gpu_bench.trials.peak", lambda _: trial.last)
        size = type("Properties", (), {"total_memory": 100_000})
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: size)
        monkeypatch.setattr("gpu_bench.trials.memory_at_hand", lambda _: 100_000)
        return trial

    return make


NO_NUMBER = Settings("cpu", is_tiny=True, steps=1, samples=None, max_tokens=10**6)


def test_samples_fill_the_memory(gpu: Any) -> None:
    trial = gpu("cached")
    trial.checkpoint(4)
    assert fitting_samples(trial, 10**6) == 11  # 8,000 bytes each, of 92,000
    assert fitting_samples(trial, 5000) == 5
    assert fitting_samples(gpu("cached", tokens_at_least=10**6), 10**6) == 0


def test_what_does_not_fit_after_all_is_made_smaller(gpu: Any) -> None:
    trial = gpu("cached", tokens_at_least=30_000)  # unseen in the peaks
    batches, layers = settle(trial, NO_NUMBER)
    assert trial.tried == [(1, 4), (2, 4), (11, 4), (9, 4), (7, 4)]
    assert (batches[0], layers) == (7, 4)


def test_layers_are_checkpointed_where_few_tokens_fit_without(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def planner(trial: Any, samples: int) -> Any:
        return type("Planner", (), {"bytes_with": staticmethod(lambda num: 120_000 - 15_000 * num)})

    monkeypatch.setattr("gpu_bench.trials.planner", planner)
    trial = gpu("as_needed")
    batches, layers = settle(trial, NO_NUMBER)
    assert trial.tried == [(1, 0), (2, 0), (5, 2), (5, 3)]
    assert (batches[0], layers) == (5, 3)
    roomy = gpu("as_needed", tokens_a_sample=100)
    assert [settle(roomy, Settings("cpu", True, 1, 7, 1))[1], roomy.tried] == [0, [(7, 0)]]


def test_where_nothing_fits_it_is_said(gpu: Any) -> None:
    with pytest.raises(NoRoomError, match="7B, 1024 x 1024, cached: the memory is not enough"):
        settle(gpu("cached", tokens_at_least=10**6), NO_NUMBER)


LINE = {"samples_per_second": 4.0, "mfu": 0.5, "samples": 2, "tokens_a_sample": 10.0, "layers_checkpointed": 3}
NUMBERS = {**LINE, "peak_bytes": 10**9, "estimated_bytes": None}


def test_results_are_kept_and_what_failed_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    results = Results(path, {"device": "a"})
    results.add("one", NUMBERS)
    results.add("other", {"error": "out of memory"})
    assert json.loads(path.read_text(encoding="utf-8"))["done"].keys() == {"one", "other"}
    assert Results(path, {"device": "a"}).done == {"one": NUMBERS}
    with pytest.raises(SystemExit, match="name another file"):
        Results(path, {"device": "b"})


def test_the_table_compares_with_the_plain_loop() -> None:
    done = {Line("3B", 448, "cached").key: NUMBERS | {"samples_per_second": 12.0}}
    assert " 3.00 " not in "\n".join(table(done))
    lines = list(table(done | {Line("3B", 448, "plain").key: NUMBERS, Line("7B", 448, "plain").key: {"error": "x"}}))
    assert len(lines) == 3
    assert " 3.00 " in lines[2]
    assert "NOT KEPT: x" in shown("checks", {"checks": [{"name": "x", "difference": 2.0, "allowed": 1.0}]})


@pytest.mark.slow
def test_a_line_is_measured_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out.json"
    command = ["bench_gpu.py", "--out", str(path), "--device", "cpu", "--tiny", "--steps", "1"]
    monkeypatch.setattr(bench_gpu, "CHECKS", "plain")  # they have a test of their own
    about = bench_gpu.about_this(Settings("cpu", True, 1, 2, 32768))
    Results(path, about).add("plain", {"checks": []})
    monkeypatch.setattr(sys, "argv", [*command, "--models", "3B", "--photos", "448", "--levers", "plain"])
    assert bench_gpu.main() == 0
    assert "3B, 448 x 448, plain: " in capsys.readouterr().out
    assert json.loads(path.read_text(encoding="utf-8"))["done"]["3B, 448 x 448, plain"]["samples"] == 2
