"""A stopped run goes on with the same command, to the very same weights."""

import json
import os
import signal
import time
from pathlib import Path
from shutil import copytree

import pytest
from running import SHORT_TRAINING, losses_of, riskva_run, start
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.slow

NUM_STEPS = 24
PLAIN = ("deepspeed=null", "save_total_limit=null")


def keys(model: Path, data: Path, out: Path) -> tuple[str, ...]:
    return (
        f"model_name_or_path={model}",
        f"dataset_dir={data}",
        f"output_dir={out}",
        f"max_steps={NUM_STEPS}",
        "save_strategy=steps",
        "save_steps=10",
        "eval_strategy=no",
        *SHORT_TRAINING,
    )


def are_equal(one: Path, other: Path) -> bool:
    """Whether two runs or checkpoints hold the same weights, bit for bit."""
    name = "adapter_model.safetensors" if (one / "adapter_model.safetensors").exists() else "model.safetensors"
    weights = load_file(one / name)
    others = load_file(other / name)
    assert weights.keys() == others.keys()
    return all(weights[key].equal(others[key]) for key in weights)


def wait_for_log(out: Path, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not (out / "trainer_log.jsonl").exists():
        assert time.monotonic() < deadline, "no training step in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def uninterrupted(tiny_model: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    worker = start("sft_lora.yaml", *keys(tiny_model, prepared, out))
    _, said = worker.communicate(timeout=200)
    assert worker.returncode == 0, said
    return out


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_saves_and_the_same_command_goes_on(
    processes: int, uninterrupted: Path, tiny_model: Path, prepared: Path, tmp_path: Path
) -> None:
    command = (*keys(tiny_model, prepared, tmp_path), f"nproc_per_node={processes}")
    worker = start("sft_lora.yaml", *command)
    wait_for_log(tmp_path)
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=120)
    assert worker.returncode == 75, said
    assert "the same command goes on" in said
    assert not (tmp_path / "train_results.json").exists()
    worker = start("sft_lora.yaml", *command)
    _, said = worker.communicate(timeout=200)
    assert worker.returncode == 0, said
    assert "going on from" in said
    assert len(losses_of(tmp_path)) == NUM_STEPS
    if processes == 1:
        assert losses_of(tmp_path) == losses_of(uninterrupted)
        assert are_equal(tmp_path, uninterrupted)


def test_dropout_with_workers_and_evaluations_goes_on_exactly(tiny_model: Path, prepared: Path, tmp_path: Path) -> None:
    """Workers that start once more draw nothing from the generator that dropout draws from."""
    outs = tmp_path / "whole", tmp_path / "stopped"
    chances = ("lora_dropout=0.1", "dataloader_num_workers=1", "eval_strategy=steps", "eval_steps=5", "save_steps=5")
    for out, steps in ((outs[0], ()), (outs[1], ("max_steps=10",)), (outs[1], ("resume_from_checkpoint=true",))):
        worker = start(
            "sft_lora.yaml", *keys(tiny_model, prepared, out), *chances, "lr_scheduler_type=constant", *steps
        )
        _, said = worker.communicate(timeout=200)
        assert worker.returncode == 0, said
    assert losses_of(outs[1]) == losses_of(outs[0])
    assert are_equal(*outs)


def test_killed_run_goes_on_from_its_last_whole_checkpoint(
    uninterrupted: Path, tiny_model: Path, prepared: Path, tmp_path: Path
) -> None:
    worker = start("sft_lora.yaml", *keys(tiny_model, prepared, tmp_path))
    checkpoint = tmp_path / "checkpoint-10" / "trainer_state.json"
    deadline = time.monotonic() + 90
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    worker.kill()
    worker.communicate()
    (tmp_path / "checkpoint-20").mkdir(exist_ok=True)  # what a kill in the middle of saving leaves
    for part in (tmp_path / "checkpoint-20").iterdir():
        part.unlink()
    worker = start("sft_lora.yaml", *keys(tiny_model, prepared, tmp_path))
    _, said = worker.communicate(timeout=200)
    assert worker.returncode == 0, said
    assert "checkpoint-20 is incomplete" in said
    assert are_equal(tmp_path, uninterrupted)


def test_finished_run_is_refused_and_can_be_overwritten(
    uninterrupted: Path, tiny_model: Path, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert riskva_run("sft_lora.yaml", *keys(tiny_model, prepared, uninterrupted)) == 2
    said = capsys.readouterr().err
    assert "holds a finished run" in said
    assert "overwrite_output_dir: true" in said


def test_interrupted_prediction_goes_on(tiny_model: Path, prepared: Path, tmp_path: Path) -> None:
    def predict(out: Path) -> Path:
        places = (f"model_name_or_path={tiny_model}", f"dataset_dir={prepared}", f"output_dir={out}")
        row_keys = (
            "eval_dataset=building_defect_train",
            "adapter_name_or_path=null",
            "bf16=false",
            "max_new_tokens=12",
        )
        assert riskva_run("predict.yaml", *places, *row_keys) == 0
        return out / "generated_predictions.jsonl"

    whole = predict(tmp_path / "out")
    expected = whole.read_bytes()
    journal = tmp_path / "out/answers/process-00000.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == len(expected.splitlines()) > 6
    kept = lines[:3] + lines[5:6]  # of batches of which some rows are done, and others are not
    journal.write_bytes(b"".join(kept) + lines[6][:20])
    whole.unlink()
    assert predict(tmp_path / "out").read_bytes() == expected
    assert journal.read_bytes().startswith(b"".join(kept))  # what was written stands
    assert sorted(journal.read_bytes().splitlines(keepends=True)) == sorted(lines)


def test_an_evaluation_that_gets_sigterm_ends_with_75_and_goes_on(
    tiny_model: Path, prepared: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    places = (f"model_name_or_path={tiny_model}", f"dataset_dir={prepared}", f"output_dir={out}")
    rows = ("eval_dataset=building_defect_train", "train_dataset=building_defect_val", "adapter_name_or_path=null")
    command = (*places, *rows, "bf16=false", "max_new_tokens=64", "per_device_eval_batch_size=1", "blank_photos=true")
    worker = start("eval.yaml", *command)
    journal = out / "answers/process-00000.jsonl"
    deadline = time.monotonic() + 90
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
        assert worker.poll() is None, worker.communicate()
        assert time.monotonic() < deadline, "no answer in time"
        time.sleep(0.02)
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=60)
    assert worker.returncode == 75, said
    assert "the same command goes on with the answers that are written" in said
    assert "Traceback" not in said
    # what answers are scored by may be mended meanwhile
    assert riskva_run("eval.yaml", *command, "train_dataset=null") == 0
    assert (out / "metrics.json").is_file()


def test_prediction_does_not_go_on_with_other_rows(
    tiny_model: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = (f"model_name_or_path={tiny_model}", f"dataset_dir={prepared}", f"output_dir={tmp_path}")
    command = ("eval.yaml", *places, "adapter_name_or_path=null", "bf16=false", "max_new_tokens=4")
    assert riskva_run(*command) == 0
    (tmp_path / "metrics.json").unlink()
    journal = tmp_path / "answers/process-00000.jsonl"
    first, *others = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in (first | {"id": "gone"}, *others)]
    journal.write_text("".join(lines), encoding="utf-8")
    assert riskva_run(*command) == 2
    assert "answers rows that are not there any more, such as 'gone'" in capsys.readouterr().err
    assert len(journal.read_text(encoding="utf-8").splitlines()) == len(lines)


def test_resuming_a_finished_run_adds_no_step(
    uninterrupted: Path, tiny_model: Path, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (uninterrupted / "adapter_model.safetensors").read_bytes()
    command = keys(tiny_model, prepared, uninterrupted)
    assert riskva_run("sft_lora.yaml", *command, "resume_from_checkpoint=true") == 2
    assert "holds a finished run" in capsys.readouterr().err
    assert riskva_run("sft_lora.yaml", *command, "resume_from_checkpoint=true", "plot_loss=false") == 2
    assert "nothing is left to train" in capsys.readouterr().err
    assert (uninterrupted / "adapter_model.safetensors").read_bytes() == before


def test_sigterm_to_every_process_of_the_job_saves_too(tiny_model: Path, prepared: Path, tmp_path: Path) -> None:
    """Schedulers signal the whole group: DataLoader workers must not die before the step that needs their rows."""
    worked = [key for key in keys(tiny_model, prepared, tmp_path) if not key.startswith("dataloader_num_workers")]
    worker = start("sft_lora.yaml", *worked, "dataloader_num_workers=2", "max_steps=5000", own_group=True)
    wait_for_log(tmp_path)
    os.killpg(worker.pid, signal.SIGTERM)
    _, said = worker.communicate(timeout=120)
    assert worker.returncode == 75, said


def test_a_finished_run_that_is_lengthened_and_stopped_goes_on(
    tiny_model: Path, prepared: Path, tmp_path: Path
) -> None:
    command = keys(tiny_model, prepared, tmp_path)
    assert riskva_run("sft_lora.yaml", *command, "max_steps=10") == 0
    last = f"resume_from_checkpoint={tmp_path / 'checkpoint-10'}"
    assert riskva_run("sft_lora.yaml", *command, "max_steps=10", last) == 2
    longer = (*command, "max_steps=5000", "resume_from_checkpoint=true", "overwrite_output_dir=true")
    worker = start("sft_lora.yaml", *longer)
    while len(losses_of(tmp_path)) < 13:
        assert worker.poll() is None
        time.sleep(0.02)
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=120)
    assert worker.returncode == 75, said
    stopped_at = len(losses_of(tmp_path))
    worker = start("sft_lora.yaml", *longer)
    while len(losses_of(tmp_path)) < stopped_at + 3:
        assert worker.poll() is None
        time.sleep(0.02)
    worker.kill()
    _, said = worker.communicate()
    assert f"going on from {tmp_path / f'checkpoint-{stopped_at}'}" in said


def test_a_run_killed_before_its_end_was_saved_only_saves_it(
    tiny_model: Path, prepared: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    command = (*keys(tiny_model, prepared, tmp_path), "save_steps=12")
    assert riskva_run("sft_lora.yaml", *command) == 0
    weights = (tmp_path / "adapter_model.safetensors").read_bytes()
    for name in ("train_results.json", "adapter_model.safetensors"):
        (tmp_path / name).unlink()
    assert riskva_run("sft_lora.yaml", *command) == 0
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == weights
    assert not (tmp_path / f"checkpoint-{NUM_STEPS + 1}").exists()
    assert json.loads((tmp_path / "train_results.json").read_text())["num_steps"] == NUM_STEPS


def test_processes_end_with_a_killed_launcher(tiny_model: Path, prepared: Path, tmp_path: Path) -> None:
    worker = start("sft_lora.yaml", *keys(tiny_model, prepared, tmp_path), "nproc_per_node=2", "max_steps=100000")
    wait_for_log(tmp_path)
    worker.kill()
    worker.communicate(timeout=60)  # returns once the last process has let go of standard error
    length = (tmp_path / "trainer_log.jsonl").stat().st_size
    time.sleep(1)
    assert (tmp_path / "trainer_log.jsonl").stat().st_size == length


def test_the_stopped_command_goes_on_even_if_it_said_overwrite(
    uninterrupted: Path, tiny_model: Path, prepared: Path, tmp_path: Path
) -> None:
    command = (*keys(tiny_model, prepared, tmp_path), "overwrite_output_dir=true")
    worker = start("sft_lora.yaml", *command)
    wait_for_log(tmp_path)
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=120)
    assert worker.returncode == 75, said
    assert riskva_run("sft_lora.yaml", *command) == 0
    assert losses_of(tmp_path) == losses_of(uninterrupted)


@pytest.mark.parametrize("tuning", ["full", "freeze"])
def test_a_whole_model_goes_on_from_its_checkpoint(
    tuning: str, tiny_model: Path, prepared: Path, tmp_path: Path
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    shorter = ("max_steps=6", "save_steps=3", f"finetuning_type={tuning}", "freeze_trainable_layers=1", *PLAIN)
    assert riskva_run("sft_full.yaml", *keys(tiny_model, prepared, whole), *shorter) == 0
    go_on = f"resume_from_checkpoint={whole / 'checkpoint-3'}"
    assert riskva_run("sft_full.yaml", *keys(tiny_model, prepared, resumed), *shorter, go_on) == 0
    assert losses_of(resumed) == losses_of(whole)[3:]
    assert are_equal(resumed, whole)


@pytest.mark.parametrize("recipe", ["sft_lora.yaml", "sft_full.yaml"])
def test_the_best_checkpoint_is_what_is_saved(recipe: str, tiny_model: Path, prepared: Path, tmp_path: Path) -> None:
    evaluate = ("eval_strategy=steps", "eval_steps=2", "save_steps=2", "load_best_model_at_end=true", "max_steps=6")
    # The highest loss as the best, so that the best checkpoint is not the last
    highest = ("metric_for_best_model=eval_loss", "greater_is_better=true", *PLAIN)
    assert riskva_run(recipe, *keys(tiny_model, prepared, tmp_path), *evaluate, *highest) == 0
    assert are_equal(tmp_path, tmp_path / "checkpoint-2")
    assert not are_equal(tmp_path, tmp_path / "checkpoint-6")


def test_an_adapter_that_does_not_fit_is_not_gone_on_from(
    uninterrupted: Path, tiny_model: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = copytree(uninterrupted / "checkpoint-20", tmp_path / "checkpoint-20")
    file = damaged / "adapter_model.safetensors"
    whole = load_file(file)
    first = sorted(whole)[0]
    for tensors in (
        {name: tensor for name, tensor in whole.items() if name != first},
        {f"x.{name}": tensor for name, tensor in whole.items()},
        {**whole, first: whole[first][:, :-1].contiguous()},
    ):
        save_file(tensors, file)
        command = (*keys(tiny_model, prepared, tmp_path / "out"), f"resume_from_checkpoint={damaged}")
        assert riskva_run("sft_lora.yaml", *command, "overwrite_output_dir=true") == 1
        assert "adapter tensors do not fit the model" in capsys.readouterr().err


@pytest.mark.parametrize("logging", ["steps", "no"])
def test_a_diverged_training_says_so(
    logging: str, tiny_model: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    diverging = ("learning_rate=1e30", "max_grad_norm=0", "warmup_steps=0", f"logging_strategy={logging}")
    command = (*keys(tiny_model, prepared, tmp_path), *diverging)
    assert riskva_run("sft_lora.yaml", *command) == 1
    said = capsys.readouterr().err
    assert "the training has diverged; lower learning_rate (now 1e+30)" in said
    assert "loss 0," not in said
    assert not (tmp_path / "train_results.json").exists()
