"""`streaming: true`: every row once an epoch over all processes, exact resume, and checks as rows are read."""

import json
import multiprocessing
import os
import signal
import socket
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from running import SHORT_TRAINING, losses_of, riskva_run, start
from safetensors.torch import load_file
from shards import write_manifest, write_shards

pytestmark = pytest.mark.slow

NUM_ROWS = 46
PLAIN = ("deepspeed=null", "save_total_limit=null", "per_device_train_batch_size=2")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_shards(tmp_path_factory.mktemp("shards"), NUM_ROWS, num_files=5, rows_per_group=3)
    write_manifest(folder)
    return folder


def keys(model: Path, data: Path, out: Path, *others: str) -> tuple[str, ...]:
    return (
        f"model_name_or_path={model}",
        f"dataset_dir={data}",
        f"output_dir={out}",
        "dataset=rows",
        "eval_dataset=null",
        "eval_strategy=no",
        "streaming=true",
        "save_strategy=steps",
        "save_steps=1000",
        *SHORT_TRAINING,
        *PLAIN,
        *others,
    )


def stop_after(num_steps: int, out: Path, *command: str) -> None:
    worker = start("sft_lora.yaml", *command)
    deadline = time.monotonic() + 120
    while not (out / "trainer_log.jsonl").exists() or len(losses_of(out)) < num_steps:
        assert worker.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=120)
    assert worker.returncode == 75, said


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stop_in_the_middle_of_the_second_epoch_changes_nothing(
    workers: int, tiny_model: Path, shards: Path, tmp_path: Path
) -> None:
    """An epoch has 23 steps; the run stops some way into its second one."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    long = ("max_steps=60", "num_train_epochs=9", f"dataloader_num_workers={workers}")
    assert riskva_run("sft_lora.yaml", *keys(tiny_model, shards, whole, *long)) == 0
    stop_after(26, stopped, *keys(tiny_model, shards, stopped, *long))
    assert 26 <= len(losses_of(stopped)) < 46
    assert riskva_run("sft_lora.yaml", *keys(tiny_model, shards, stopped, *long)) == 0
    assert losses_of(stopped) == losses_of(whole)
    weights, others = (load_file(one / "adapter_model.safetensors") for one in (stopped, whole))
    assert all(weights[key].equal(others[key]) for key in others)
    assert losses_of(whole)[:20] != losses_of(whole)[23:43]


@dataclass(frozen=True)
class Rank:
    """What a process of a run is told, and the file that it writes the ids of its rows into."""

    model: Path
    data: Path
    out: Path
    number: int
    port: int
    workers: int

    def run(self) -> None:
        os.environ |= {
            "RANK": str(self.number),
            "LOCAL_RANK": str(self.number),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
            "OMP_NUM_THREADS": "1",
        }
        multiprocessing.set_start_method("fork", force=True)  # a spawned process would hand its own way on
        from riskva.encoding import Encoded
        from riskva.training.dataset import EncodedDataset

        read = EncodedDataset.__getitem__

        def noted(dataset: EncodedDataset, index: int) -> Encoded:
            encoded = read(dataset, index)
            with (self.out.parent / f"rows-{self.number}").open("a") as stream:
                stream.write(encoded.id + "\n")
            return encoded

        EncodedDataset.__getitem__ = noted  # type: ignore[method-assign]
        long = ("num_train_epochs=1", f"dataloader_num_workers={self.workers}", "save_strategy=no")
        assert riskva_run("sft_lora.yaml", *keys(self.model, self.data, self.out, *long)) == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_read_each_row_once_and_each_its_own_files(
    workers: int, tiny_model: Path, shards: Path, tmp_path: Path
) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    ranks = [Rank(tiny_model, shards, tmp_path / "out", number, port, workers) for number in range(2)]
    processes = [multiprocessing.get_context("spawn").Process(target=rank.run) for rank in ranks]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=200)
        assert process.exitcode == 0
    read = [(tmp_path / f"rows-{number}").read_text().split() for number in range(2)]
    times = Counter(read[0]) + Counter(read[1])
    assert set(times) == {str(number) for number in range(NUM_ROWS)}
    assert times.total() == 48  # 12 batches of two for each: accelerate repeats the two rows that are lacking
    file_of = {
        row: path.name
        for path in shards.glob("*.parquet")
        for row in pq.read_table(path, columns=["id"])["id"].to_pylist()
    }
    files = [{file_of[row] for row in rows} for rows in read]
    assert max(map(len, files)) <= 4  # of five; one is shared where the cut falls, one more for the repeated rows


@pytest.mark.parametrize("workers", [0, 2])
def test_an_overlong_row_is_refused_by_id_when_it_is_read_and_the_run_ends(
    workers: int, tiny_model: Path, shards: Path, tmp_path: Path
) -> None:
    """In a process of its own: one that waited for its workers would not end."""
    command = keys(tiny_model, shards, tmp_path / "out", "cutoff_len=150", f"dataloader_num_workers={workers}")
    worker = start("sft_lora.yaml", *command)
    _, said = worker.communicate(timeout=100)
    assert worker.returncode == 1
    assert "over cutoff_len=150; raise cutoff_len or lower image_max_pixels" in said
    assert "(id " in said
    assert "Traceback" not in said


def test_the_plan_counts_rows_and_steps_and_reads_no_row(
    tiny_model: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", None)
    assert riskva_run("sft_lora.yaml", *keys(tiny_model, shards, tmp_path / "out"), "--dry-run") == 0
    said = capsys.readouterr().out
    assert "train on 46 rows of rows, evaluate on 0" in said
    assert "streaming: lengths are checked as rows are read; one of over 4096 tokens stops the run" in said
    assert "23 optimiser steps an epoch (2 rows each)" in said


def test_without_a_manifest_the_first_rows_say_how_they_are_asked(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_shards(tmp_path / "data", 8, num_files=2, rows_per_group=2)
    short = ("max_steps=1", "save_strategy=no")
    assert riskva_run("sft_lora.yaml", *keys(tiny_model, data, tmp_path / "out", *short)) == 0
    context = json.loads((tmp_path / "out" / "riskva.json").read_text(encoding="utf-8"))
    assert context["question"].startswith("<image>")
    assert "not all asked alike" not in capsys.readouterr().err
    write_manifest(data)
    manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    (data / "manifest.json").write_text(json.dumps(manifest | {"question": "<image>如何？"}), encoding="utf-8")
    assert riskva_run("sft_lora.yaml", *keys(tiny_model, data, tmp_path / "out2", *short)) == 0
    assert json.loads((tmp_path / "out2" / "riskva.json").read_text(encoding="utf-8"))["question"] == "<image>如何？"


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_kept_photos_change_no_weight_and_leave_nothing(
    place: str, tiny_model: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, kept = tmp_path / "plain", tmp_path / "kept"
    command = ("streaming=false", "max_steps=30", "save_strategy=no")
    assert riskva_run("sft_lora.yaml", *keys(tiny_model, shards, plain, *command)) == 0
    cached = (*keys(tiny_model, shards, kept, *command), f"cache_images={place}", "verify=full")
    assert riskva_run("sft_lora.yaml", *cached) == 0
    assert f"the photos of {NUM_ROWS} of {NUM_ROWS} rows fit into 4 GB ({place})" in capsys.readouterr().err
    weights, others = (load_file(one / "adapter_model.safetensors") for one in (plain, kept))
    assert all(weights[key].equal(others[key]) for key in others)
    assert not (kept / "pixel_cache").exists()


def test_a_damaged_data_set_stops_training_before_it_starts(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_shards(tmp_path / "data", 8, num_files=2, rows_per_group=2)
    write_manifest(data)
    path = data / "rows-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes() + b"0")
    command = keys(tiny_model, data, tmp_path / "out")
    assert riskva_run("sft_lora.yaml", *command) == 1
    assert "rows-00001-of-00002.parquet: expected" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    predict = ("eval_dataset=rows", "train_dataset=null", "adapter_name_or_path=null", "bf16=false", "max_new_tokens=2")
    assert riskva_run("eval.yaml", *command[:3], *predict) == 1
    assert "rows-00001-of-00002.parquet: expected" in capsys.readouterr().err
