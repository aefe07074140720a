"""The training core's keys through the recipe: packing, caches of features, checkpointing, compiling, several ranks.

Rows are mixed: text alone, one photo, several photos. Runs inside the test's process where one is enough.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from running import SHORT_TRAINING, log_of, losses_of, riskva_run, start
from safetensors.torch import load_file
from torch._dynamo.utils import counters
from user_rows import WORDS, drawn_photo

from riskva.modeling.model import Qwen2_5_VLForConditionalGeneration
from riskva.training.callbacks import TrainerLog

pytestmark = pytest.mark.slow

NUM_PHOTOS = 9
SHARES = ("data_wait_share", "mfu")
RATES = ("tokens_per_second", "supervised_tokens_per_second", "images_per_second")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rows: four of text alone, six of one photo, one of two and one of the same photo as another row's."""
    folder = tmp_path_factory.mktemp("mixed")
    for number in range(NUM_PHOTOS):
        (folder / f"{number}.png").write_bytes(
            drawn_photo(number, 84 + 28 * (number % 3), 56 + 28 * (number % 4)).read()
        )
    rows = [_row(f"什么是{word}？", f"{word}是一种缺陷，" * (i + 1), ()) for i, word in enumerate(WORDS[:4])]
    rows += [_row("<image>看图", "，".join([WORDS[i]] * (2 * i + 1)), (i,)) for i in range(6)]
    rows += [_row("<image>与<image>比较", "第二张更重", (6, 7)), _row("<image>再看<image>", "渗水", (8, 2))]
    (folder / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    columns = {"messages": "messages", "images": "images"}
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    entry = {"file_name": "rows.json", "formatting": "sharegpt", "columns": columns, "tags": tags}
    (folder / "dataset_info.json").write_text(json.dumps({"rows": entry}), encoding="utf-8")
    return folder


def _row(question: str, answer: str, photos: tuple[int, ...]) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, "images": [f"{number}.png" for number in photos]}


def keys(model: Path, data: Path, out: Path, *more: str) -> tuple[str, ...]:
    """A short LoRA training on the mixed rows; of two keys with one name the last holds."""
    given = (
        f"model_name_or_path={model}",
        f"dataset_dir={data}",
        f"output_dir={out}",
        "dataset=rows",
        "eval_dataset=null",
        "eval_strategy=no",
        "save_strategy=no",
        "plot_loss=false",
        "lora_rank=8",
        "per_device_train_batch_size=2",
        "max_steps=6",
        "cutoff_len=200",
        "lr_scheduler_type=constant",
        "warmup_ratio=0",
        *SHORT_TRAINING,
        *more,
    )
    return tuple({one.partition("=")[0]: one for one in given}.values())


def trained(model: Path, data: Path, out: Path, *more: str, recipe: str = "sft_lora.yaml") -> list[float]:
    """The losses of a run in this process."""
    assert riskva_run(recipe, *keys(model, data, out, *more)) == 0
    return losses_of(out)


@pytest.fixture
def tower_photos(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many photos each run of the vision tower in this process was for."""
    seen: list[int] = []
    run = Qwen2_5_VLForConditionalGeneration._run_tower

    def counted(self: Any, pixel_values: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        seen.append(len(grids))
        return run(self, pixel_values, grids)

    monkeypatch.setattr(Qwen2_5_VLForConditionalGeneration, "_run_tower", counted)
    return seen


# --- packing ---


def test_packing_learns_and_the_log_says_how_fast(tiny_model: Path, mixed: Path, tmp_path: Path) -> None:
    losses = trained(tiny_model, mixed, tmp_path, "packing=true", "max_steps=12", "learning_rate=5e-3")
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    entries = [entry for entry in log_of(tmp_path) if "loss" in entry]
    assert len(entries) == 12
    for entry in entries:
        assert all(entry[name] > 0 for name in RATES[:2])
        assert all(0 <= entry[name] < 1 for name in SHARES)
        assert entry["tokens_per_second"] > entry["supervised_tokens_per_second"]
    assert all(any(entry[name] > 0 for entry in entries) for name in ("images_per_second", "mfu"))


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process SIGTERM once, when it logs that step."""
    log = TrainerLog.on_log

    def logged(self: TrainerLog, args: Any, state: Any, control: Any, **event: Any) -> None:
        log(self, args, state, control, **event)
        if state.global_step == step:
            monkeypatch.setattr(TrainerLog, "on_log", log)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainerLog, "on_log", logged)


@pytest.mark.parametrize("cache", ["off", "memory"])
def test_a_run_that_is_stopped_within_a_packed_epoch_goes_on_as_if_it_had_not(
    cache: str, tiny_model: Path, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ("packing=true", "per_device_train_batch_size=1", f"vision_cache={cache}", "dataloader_num_workers=1")
    how = (*how, "max_steps=14", "save_strategy=steps", "save_steps=100")
    whole = trained(tiny_model, mixed, tmp_path / "whole", *how)
    stop_after(5, monkeypatch)
    assert riskva_run("sft_lora.yaml", *keys(tiny_model, mixed, tmp_path / "stopped", *how)) == 75
    epoch = log_of(tmp_path / "stopped")[-1]["epoch"]
    assert epoch > 1
    assert epoch % 1 > 0
    resumed = trained(tiny_model, mixed, tmp_path / "stopped", *how)
    if cache == "off":
        assert resumed == whole
    else:  # what is in memory goes with the stopped run, and a photo then comes to the tower among others: it rounds
        assert resumed == pytest.approx(whole, abs=1e-5)  # measured: equal all the same
    weights, others = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "stopped"))
    for name, weight in weights.items():
        if cache == "off":
            assert weight.equal(others[name])
        else:
            torch.testing.assert_close(others[name], weight, rtol=1e-3, atol=1e-4)


# --- caches of features ---


def test_features_on_disk_are_made_once_and_serve_other_runs(
    tiny_model: Path, mixed: Path, tmp_path: Path, tower_photos: list[int]
) -> None:
    place = (f"vision_cache_dir={tmp_path / 'features'}", "max_steps=18")  # three epochs
    plain = trained(tiny_model, mixed, tmp_path / "plain", "vision_cache=off", "max_steps=18")
    assert sum(tower_photos) == 3 * (NUM_PHOTOS + 1)  # one photo is in two rows
    tower_photos.clear()
    cached = trained(tiny_model, mixed, tmp_path / "cached", "vision_cache=disk", *place)
    # Rows are read a step ahead of the tower, and written beside it: the photo in two rows may be seen twice.
    assert NUM_PHOTOS <= sum(tower_photos) <= NUM_PHOTOS + 3
    assert cached == pytest.approx(plain, abs=1e-5)  # measured: 5e-7 apart
    tower_photos.clear()
    trained(tiny_model, mixed, tmp_path / "other", "vision_cache=disk", *place, "learning_rate=1e-4", "packing=true")
    assert tower_photos == []


def test_a_run_that_was_killed_while_it_filled_its_cache_begins_again(
    tiny_model: Path, mixed: Path, tmp_path: Path, tower_photos: list[int]
) -> None:
    features = tmp_path / "features"
    how = ("vision_cache=disk", f"vision_cache_dir={features}", "save_strategy=steps", "save_steps=100")
    worker = start("sft_lora.yaml", *keys(tiny_model, mixed, tmp_path / "killed", *how))
    deadline = time.monotonic() + 90
    while not any(path.is_file() for path in features.rglob("*")):
        assert worker.poll() is None, worker.communicate()
        assert time.monotonic() < deadline, "no features in time"
        time.sleep(0.005)
    worker.kill()
    worker.communicate()
    assert len(losses_of(tmp_path / "killed") if (tmp_path / "killed/trainer_log.jsonl").exists() else []) < 6
    again = trained(tiny_model, mixed, tmp_path / "killed", *how)
    assert sum(tower_photos) < NUM_PHOTOS + 3  # what was whole is used
    plain = trained(tiny_model, mixed, tmp_path / "plain", "vision_cache=off")
    assert again == pytest.approx(plain, abs=1e-5)  # measured: equal


# --- several ranks ---


def steps_of(out: Path) -> list[tuple[float, float]]:
    """The loss and the gradient norm of each step."""
    return [(entry["loss"], entry["grad_norm"]) for entry in log_of(out) if "loss" in entry]


def two_ranks(recipe: str, *given: str) -> None:
    worker = start(recipe, *given, "nproc_per_node=2")
    try:
        _, said = worker.communicate(timeout=240)
    finally:
        worker.kill()
    assert worker.returncode == 0, said


@pytest.mark.parametrize(
    ("tuning", "how"),
    [
        ("lora", ("packing=true", "vision_cache=memory")),
        ("full", ("packing=false", "vision_cache=memory")),
        (
            "full",
            ("packing=true", "vision_cache=off", "freeze_vision_tower=false", "freeze_multi_modal_projector=false"),
        ),
    ],
    ids=["lora, packed", "full", "full with tower, packed"],
)
def test_two_ranks_are_one(tuning: str, how: tuple[str, ...], tiny_model: Path, mixed: Path, tmp_path: Path) -> None:
    """Each step is an epoch, so that it holds the same rows whichever rank they are on, and in whichever bins."""
    how = (*how, f"finetuning_type={tuning}", "max_steps=3", "max_grad_norm=1000")
    alone = (*how, "per_device_train_batch_size=2", "gradient_accumulation_steps=6")
    trained(tiny_model, mixed, tmp_path / "one", *alone)
    shared = (*how, "per_device_train_batch_size=1", "gradient_accumulation_steps=6")
    two_ranks("sft_lora.yaml", *keys(tiny_model, mixed, tmp_path / "two", *shared))
    one, two = steps_of(tmp_path / "one"), steps_of(tmp_path / "two")
    assert len(one) == len(two) == 3
    for (loss, norm), (other_loss, other_norm) in zip(one, two, strict=True):  # measured: 2e-7 apart
        assert other_loss == pytest.approx(loss, rel=2e-6)
        assert other_norm == pytest.approx(norm, rel=2e-6)


def test_zero_3_does_not_wait_for_ever_where_ranks_differ_in_photos(
    tiny_model: Path, mixed: Path, tmp_path: Path
) -> None:
    """One rank has text alone, another photos, a third time cached ones: all must gather the same weights in turn."""
    how = ("vision_cache=memory", "max_steps=18", "gradient_accumulation_steps=1", "per_device_train_batch_size=1")
    two_ranks("sft_lora_zero3.yaml", *keys(tiny_model, mixed, tmp_path / "two", *how))
    plain = trained(tiny_model, mixed, tmp_path / "one", *how, "per_device_train_batch_size=2", "vision_cache=off")
    assert losses_of(tmp_path / "two") == pytest.approx(plain, abs=1e-5)  # measured: 1e-6 apart


# --- what changes speed and memory alone ---


def test_checkpointing_changes_no_loss(tiny_model: Path, mixed: Path, tmp_path: Path) -> None:
    how = ("lora_dropout=0.1", "packing=true")
    runs = {
        value: trained(tiny_model, mixed, tmp_path / value, *how, f"gradient_checkpointing={value}")
        for value in ("true", "auto", "false")
    }
    assert runs["true"] == pytest.approx(runs["false"], rel=1e-6)
    assert runs["auto"] == pytest.approx(runs["false"], rel=1e-6)


def test_compiled_layers_give_the_same_losses_and_are_compiled_once(
    tiny_model: Path, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    # Above it torch gives up and compiles no more, which would look as if nothing had to be compiled again
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 64)
    plain = trained(tiny_model, mixed, tmp_path / "plain", "vision_cache=off")
    num_graphs: list[int] = []
    log = TrainerLog.on_log

    def logged(self: TrainerLog, *args: Any, **event: Any) -> None:
        num_graphs.append(counters["stats"]["unique_graphs"])
        log(self, *args, **event)

    monkeypatch.setattr(TrainerLog, "on_log", logged)
    begin_compiling_anew()
    compiled = trained(tiny_model, mixed, tmp_path / "first", "torch_compile=true", "vision_cache=off")
    assert compiled == pytest.approx(plain, abs=1e-5)  # measured: 1e-6 apart
    assert len(set(num_graphs[1:])) == 1, num_graphs  # six rows of different lengths
    assert num_graphs[0] > 0
    assert counters["inductor"]["fxgraph_cache_miss"] > 0
    begin_compiling_anew()
    again = trained(tiny_model, mixed, tmp_path / "second", "torch_compile=true", "vision_cache=off")
    assert again == pytest.approx(compiled, abs=1e-6)
    assert counters["inductor"]["fxgraph_cache_miss"] == 0  # what the first run left on disk
    assert counters["inductor"]["fxgraph_cache_hit"] > 0


def begin_compiling_anew() -> None:
    torch._dynamo.reset()
    counters.clear()


# --- forms of tuning ---


@pytest.mark.parametrize(
    "how",
    [
        ("use_dora=true",),
        ("use_rslora=true",),
        ("loraplus_lr_ratio=16",),
        ("vision_lr=1e-5", "merger_lr=2e-5", "freeze_vision_tower=false", "freeze_multi_modal_projector=false"),
    ],
    ids=lambda how: how[0],
)
def test_forms_of_tuning_take_a_step(how: tuple[str, ...], tiny_model: Path, mixed: Path, tmp_path: Path) -> None:
    first, second = trained(tiny_model, mixed, tmp_path, *how, "max_steps=2", "packing=true", "packing_len=2000")
    assert second < first


def test_neftunes_noise_is_in_training_and_not_in_evaluation(tiny_model: Path, mixed: Path, tmp_path: Path) -> None:
    how = ("eval_dataset=rows", "eval_strategy=steps", "eval_steps=2", "max_steps=2", "learning_rate=1e-30")
    entries = {}
    for alpha in ("null", "5"):
        trained(tiny_model, mixed, tmp_path / alpha, *how, f"neftune_noise_alpha={alpha}")
        entries[alpha] = log_of(tmp_path / alpha)
    for name, is_same in (("loss", False), ("eval_loss", True)):
        plain, noisy = ([entry[name] for entry in entries[alpha] if name in entry] for alpha in ("null", "5"))
        assert plain
        assert (noisy == plain) is is_same


# --- the plan ---


def everything_in(*folders: Path) -> dict[Path, tuple[int, int]]:
    files = (path for folder in folders for path in folder.rglob("*"))
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def test_a_dry_run_says_what_would_be_and_writes_nothing(
    tiny_model: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = tmp_path / "features"
    how = ("packing=true", "vision_cache=disk", f"vision_cache_dir={features}", "gradient_checkpointing=auto")
    before = everything_in(tiny_model, mixed, tmp_path)
    assert riskva_run("sft_lora.yaml", *keys(tiny_model, mixed, tmp_path / "out", *how), "--dry-run") == 0
    printed = capsys.readouterr()
    said = printed.out + printed.err
    assert everything_in(tiny_model, mixed, tmp_path) == before
    assert "packing: " in said
    assert "bins of at most 200 tokens" in said
    assert "vision_cache: disk, " in said
    assert str(features) in said
    assert "gradient checkpointing in 0 of 2 layers" in said
    for part in ("weights", "activations", "optimizer"):
        assert part in said, part
