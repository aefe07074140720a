"""Parts of a prediction become what one run writes, or say why not."""

import json
import shutil
from pathlib import Path

import pytest
from running import riskva_run
from shards import write_shards

from evaluation.predictions import FILE_NAME, read_predictions, write_predictions
from riskva.errors import DataError, MissingDataError
from riskva.generation.joining import answered_parts, holds_answered_parts
from riskva.generation.run import WEIGHTS_MARK

NUM_ROWS = 7
SHORT = ("max_field_chars=4", "max_new_tokens=120", "bf16=false", "preprocessing_num_workers=1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data"), NUM_ROWS, 2, 2)


def predicted(model: Path, data: Path, out: Path, *more: str) -> int:
    places = (f"model_name_or_path={model}", "adapter_name_or_path=null", f"dataset_dir={data}", f"output_dir={out}")
    return riskva_run("predict.yaml", *places, "eval_dataset=rows", *SHORT, *more)


@pytest.fixture(scope="module")
def parts(tiny_model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parts") / "out"
    for index in (1, 0, 2):
        assert predicted(tiny_model, data, out, f"shard={index}/3") == 0
    return out


@pytest.fixture
def folder(parts: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(parts, tmp_path / "out"))


def test_the_parts_of_a_run_are_one_run(tiny_model: Path, data: Path, folder: Path, tmp_path: Path) -> None:
    assert riskva_run("merge.yaml", f"output_dir={folder}") == 0
    assert predicted(tiny_model, data, tmp_path / "whole") == 0
    merged, whole = (read_predictions(out / FILE_NAME) for out in (folder, tmp_path / "whole"))
    assert [row.id for row in merged] == [row.id for row in whole] == [str(number) for number in range(NUM_ROWS)]
    assert [row.predict for row in merged] == [row.predict for row in whole]
    assert [row.level for row in merged] == [row.level for row in whole]
    for one, other in zip(merged, whole, strict=True):
        assert one.level_probabilities == pytest.approx(other.level_probabilities, abs=1e-6)
    assert (folder / "riskva.json").read_bytes() == (tmp_path / "whole/riskva.json").read_bytes()
    records = [json.loads((out / "reports.json").read_text(encoding="utf-8")) for out in (folder, tmp_path / "whole")]
    assert [one["report"] for one in records[0]] == [one["report"] for one in records[1]]
    # recipes/predict.yaml wants unsure and severe reports looked at, and recipes/merge.yaml says nothing of it
    codes = [[[reason["code"] for reason in one["review"]] for one in some] for some in records]
    assert codes[0] == codes[1]
    assert any(codes[0])


def test_what_becomes_of_the_reports_is_said_when_merging(
    tiny_model: Path, data: Path, folder: Path, tmp_path: Path
) -> None:
    wanted = ("compare_gt=true", "review_below=0.99", "always_review=中等")
    files = tmp_path / "merged.jsonl", tmp_path / "whole.jsonl"
    assert riskva_run("merge.yaml", f"output_dir={folder}", *wanted, f"output_file={files[0]}") == 0
    assert predicted(tiny_model, data, tmp_path / "whole", *wanted, f"output_file={files[1]}") == 0
    merged, whole = ([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files)
    for key in ("id", "report", "truth", "agreement"):
        assert [one[key] for one in merged] == [one[key] for one in whole]
    codes = [[reason["code"] for reason in one["review"]] for one in merged]
    assert codes == [[reason["code"] for reason in one["review"]] for one in whole]
    assert any(codes)
    assert not (folder / "reports.json").exists()


@pytest.mark.parametrize(("name", "what"), [("rows.json", "rows"), ("riskva.json", "models")])
def test_parts_of_other_rows_or_of_another_model_are_refused(folder: Path, name: str, what: str) -> None:
    """Such as a folder that gained photos, or a calibration, between two parts."""
    with (folder / "part-00001-of-00003" / name).open("a", encoding="utf-8") as stream:
        stream.write(" ")
    with pytest.raises(DataError, match=f"{name} differs from .*: these are parts of different {what}"):
        answered_parts(folder)


def test_a_result_that_is_there_is_replaced_only_when_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / FILE_NAME).write_text("mine")
    assert riskva_run("merge.yaml", f"output_dir={folder}") == 2
    assert f"{FILE_NAME} exists; set overwrite_output_dir: true" in capsys.readouterr().err
    assert (folder / FILE_NAME).read_text() == "mine"
    (folder / "failed_rows.jsonl").write_text("of an earlier merge")
    assert riskva_run("merge.yaml", f"output_dir={folder}", "overwrite_output_dir=true") == 0
    assert len(read_predictions(folder / FILE_NAME)) == NUM_ROWS
    assert not (folder / "failed_rows.jsonl").exists()


@pytest.mark.parametrize("state", ["missing", "unfinished"])
def test_a_part_that_is_not_done_is_named_with_its_command(
    state: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = folder / "part-00001-of-00003"
    if state == "missing":
        shutil.rmtree(part)
    else:
        (part / FILE_NAME).unlink()
    with pytest.raises(MissingDataError, match=r"1 of 3 parts are missing or unfinished: 1/3"):
        answered_parts(folder)
    assert riskva_run("merge.yaml", f"output_dir={folder}") == 1
    assert "run stage: predict with shard=1/3" in capsys.readouterr().err
    assert not (folder / FILE_NAME).exists()


def test_parts_of_different_runs_are_refused(tiny_model: Path, data: Path, folder: Path) -> None:
    shutil.rmtree(folder / "part-00002-of-00003")
    assert predicted(tiny_model, data, folder, "shard=2/3", "max_new_tokens=119") == 0
    with pytest.raises(DataError, match=r"part-00002-of-00003/recipe\.yaml differs from .* in more than shard"):
        answered_parts(folder)
    assert riskva_run("merge.yaml", f"output_dir={folder}") == 1
    assert not (folder / FILE_NAME).exists()


def test_parts_of_other_counts_are_refused(folder: Path) -> None:
    shutil.copytree(folder / "part-00000-of-00003", folder / "part-00000-of-00002")
    with pytest.raises(DataError, match="parts of 2 and of 3; delete those of other runs"):
        answered_parts(folder)


def test_how_a_part_was_told_its_number_makes_no_difference(
    tiny_model: Path, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(folder / "part-00002-of-00003")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    more = ("per_device_eval_batch_size=1", "compare_gt=true")  # which change no answer
    assert predicted(tiny_model, data, folder, "shard=auto/3", *more) == 0
    assert riskva_run("merge.yaml", f"output_dir={folder}") == 0


def test_each_machine_may_have_a_copy_of_the_model(folder: Path) -> None:
    path = folder / "part-00001-of-00003" / "recipe.yaml"
    text = path.read_text(encoding="utf-8")
    assert WEIGHTS_MARK in text
    kept = [line for line in text.splitlines() if not line.startswith(WEIGHTS_MARK)]
    path.write_text("\n".join([*kept, WEIGHTS_MARK + "others"]) + "\n", encoding="utf-8")
    assert len(answered_parts(folder)) == 3


def test_a_part_may_be_empty(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    for index in range(3):
        assert predicted(tiny_model, data, tmp_path / "out", f"shard={index}/3", "max_samples=2") == 0
    assert riskva_run("merge.yaml", f"output_dir={tmp_path / 'out'}") == 0
    assert [row.id for row in read_predictions(tmp_path / "out" / FILE_NAME)] == ["0", "1"]


def test_failed_rows_of_parts_are_failed_rows_of_the_whole(folder: Path) -> None:
    path = folder / "part-00001-of-00003" / FILE_NAME
    rows = read_predictions(path)
    failed = [type(row)(row.id, "", "", "", error="unreadable") for row in rows[:1]]
    write_predictions([*failed, *rows[1:]], path)
    assert riskva_run("merge.yaml", f"output_dir={folder}") == 3
    assert [row.id for row in read_predictions(folder / "failed_rows.jsonl")] == [rows[0].id]
    assert len(read_predictions(folder / FILE_NAME)) == NUM_ROWS


def test_a_dry_run_counts_the_parts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert riskva_run("merge.yaml", f"output_dir={folder}", "--dry-run") == 0
    assert "would merge the answers of 3 parts" in capsys.readouterr().out
    assert not (folder / FILE_NAME).exists()


def test_parts_of_a_data_set_are_no_answers(tmp_path: Path) -> None:
    (tmp_path / "part-00000-of-00002").mkdir()
    assert not holds_answered_parts(tmp_path)
    assert not holds_answered_parts(tmp_path / "nowhere")
