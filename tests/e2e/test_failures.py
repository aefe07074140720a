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
    rows = ("eval_dataset=building_defect_train", "adapter_name_or_path=null", "bf16=false", "max_new_tokens=8")
    assert riskva_run("eval.yaml", *places, *rows) == 3
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
    assert riskva_run("sft_lora.yaml", *places, *SHORT_TRAINING) == 1
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


def test_strangers_files_are_never_deleted(prepared: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.docx").write_text("years of work")
    places = (f"model_name_or_path={tiny_model}", f"dataset_dir={prepared}", f"output_dir={out}")
    assert riskva_run("sft_lora.yaml", *places, "max_steps=1", *SHORT_TRAINING) == 2
    assert riskva_run("sft_lora.yaml", *places, "max_steps=1", "overwrite_output_dir=true", *SHORT_TRAINING) == 0
    assert (out / "thesis.docx").read_text() == "years of work"


def test_export_that_does_not_answer_alike_is_an_error(
    prepared: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = (f"model_name_or_path={tiny_model}", f"dataset_dir={prepared}", f"output_dir={tmp_path / 'sft'}")
    assert riskva_run("sft_lora.yaml", *places, "max_steps=8", *SHORT_TRAINING) == 0

    def save_the_base_instead(model: object, folder: Path, max_shard_gb: int) -> None:
        shutil.copytree(tiny_model, folder, dirs_exist_ok=True)

    monkeypatch.setattr("riskva.jobs.export.merge_and_save", save_the_base_instead)
    adapter = f"adapter_name_or_path={tmp_path / 'sft'}"
    assert riskva_run("export.yaml", places[0], adapter, f"export_dir={tmp_path / 'merged'}") == 1
    assert "do not use it" in capsys.readouterr().err
    assert not (tmp_path / "merged/riskva.json").exists()
