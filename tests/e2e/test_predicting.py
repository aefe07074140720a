"""`stage: predict` as a user runs it: photos in every form, reports in every form, models in every form, and faults."""

import csv
import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from make_tiny_model import build_tiny_model
from running import SHORT_TRAINING, riskva_run, start
from safetensors.torch import load_file
from shards import write_shards
from user_rows import drawn_photo

from evaluation.predictions import Prediction, read_predictions
from riskva.report import DEFAULT_FORMAT, LEVEL_LABELS

NUM_ROWS = 24
SHORT = ("max_field_chars=4", "max_new_tokens=120", "bf16=false", "preprocessing_num_workers=1")
ANSWERS = "generated_predictions.jsonl"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 rows with photos of four sizes, in three files."""
    return write_shards(tmp_path_factory.mktemp("data"), NUM_ROWS, 3, 4)


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of four steps on the tiny model, with its checkpoint-2 and checkpoint-4."""
    out = tmp_path_factory.mktemp("trained") / "sft"
    places = (f"model_name_or_path={tiny_model}", f"dataset_dir={data}", f"output_dir={out}")
    rows = ("dataset=rows", "eval_dataset=null", "eval_strategy=no")
    steps = ("max_steps=4", "save_strategy=steps", "save_steps=2")
    assert riskva_run("sft_lora.yaml", *places, *rows, *steps, *SHORT_TRAINING) == 0
    return out


def named(model: Path, adapter: Path | None = None) -> tuple[str, str]:
    return f"model_name_or_path={model}", f"adapter_name_or_path={adapter or 'null'}"


def rows_of(data: Path, out: Path) -> tuple[str, ...]:
    return (f"dataset_dir={data}", "eval_dataset=rows", f"output_dir={out}", *SHORT)


def answers_in(out: Path) -> list[Prediction]:
    return read_predictions(out / ANSWERS)


def texts_in(out: Path) -> dict[str, str]:
    return {row.id: row.predict for row in answers_in(out)}


def reports_in(out: Path) -> list[Any]:
    return json.loads((out / "reports.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def write_photo(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = drawn_photo(seed, 84 + 28 * (seed % 3), 112).data
    assert data is not None
    path.write_bytes(data)
    return path


# One photo


def test_one_photo_prints_its_report_and_writes_nothing(
    tiny_model: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = write_photo(tmp_path / "厨房 1.png", 1)
    command = [*named(tiny_model, adapter), f"image={photo}", "output_dir=null", *SHORT]
    before = {path.name for path in Path().iterdir()}
    assert riskva_run("predict.yaml", *command) == 0
    shown = capsys.readouterr().out
    assert "厨房 1.png" in shown
    assert all(label in shown for label in (*DEFAULT_FORMAT.labels, *LEVEL_LABELS))
    assert "%" in shown
    assert "\x1b" not in shown
    assert [path.name for path in tmp_path.iterdir()] == [photo.name]
    assert {path.name for path in Path().iterdir()} == before


def test_one_photo_may_also_go_into_a_file(tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    photo, file = write_photo(tmp_path / "a.png", 1), tmp_path / "report.json"
    command = [*named(tiny_model, adapter), f"image={photo}", f"output_file={file}", *SHORT]
    assert riskva_run("predict.yaml", *command) == 0
    (record,) = json.loads(file.read_text(encoding="utf-8"))
    assert record["level"] == record["report"]["风险等级"]
    assert sum(record["level_probabilities"].values()) == pytest.approx(1)
    assert riskva_run("predict.yaml", *command) == 2
    assert riskva_run("predict.yaml", *command, "overwrite_output_dir=true") == 0


def spoiled(tmp_path: Path, how: str) -> Path:
    path = tmp_path / "photo.jpg"
    if how == "a text":
        path.write_text("墙面有裂缝", encoding="utf-8")
    elif how == "half a photo":
        whole = write_photo(path, 1).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "empty":
        path.touch()
    elif how == "a folder":
        path.mkdir()
    return path


@pytest.mark.parametrize("how", ["a text", "half a photo", "empty", "a folder", "not there"])
def test_one_photo_that_cannot_be_read_is_named(
    how: str, tiny_model: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = spoiled(tmp_path, how)
    file = tmp_path / "report.json"
    command = [*named(tiny_model, adapter), f"image={photo}", f"output_file={file}", *SHORT]
    assert riskva_run("predict.yaml", *command) == 1
    said = capsys.readouterr()
    assert "photo.jpg" in said.err.splitlines()[-1]
    assert "Traceback" not in said.err
    assert said.out == ""
    assert not file.exists()


# Many photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of folders with five photos and one text named .jpg."""
    for number, name in enumerate(("a.png", "deep/b.png", "deep/er/c.PNG", "厨房/d.png", "e.png")):
        write_photo(tmp_path / "photos" / name, number)
    (tmp_path / "photos/deep/text.jpg").write_text("裂缝", encoding="utf-8")
    (tmp_path / "photos/notes.doc").write_text("of nobody's interest")
    return tmp_path / "photos"


ALL = {"a.png", "deep/b.png", "deep/er/c.PNG", "deep/text.jpg", "e.png", "厨房/d.png"}


def test_a_folder_with_a_photo_that_cannot_be_read(
    tiny_model: Path, adapter: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = (*named(tiny_model, adapter), f"images={photos}", f"output_dir={out}", *SHORT)
    assert riskva_run("predict.yaml", *command) == 3
    said = capsys.readouterr().err
    assert "1 of 6 rows failed" in said
    assert "text.jpg" in said
    rows = {row.id: row for row in answers_in(out)}
    assert set(rows) == ALL
    assert [row.id for row in rows.values()] == sorted(ALL)
    failed = read_predictions(out / "failed_rows.jsonl")
    assert [row.id for row in failed] == ["deep/text.jpg"]
    assert "text.jpg" in (failed[0].error or "")
    assert all(row.reading(DEFAULT_FORMAT).report for name, row in rows.items() if name != "deep/text.jpg")
    assert [record["error"] is None for record in reports_in(out)].count(False) == 1
    assert riskva_run("predict.yaml", *command) == 2  # it is finished; failed rows are part of the result


def sources(photos: Path) -> dict[str, tuple[str, set[str]]]:
    """Each way to name photos, and the ids that are answered."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = photos.parent
    listed = ["photos/a.png", "photos/deep/b.png"]
    (folder / "list.txt").write_text("# two\n" + "\n".join(listed) + "\n", encoding="utf-8")
    cells = [{"id": f"row {number}", "image": name} for number, name in enumerate(listed)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in cells), encoding="utf-8")
    bytes_of = [{"id": f"p{number}", "image": (folder / name).read_bytes()} for number, name in enumerate(listed)]
    pq.write_table(pa.Table.from_pylist(bytes_of), folder / "rows.parquet")
    return {
        "folder": (str(photos / "厨房"), {"d.png"}),
        "list": (str(folder / "list.txt"), set(listed)),
        "glob": (f"{photos}/**/*.png", ALL - {"deep/text.jpg", "deep/er/c.PNG"}),
        "JSONL": (str(folder / "rows.jsonl"), {"row 0", "row 1"}),
        "Parquet": (str(folder / "rows.parquet"), {"p0", "p1"}),
        "photo": (str(photos / "a.png"), {"a.png"}),
    }


@pytest.mark.parametrize("form", ["folder", "list", "glob", "JSONL", "Parquet", "photo"])
def test_photos_may_be_named_in_every_form(
    form: str, tiny_model: Path, adapter: Path, photos: Path, tmp_path: Path
) -> None:
    source, ids = sources(photos)[form]
    out = tmp_path / "out"
    command = (*named(tiny_model, adapter), f"images={source}", f"output_dir={out}", *SHORT)
    assert riskva_run("predict.yaml", *command) == 0
    rows = answers_in(out)
    assert {row.id for row in rows} == ids
    assert len(rows) == len(ids)
    assert all(row.reading(DEFAULT_FORMAT).report for row in rows)
    alone = [row for row in rows if row.id in ("a.png", "photos/a.png", "row 0", "p0")]
    for row in alone:  # the same photo, asked alike, has the same report however it is named
        assert row.predict == report_of_one(tiny_model, adapter, photos / "a.png", tmp_path)


def report_of_one(model: Path, adapter: Path, photo: Path, tmp_path: Path) -> str:
    file = tmp_path / "one.jsonl"
    command = (*named(model, adapter), f"image={photo}", f"output_file={file}", "overwrite_output_dir=true", *SHORT)
    assert riskva_run("predict.yaml", *command) == 0
    record = json.loads(file.read_text(encoding="utf-8"))
    return DEFAULT_FORMAT.render(_report(record["report"]))


def _report(values: dict[str, str]) -> Any:
    return DEFAULT_FORMAT.parse("\n".join(f"**{label}**: {text}" for label, text in values.items()))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder.mkdir(), "holds no file; pictures end in .jpg"),
        (lambda folder: write_photo(folder / "a.txt", 1), "1 file, none a picture: a.txt"),
        (lambda folder: None, "no such file or folder"),
    ],
    ids=["empty", "no pictures", "not there"],
)
def test_a_folder_without_photos_is_named_before_anything_is_written(
    make: Callable[[Path], Any],
    words: str,
    tiny_model: Path,
    adapter: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(tmp_path / "photos")
    command = (*named(tiny_model, adapter), f"images={tmp_path / 'photos'}", f"output_dir={tmp_path / 'out'}", *SHORT)
    assert riskva_run("predict.yaml", *command) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# What comes out


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
def test_reports_in_every_form(suffix: str, tiny_model: Path, adapter: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / f"reports{suffix}"
    more = (f"output_file={file}", "compare_gt=true", "max_samples=5")
    assert riskva_run("predict.yaml", *named(tiny_model, adapter), *rows_of(data, tmp_path / "out"), *more) == 0
    rows = answers_in(tmp_path / "out")
    text = file.read_text(encoding="utf-8-sig")
    if suffix == ".csv":
        table = list(csv.DictReader(text.splitlines()))
        assert file.read_bytes().startswith(b"\xef\xbb\xbf")
        assert [one["风险等级"] for one in table] == [row.level for row in rows]
        assert [one["level_right"] for one in table] == [
            "yes" if one["truth_风险等级"] == one["风险等级"] else "no" for one in table
        ]
        return
    records = json.loads(text) if suffix == ".json" else list(map(json.loads, text.splitlines()))
    assert [one["id"] for one in records] == [str(number) for number in range(5)]
    for record, row in zip(records, rows, strict=True):
        assert record["report"]["风险等级"] == record["level"] == row.level
        assert DEFAULT_FORMAT.render(_report(record["truth"])) == row.label
        assert record["agreement"]["level"]["right"] == (record["level"] == record["truth"]["风险等级"])


def test_an_output_file_that_is_there_is_never_replaced_unasked(
    tiny_model: Path, adapter: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "reports.csv"
    file.write_text("mine")
    command = (*named(tiny_model, adapter), *rows_of(data, tmp_path / "out"), f"output_file={file}", "max_samples=2")
    assert riskva_run("predict.yaml", *command) == 2
    assert "output_file" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert not (tmp_path / "out").exists()
    assert riskva_run("predict.yaml", *command, "overwrite_output_dir=true") == 0


def test_reports_for_a_person_are_listed(tiny_model: Path, adapter: Path, data: Path, tmp_path: Path) -> None:
    def listed(name: str, *rule: str) -> list[Any]:
        out = tmp_path / name
        command = (*named(tiny_model, adapter), *rows_of(data, out), "review_below=null", "always_review=null", *rule)
        assert riskva_run("predict.yaml", *command) == 0
        return [json.loads(line) for line in (out / "review.jsonl").read_text(encoding="utf-8").splitlines()]

    unlikely = {one["id"] for one in listed("none")}  # a model of random weights may say what it thinks less likely
    rows = answers_in(tmp_path / "none")
    assert unlikely == {row.id for row in rows if row.level_probability != max(row.level_probabilities or (0,))}
    probabilities = sorted(row.level_probability for row in rows if row.level_probability is not None)
    assert len(probabilities) == NUM_ROWS
    below = (probabilities[9] + probabilities[10]) / 2
    unsure = {row.id for row in rows if row.level_probability is not None and row.level_probability < below}
    assert {one["id"] for one in listed("unsure", f"review_below={below}")} == unsure | unlikely
    level = next(row.level for row in rows if row.level)
    always = listed("always", f"always_review={level}")
    assert {one["id"] for one in always} == {row.id for row in rows if row.level == level} | unlikely
    codes = {one["id"]: [reason["code"] for reason in one["reasons"]] for one in always}
    assert all("always" in codes[row.id] for row in rows if row.level == level)


# Models in every form, and faults of models


def predicted(out: Path, data: Path, *model: str) -> dict[str, str]:
    assert riskva_run("predict.yaml", *model, *rows_of(data, out)) == 0
    return texts_in(out)


def test_a_checkpoint_is_an_adapter_and_a_model(tiny_model: Path, adapter: Path, data: Path, tmp_path: Path) -> None:
    last = adapter / "checkpoint-4"
    assert all(
        load_file(last / "adapter_model.safetensors")[name].equal(tensor)
        for name, tensor in load_file(adapter / "adapter_model.safetensors").items()
    )
    expected = predicted(tmp_path / "adapter", data, *named(tiny_model, adapter))
    assert predicted(tmp_path / "checkpoint", data, *named(tiny_model, last)) == expected
    assert predicted(tmp_path / "as model", data, *named(last)) == expected
    assert predicted(tmp_path / "earlier", data, *named(adapter / "checkpoint-2")) != expected
    assert predicted(tmp_path / "base", data, *named(tiny_model)) != expected


def test_the_exported_model_reports_as_base_and_adapter_do(
    tiny_model: Path, adapter: Path, data: Path, tmp_path: Path
) -> None:
    exported = tmp_path / "exported"
    assert riskva_run("export.yaml", *named(tiny_model, adapter), f"export_dir={exported}") == 0
    expected = predicted(tmp_path / "adapter", data, *named(tiny_model, adapter))
    assert predicted(tmp_path / "merged", data, *named(exported)) == expected
    for one, other in zip(answers_in(tmp_path / "merged"), answers_in(tmp_path / "adapter"), strict=True):
        assert one.level_probabilities == pytest.approx(other.level_probabilities, abs=1e-4)


@pytest.fixture(scope="module")
def wider_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("wider") / "tiny", hidden_size=96, intermediate_size=160)


def test_an_adapter_of_another_base_is_refused_and_nothing_is_taken(
    wider_model: Path, adapter: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (*named(wider_model, adapter), *rows_of(data, tmp_path / "out"))
    assert riskva_run("predict.yaml", *command) == 1
    said = capsys.readouterr().err
    assert str(adapter) in said.splitlines()[-1]
    assert "trained on another model" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert "unexpected" not in said
    assert not (tmp_path / "out").exists()


FIELDS = "answer_fields=[{label: 风险等级, column: level, is_level: true}, {label: 说明, column: text}]"


def test_a_model_without_riskva_json_is_asked_as_the_recipe_says(
    tiny_model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("question=这里有什么缺陷？", "system_prompt=你是检查员。", FIELDS)
    command = (*named(tiny_model), f"images={photos / 'e.png'}", f"output_dir={tmp_path / 'out'}", *SHORT, *asked)
    assert riskva_run("predict.yaml", *command) == 0
    said = capsys.readouterr().err
    assert f"{tiny_model}: no riskva.json" in said
    assert "the recipe's prompt" in said
    (row,) = answers_in(tmp_path / "out")
    assert row.prompt == "<image>这里有什么缺陷？"
    assert set(reports_in(tmp_path / "out")[0]["report"]) == {"风险等级", "说明"}
    context = json.loads((tmp_path / "out/riskva.json").read_text(encoding="utf-8"))
    assert context["system_prompt"] == "你是检查员。"


@pytest.mark.parametrize("missing", ["processor_config.json", "tokenizer.json"])
def test_a_model_without_its_processors_files_is_refused_and_nothing_is_taken(
    missing: str, tiny_model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / missing).unlink()
    assert riskva_run("predict.yaml", *named(model), *rows_of(data, tmp_path / "out")) == 1
    said = capsys.readouterr().err
    assert str(model) in said.splitlines()[-1]
    assert "Traceback" not in said
    assert "unexpected" not in said
    assert not (tmp_path / "out").exists()


def test_a_damaged_riskva_json_is_named(
    tiny_model: Path, adapter: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "adapter"
    shutil.copytree(adapter, damaged)
    (damaged / "riskva.json").write_text("{")
    assert riskva_run("predict.yaml", *named(tiny_model, damaged), *rows_of(data, tmp_path / "out")) == 1
    assert "riskva.json: damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# Batches, processes, interruptions


def test_answers_do_not_depend_on_the_batch(tiny_model: Path, adapter: Path, data: Path, tmp_path: Path) -> None:
    found = {}
    for size in (1, 3, 16):
        out = tmp_path / str(size)
        command = (*named(tiny_model, adapter), *rows_of(data, out), f"per_device_eval_batch_size={size}")
        assert riskva_run("predict.yaml", *command) == 0
        found[size] = [(row.id, row.predict, row.level, row.finish_reason) for row in answers_in(out)]
        probabilities = [row.level_probabilities for row in answers_in(out)]
        for one, other in zip(
            probabilities, [row.level_probabilities for row in answers_in(tmp_path / "1")], strict=True
        ):
            assert one == pytest.approx(other, abs=1e-5)
    assert found[1] == found[3] == found[16]
    assert len({text for _, text, _, _ in found[1]}) > 3


@pytest.fixture(scope="module")
def whole(tiny_model: Path, adapter: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing disturbed, in a process of its own."""
    out = tmp_path_factory.mktemp("whole") / "out"
    finish(begin(tiny_model, adapter, data, out))
    return out


def begin(model: Path, adapter: Path, data: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    return start("predict.yaml", *named(model, adapter), *rows_of(data, out), "per_device_eval_batch_size=2", *more)


def finish(worker: subprocess.Popen[str], status: int = 0) -> str:
    try:
        said: str = worker.communicate(timeout=200)[1]
    finally:
        worker.kill()  # nothing happens where it has ended
    assert worker.returncode == status, said
    assert "Traceback" not in said
    return said


def num_answers(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (out / "answers").glob("*.jsonl"))


def wait_for_answers(worker: subprocess.Popen[str], out: Path, number: int) -> None:
    deadline = time.monotonic() + 90
    while num_answers(out) < number:
        assert worker.poll() is None, worker.communicate()
        assert time.monotonic() < deadline, "no answers in time"
        time.sleep(0.005)


@pytest.mark.slow
def test_sigterm_ends_with_75_and_the_same_command_goes_on(
    whole: Path, tiny_model: Path, adapter: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    worker = begin(tiny_model, adapter, data, out)
    wait_for_answers(worker, out, 2)
    worker.send_signal(signal.SIGTERM)
    assert "the same command goes on with the answers that are written" in finish(worker, 75)
    assert not (out / ANSWERS).exists()
    done = num_answers(out)
    assert 2 <= done < NUM_ROWS
    assert f"going on after {done} rows" in finish(begin(tiny_model, adapter, data, out))
    assert (out / ANSWERS).read_bytes() == (whole / ANSWERS).read_bytes()


@pytest.mark.slow
def test_kills_at_any_moment_lose_and_change_nothing(
    whole: Path, tiny_model: Path, adapter: Path, data: Path, tmp_path: Path
) -> None:
    """The output folder differs in nothing: not in answers, reports, the list for a person, nor riskva.json."""
    out, chance = tmp_path / "out", random.Random(7)
    for number in range(5):
        worker = begin(tiny_model, adapter, data, out)
        wait_for_answers(worker, out, num_answers(out) + (number > 0))
        time.sleep(chance.random() * 0.2)
        worker.kill()
        worker.communicate(timeout=60)
        if (out / ANSWERS).exists():
            break
    else:
        finish(begin(tiny_model, adapter, data, out))
    ids = [json.loads(line)["id"] for path in (out / "answers").glob("*.jsonl") for line in path.open(encoding="utf-8")]
    assert sorted(ids, key=int) == [str(number) for number in range(NUM_ROWS)]
    for name in (ANSWERS, "reports.json", "review.jsonl", "riskva.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("lost", ["reports.json", "review.jsonl"])
def test_a_run_killed_before_its_last_file_writes_all_of_them(
    lost: str, tiny_model: Path, adapter: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that says a run is finished is the last one: what is beside it is never missing."""

    def killed(*_: object, **__: object) -> None:
        raise OSError("killed here")

    command = (*named(tiny_model, adapter), *rows_of(data, tmp_path / "out"), "max_samples=3")
    writer = {"reports.json": "write_records", "review.jsonl": "write_review_list"}[lost]
    with monkeypatch.context() as patch:
        patch.setattr(f"riskva.generation.publishing.{writer}", killed)
        assert riskva_run("predict.yaml", *command) == 1
    assert not (tmp_path / "out" / lost).exists()
    assert riskva_run("predict.yaml", *command) == 0
    assert (tmp_path / "out" / lost).is_file()
    assert len(answers_in(tmp_path / "out")) == 3


@pytest.mark.slow
def test_two_processes_write_what_one_writes(
    whole: Path, tiny_model: Path, adapter: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    said = finish(begin(tiny_model, adapter, data, out, "nproc_per_node=2"))
    assert said.count("loading") == 1  # one process speaks
    assert len(list((out / "answers").glob("process-*.jsonl"))) == 2
    assert list(texts_in(out).items()) == list(texts_in(whole).items())
    assert [row.level for row in answers_in(out)] == [row.level for row in answers_in(whole)]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1), (2, 3)])
def test_another_number_of_processes_goes_on(
    first: int, second: int, whole: Path, tiny_model: Path, adapter: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    worker = begin(tiny_model, adapter, data, out, f"nproc_per_node={first}")
    wait_for_answers(worker, out, 2)
    worker.send_signal(signal.SIGTERM)
    finish(worker, 75)
    assert num_answers(out) < NUM_ROWS
    assert "going on after" in finish(begin(tiny_model, adapter, data, out, f"nproc_per_node={second}"))
    assert num_answers(out) == NUM_ROWS
    assert list(texts_in(out).items()) == list(texts_in(whole).items())


@pytest.mark.slow
def test_a_fault_on_one_process_ends_all_and_is_told_once(
    wider_model: Path, adapter: Path, data: Path, tmp_path: Path
) -> None:
    said = finish(begin(wider_model, adapter, data, tmp_path / "out", "nproc_per_node=2"), 1)
    assert said.count(f"riskva-run: {adapter}") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_more_processes_than_rows(tiny_model: Path, adapter: Path, data: Path, tmp_path: Path) -> None:
    finish(begin(tiny_model, adapter, data, tmp_path / "out", "nproc_per_node=2", "max_samples=1"))
    assert len(answers_in(tmp_path / "out")) == 1


@pytest.mark.slow
def test_a_checkpoint_of_zero_3_is_answered_by_two_processes(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    """As `sft_lora_zero3.yaml` saves it on two CPU ranks, against one process."""
    out = tmp_path / "sft"
    places = (f"model_name_or_path={tiny_model}", f"dataset_dir={data}", f"output_dir={out}")
    rows = ("dataset=rows", "eval_dataset=null", "eval_strategy=no", "nproc_per_node=2")
    steps = ("max_steps=2", "save_strategy=steps", "save_steps=2", "per_device_train_batch_size=1")
    finish(start("sft_lora_zero3.yaml", *places, *rows, *SHORT_TRAINING, *steps))
    checkpoint = out / "checkpoint-2"
    assert list((checkpoint / "global_step2").iterdir())
    finish(begin(tiny_model, checkpoint, data, tmp_path / "two", "nproc_per_node=2"))
    finish(begin(tiny_model, checkpoint, data, tmp_path / "one"))
    assert list(texts_in(tmp_path / "two").items()) == list(texts_in(tmp_path / "one").items())
    assert len(texts_in(tmp_path / "two")) == NUM_ROWS
