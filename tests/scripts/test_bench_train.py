"""Whether the two sides of bench_train.py train alike, and what it says of numbers; not how fast they are."""

from dataclasses import replace
from pathlib import Path

import bench_train
import pytest
import torch
from bench_shapes import SMALL, TINY, write_rows
from bench_train import COMPILED, PLAIN, RISKVA, Job, Run, broken_bounds, in_a_process, summarise, table

ROWS = 12  # in batches of 2 x 4: the second step of an epoch is half as large


@pytest.fixture(scope="module")
def job(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "model").symlink_to(tiny_model)
    write_rows(folder / "rows", TINY, ROWS)
    return Job(RISKVA, "float32", str(folder), epochs=2, threads=torch.get_num_threads())


@pytest.mark.slow
def test_both_sides_take_the_same_steps(job: Job) -> None:
    runs = [bench_train.train(replace(job, side=PLAIN)), in_a_process(job)]
    for run in runs:
        assert len(run.epochs) == 2
        assert len(run.losses) == 4
        assert run.first_step > 0
        assert 0 < run.peak_bytes < 2 * 10**9
    assert runs[0].losses[-1] < runs[0].losses[0] - 0.05  # it learns, so that equal losses say something
    summaries = summarise(runs, ROWS)
    assert broken_bounds(summaries, judges_speed=False) == []
    assert len(list(table(summaries))) == 7


def made_up(side: str, seconds: float, loss: float = 2.0, precision: str = "bfloat16") -> Run:
    return Run(side, precision, 1.0, [9.0, seconds, seconds, 99.0], [3.0, loss], 10**6)


def test_what_is_too_slow_is_named() -> None:
    runs = [made_up(PLAIN, 3.6), made_up(RISKVA, 1.9), made_up(COMPILED, 1.1)]
    assert broken_bounds(summarise(runs, 16)) == [
        "bfloat16, RisKVA, torch_compile, later starts: 3.27 times the plain loop's later epochs, at least 3.5"
    ]
    assert broken_bounds(summarise([*runs[:2], made_up(COMPILED, 1.0)], 16)) == []


@pytest.mark.parametrize("loss", [2.0002, float("nan")])
def test_another_loss_is_named_in_float32_alone(loss: float) -> None:
    for precision, number in (("float32", 1), ("bfloat16", 0)):
        runs = [made_up(PLAIN, 4.0, precision=precision), made_up(RISKVA, 2.0, precision=precision)]
        other = made_up(RISKVA, 2.0, loss, precision)
        assert broken_bounds(summarise(runs, 16)) == []
        broken = broken_bounds(summarise([*runs, other], 16))  # in a second repeat
        assert len(broken) == number
        assert all("the loss differs by" in one for one in broken)


def test_rates_are_medians_of_all_later_epochs() -> None:
    first, second = made_up(PLAIN, 2.0), replace(made_up(PLAIN, 4.0), epochs=[7.0, 4.0, 4.0, 4.0])
    (summary,) = summarise([first, second], 16)
    assert summary.first_epoch == 16 / 8.0
    assert summary.later_epochs == 16 / 4.0


def test_the_small_model_has_the_proportions_of_the_published_one() -> None:
    from count_flops import published_config

    text, vision = published_config("7B").text_config, published_config("7B").vision_config
    small = SMALL.model
    assert small["hidden_size"] * 8 == text.hidden_size
    assert small["intermediate_size"] * 8 == text.intermediate_size
    assert small["num_attention_heads"] / small["num_key_value_heads"] == 7
    assert small["vision_hidden_size"] * 8 == vision.hidden_size
    assert small["vision_hidden_size"] // small["vision_num_heads"] == vision.hidden_size // vision.num_heads
