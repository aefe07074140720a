"""What goes wrong says what, where and what to do, with the right exit status and no stack trace."""

import json
import shutil
from pathlib import Path

import pytest
from running import SHORT_TRAINING, riskva_run

pytestmark = pytest.mark.slow


@pytest.fixture
def jsonl(photo_table: Path, tmp_path: Path) -> Path:
    """Prepared JSONL that a test may damage."""
    out = tmp_path / "jsonl"
    places = (f"csv_path={photo_table}", f"image_base_path={photo_table.parent}", f"output_dir={out}")
    assert riskva_run("prepare_jsonl.yaml", *places) == 0
    return out


def first_photo(data: Path, split: str) -> Path:
    row = json.loads((data / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[0])
    return data / row["images"][0]


def test_bad_row_at_prediction_becomes_an_error_row(
    jsonl: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first_photo(jsonl, "train").write_bytes(b"no photo")
    places = (f"model_name_or_path={tiny_model}", f"dataset_dir={jsonl}", f"output_dir={tmp_path / 'out'}")
    rows = ("eval_dataset=building_defect_train", "train_dataset=null", "adapter_name_or_path=null")
    assert riskva_run("eval.yaml", *places, *rows, "verify=off", "bf16=false", "max_new_tokens=8") == 3
    failed = [json.loads(line) for line in (tmp_path / "out/failed_rows.jsonl").open(encoding="utf-8")]
    lines = (tmp_path / "out/generated_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(failed) == 1
    assert failed[0]["level"] is None
    assert len(lines) == len((jsonl / "train.jsonl").read_text(encoding="utf-8").splitlines())
    metrics = json.loads((tmp_path / "out/metrics.json").read_text(encoding="utf-8"))
    assert metrics["num_failed"] == 1
    assert metrics["num_samples"] == len(lines)
    assert "failed_rows.jsonl" in capsys.readouterr().err


def test_bad_row_stops_training_before_it_starts(
    jsonl: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first_photo(jsonl, "train").unlink()
    places = (f"model_name_or_path={tiny_model}", f"dataset_dir={jsonl}", f"output_dir={tmp_path / 'out'}")
    assert riskva_run("sft_lora.yaml", *places, *SHORT_TRAINING, "verify=off") == 1
    said = capsys.readouterr().err
    assert "train.jsonl:1" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("overrides", "status", "words"),
    [
        (("model_name_or_path=Qwen/Qwen2.5-VL-7B-Instruct",), 1, "cannot be fetched from the hub"),
        (("model_name_or_path=./nowhere",), 1, "no folder ./nowhere"),
        (("dataset_dir=nowhere",), 1, "dataset_info.json"),
        (("dataset=building_defect_tain",), 1, "building_defect_train"),
        (("adapter_name_or_path=nowhere",), 1, "adapter_name_or_path: no folder nowhere"),
        (("cutoff_len=20",), 1, "over cutoff_len=20"),
        (("resume_from_checkpoint=nowhere",), 2, "resume_from_checkpoint: no folder nowhere"),
        (("learning_rat=1",), 2, "did you mean learning_rate"),
        (("lora_target=q_prj",), 2, "q_prj"),
        (("val_size=0.9", "eval_dataset=null", "max_samples=1", "eval_strategy=no"), 1, "val_size"),
    ],
)
def test_training_says_what_to_mend(
    overrides: tuple[str, ...],
    status: int,
    words: str,
    prepared: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = (f"model_name_or_path={tiny_model}", f"dataset_dir={prepared}", f"output_dir={tmp_path / 'out'}")
    assert riskva_run("sft_lora.yaml", *places, *SHORT_TRAINING, *overrides) == status
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert "unexpected" not in said


def test_strangers_files_are_never_deleted(
    prepared: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    strangers = ("thesis.docx", "training_data", "my_results.json", "requirements.txt", "checkpoint-best", "notes.json")
    for name in strangers:
        (out / name).write_text("years of work")
    places = (f"model_name_or_path={tiny_model}", f"dataset_dir={prepared}", f"output_dir={out}")
    command = ("sft_lora.yaml", *places, "max_steps=1", "eval_strategy=no", *SHORT_TRAINING)
    assert riskva_run(*command) == 2
    assert riskva_run(*command, "overwrite_output_dir=true") == 0
    assert riskva_run(*command, "overwrite_output_dir=true", "seed=3") == 0
    assert all((out / name).read_text() == "years of work" for name in strangers)

    model = (out / "adapter_model.safetensors").read_bytes()
    assert riskva_run(*command, "overwrite_output_dir=true", "dataset=building_defect_tain") == 1
    adapter = f"adapter_name_or_path={out}"
    assert riskva_run(*command, "overwrite_output_dir=true", adapter) == 2
    assert "overwriting would delete it" in capsys.readouterr().err
    assert (out / "adapter_model.safetensors").read_bytes() == model


def test_export_never_overwrites_its_base(
    prepared: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, adapter = Path(shutil.copytree(tiny_model, tmp_path / "base")), tmp_path / "adapter"
    places = (f"model_name_or_path={base}", f"dataset_dir={prepared}", f"output_dir={adapter}")
    assert riskva_run("sft_lora.yaml", *places, "max_steps=1", "eval_strategy=no", *SHORT_TRAINING) == 0
    names = {path.name for path in base.iterdir()}
    onto_itself = (f"adapter_name_or_path={adapter}", f"export_dir={base}", "overwrite_output_dir=true")
    assert riskva_run("export.yaml", places[0], *onto_itself) == 2
    assert "lies in the output folder" in capsys.readouterr().err
    assert {path.name for path in base.iterdir()} == names


def test_a_photo_that_breaks_in_a_worker_names_file_and_row(
    jsonl: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its header is whole, so that only decoding finds it, in a DataLoader worker."""
    photo = first_photo(jsonl, "train")
    photo.write_bytes(photo.read_bytes()[:-400])
    places = (f"model_name_or_path={tiny_model}", f"dataset_dir={jsonl}", f"output_dir={tmp_path / 'out'}")
    training = [key for key in SHORT_TRAINING if not key.startswith("dataloader_num_workers")]
    worker = ("dataloader_num_workers=1", "verify=off")
    assert riskva_run("sft_lora.yaml", *places, *training, *worker, "eval_strategy=no") == 1
    said = capsys.readouterr().err
    assert "train.jsonl:1 (id " in said
    assert "Traceback" not in said
    assert "unexpected" not in said


def test_group_by_length_trains_on_every_row(prepared: Path, tiny_model: Path, tmp_path: Path) -> None:
    places = (f"model_name_or_path={tiny_model}", f"dataset_dir={prepared}", f"output_dir={tmp_path / 'out'}")
    keys = ("group_by_length=true", "num_train_epochs=2", "per_device_train_batch_size=4")
    assert riskva_run("sft_lora.yaml", *places, *SHORT_TRAINING, *keys) == 0
    assert (tmp_path / "out/eval_results.json").is_file()


def test_export_that_does_not_answer_alike_is_an_error(
    prepared: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = (f"model_name_or_path={tiny_model}", f"dataset_dir={prepared}", f"output_dir={tmp_path / 'sft'}")
    assert riskva_run("sft_lora.yaml", *places, "max_steps=8", *SHORT_TRAINING) == 0

    def save_the_base_instead(weights: object, folder: Path, max_shard_bytes: int, device: object) -> None:
        shutil.copytree(tiny_model, folder, dirs_exist_ok=True)

    monkeypatch.setattr("riskva.jobs.export.merge_and_save", save_the_base_instead)
    adapter = f"adapter_name_or_path={tmp_path / 'sft'}"
    assert riskva_run("export.yaml", places[0], adapter, f"export_dir={tmp_path / 'merged'}") == 1
    assert "do not use the export" in capsys.readouterr().err
    assert not (tmp_path / "merged/riskva.json").exists()
    assert not (tmp_path / "merged/config.json").exists()
