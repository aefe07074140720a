"""What makes a predict run the same run, to be gone on with; and a run whose rows an endpoint answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shards import write_shards

from evaluation.calibration import tempered
from evaluation.predictions import FILE_NAME, Prediction, prediction_of, read_predictions
from riskva.errors import OutputFolderError, RecipeError, SomeRowsFailed
from riskva.generation.journal import Journal
from riskva.generation.run import output_folder_of, part_of, predict_recipe
from riskva.generation.share import Share, with_confidence
from riskva.jobs import predict as job
from riskva.output_folder import OutputFolder
from riskva.parts import Part
from riskva.recipe import EvalRecipe, PredictRecipe
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport


def recipe_for(tmp_path: Path, **more: Any) -> PredictRecipe:
    values = {
        "stage": "predict",
        "model_name_or_path": str(tmp_path),
        "dataset_dir": str(tmp_path),
        "output_dir": str(tmp_path / "out"),
        "eval_dataset": ("d",),
        "bf16": False,
    }
    return PredictRecipe.model_validate(values | more)


def folder_of(recipe: PredictRecipe | EvalRecipe) -> OutputFolder:
    return output_folder_of(recipe, FILE_NAME)


@pytest.mark.parametrize("key", ["adapter_name_or_path", "model_name_or_path"])
def test_an_adapter_that_was_trained_anew_makes_it_another_run(key: str, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    recipe = recipe_for(tmp_path, **{key: str(adapter)})
    (adapter / "adapter_model.safetensors").write_bytes(b"first")
    folder_of(recipe).take(goes_on=False)
    assert folder_of(recipe).check()
    (adapter / "adapter_model.safetensors").write_bytes(b"again")
    with pytest.raises(OutputFolderError, match="an unfinished run of another recipe"):
        folder_of(recipe).check()
    assert not folder_of(recipe.model_copy(update={"overwrite_output_dir": True})).check()


OTHER_ANSWERS = (
    {"seed": 1},
    {"constrain": "json"},
    {"max_new_tokens": 9},
    {"max_field_chars": 9},
    {"repetition_penalty": 1.1},
    {"max_samples": 3},
    {"eval_dataset": ("e",)},
    {"system_prompt": "你是检查员。"},
    {"image_max_pixels": 100_000},
    {"cutoff_len": 99},
    {"bf16": True},
)

SAME_ANSWERS = (
    {"per_device_eval_batch_size": 3},
    {"preprocessing_num_workers": 2},
    {"nproc_per_node": 2},
    {"output_file": "reports.csv"},
    {"compare_gt": True},
    {"review_below": 0.7},
    {"always_review": ("严重",)},
    {"verify": "off"},
    {"overwrite_output_dir": True},
)


@pytest.mark.parametrize("change", SAME_ANSWERS, ids="".join)
def test_what_changes_no_answer_may_change_on_the_way(change: dict[str, Any], tmp_path: Path) -> None:
    folder_of(recipe_for(tmp_path)).take(goes_on=False)
    assert folder_of(recipe_for(tmp_path, **change)).check()


@pytest.mark.parametrize("change", OTHER_ANSWERS, ids="".join)
def test_what_changes_answers_makes_it_another_run(change: dict[str, Any], tmp_path: Path) -> None:
    folder_of(recipe_for(tmp_path)).take(goes_on=False)
    with pytest.raises(OutputFolderError, match="an unfinished run of another recipe"):
        folder_of(recipe_for(tmp_path, **change)).check()


def test_what_an_evaluation_is_scored_by_may_change_on_the_way(tmp_path: Path) -> None:
    def recipe(**more: Any) -> EvalRecipe:
        values = recipe_for(tmp_path).model_dump(include={"model_name_or_path", "dataset_dir", "output_dir"})
        return EvalRecipe.model_validate(values | {"stage": "eval", "eval_dataset": ("d",)} | more)

    folder_of(recipe()).take(goes_on=False)
    assert folder_of(recipe(train_dataset=("t",), report_rows=3, label_studio=True)).check()
    with pytest.raises(OutputFolderError):
        folder_of(recipe(blank_photos=True)).check()


def test_a_part_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder_of(recipe_for(tmp_path, shard="1/3")).path == tmp_path / "out/part-00001-of-00003"
    assert folder_of(recipe_for(tmp_path, shard="0/1")).path == tmp_path / "out"
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert part_of(recipe_for(tmp_path, shard="auto/3")) == Part(2, 3)
    with pytest.raises(RecipeError, match="0 to 1"):
        part_of(recipe_for(tmp_path, shard="auto/2"))


class Named:
    def __init__(self, *ids: str) -> None:
        self.ids = list(ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("nothing is to be read")

    def id_of(self, index: int) -> str:
        return self.ids[index]


def test_a_share_knows_its_rows_and_those_of_each_process(tmp_path: Path) -> None:
    share = Share(Named(*"abcdefghi"), Journal(tmp_path), Part(1, 2))
    assert (share.ids, share.numbers) == (list("efghi"), range(4, 9))
    for count in (1, 2, 3, 7):
        found = [share.of_process(rank, count, frozenset("fi")) for rank in range(count)]
        assert [number for own, _ in found for number in own] == list(share.numbers)
        assert frozenset().union(*(done for _, done in found)) == {5, 8}
        assert all(done <= set(own) for own, done in found)


def test_answers_to_rows_that_are_not_there_any_more_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path).appending(0) as append:
        append([{"id": "b"}, {"id": "z"}])
    assert Share(Named("a", "b", "z"), Journal(tmp_path), Part()).done() == {"b", "z"}
    with pytest.raises(OutputFolderError, match="rows that are not there any more, such as 'z'"):
        Share(Named("a", "b"), Journal(tmp_path), Part()).done()


def test_the_temperature_is_applied_to_raw_probabilities_at_the_end(tmp_path: Path) -> None:
    """The journal keeps what the model said, so that a calibration in the middle of a run does no harm."""
    raw = (0.05, 0.15, 0.8)
    line = {"id": "a", "predict": "x", "label": "", "level": "严重", "level_probabilities": list(raw)}
    with Journal(tmp_path).appending(0) as append:
        append([line, {"id": "b", "predict": "x", "label": "", "level": None}])
    share = Share(Named("b", "a"), Journal(tmp_path), Part())
    for temperature in (1.0, 2.5):
        other, row = share.predictions(temperature)
        assert row.level_probabilities == pytest.approx(tempered(raw, temperature))
        assert row.level_probability == pytest.approx(tempered(raw, temperature)[RiskLevel.SEVERE])
        assert (other.id, other.level_probability) == ("b", None)
    assert json.loads(Journal(tmp_path).lines()["a"]) == line
    assert with_confidence(prediction_of(line), 1.0).level_probability == pytest.approx(0.8)


# An endpoint's work, done by the test

Change = Callable[[dict[str, Any]], dict[str, Any] | None]


def reply(level: RiskLevel) -> str:
    return DEFAULT_FORMAT.render(RiskReport(level, dict.fromkeys(DEFAULT_FORMAT.text_labels, "裂缝")))


def answer_requests(out: Path, results: Path, change: Change = lambda line: line) -> int:
    """Answer the requests in `out` as an endpoint does, in an order of its own; `change` may spoil or drop a line."""
    lines = []
    for path in sorted(out.glob("batch_requests-*.jsonl"), reverse=True):
        for text in reversed(path.read_text(encoding="utf-8").splitlines()):
            request = json.loads(text)
            assert request["url"] == "/v1/chat/completions"
            level = RiskLevel(int(request["custom_id"]) % 3)
            message = {"role": "assistant", "content": reply(level)}
            body = {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
            lines.append(change({"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}}))
    kept = [line for line in lines if line is not None]
    results.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept), encoding="utf-8")
    return len(kept)


def asking(tmp_path: Path, *results: Path, **more: Any) -> PredictRecipe:
    batch = {"eval_dataset": ("rows",), "infer_backend": "openai_batch", "constrain": "off"}
    named = {"model_name_or_path": "endpoint/model", "batch_results": tuple(map(str, results))}
    return recipe_for(tmp_path, **batch, **named, **more)


def answers_in(tmp_path: Path) -> list[Prediction]:
    return read_predictions(tmp_path / "out" / FILE_NAME)


def test_an_endpoint_answers_in_two_rounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shards(tmp_path, 7, 2, 2)
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    job.run(asking(tmp_path))
    assert "7 rows wait for answers" in capsys.readouterr().err
    assert not (tmp_path / "out" / FILE_NAME).exists()
    assert answer_requests(tmp_path / "out", first, lambda line: None if int(line["custom_id"]) % 3 == 0 else line) == 4

    job.run(asking(tmp_path, first))
    said = capsys.readouterr().err
    assert "4 rows taken in" in said
    assert "3 rows wait for answers" in said
    assert not (tmp_path / "out" / FILE_NAME).exists()
    assert answer_requests(tmp_path / "out", second) == 3

    job.run(asking(tmp_path, first, second))  # the first has been taken in; that it is named again does no harm
    said = capsys.readouterr().err
    assert "3 rows taken in" in said
    rows = answers_in(tmp_path)
    assert [row.id for row in rows] == [str(number) for number in range(7)]
    assert [row.predict for row in rows] == [reply(RiskLevel(number % 3)) for number in range(7)]
    assert [row.level for row in rows] == [RiskLevel(number % 3).label for number in range(7)]
    assert all(row.label and row.image for row in rows)
    assert not list((tmp_path / "out").glob("batch_requests*"))
    assert len(json.loads((tmp_path / "out/reports.json").read_text(encoding="utf-8"))) == 7


def test_the_same_results_twice_are_taken_in_once(tmp_path: Path) -> None:
    write_shards(tmp_path, 4, 1, 2)
    results = tmp_path / "results.jsonl"
    job.run(asking(tmp_path))
    answer_requests(tmp_path / "out", results, lambda line: None if line["custom_id"] == "0" else line)
    for _ in range(2):
        job.run(asking(tmp_path, results))
    assert len(Journal(tmp_path / "out/answers").lines()) == 3


def test_rows_that_cannot_be_read_are_not_sent_and_rows_that_fail_are_named(tmp_path: Path) -> None:
    write_shards(tmp_path, 4, 1, 2)
    spoil_photo(tmp_path, 1)
    results = tmp_path / "results.jsonl"
    job.run(asking(tmp_path))

    def failing(line: dict[str, Any]) -> dict[str, Any]:
        error = {"status_code": 400, "body": {"error": {"message": "overlong"}}}
        return line | {"response": error} if line["custom_id"] == "3" else line

    assert answer_requests(tmp_path / "out", results, failing) == 3
    with pytest.raises(SomeRowsFailed, match="2 of 4 rows failed"):
        job.run(asking(tmp_path, results))
    rows = answers_in(tmp_path)
    assert [row.error is None for row in rows] == [True, False, True, False]
    assert "1.png" in (rows[1].error or "")
    assert "the endpoint failed 400: overlong" in (rows[3].error or "")
    failed = read_predictions(tmp_path / "out/failed_rows.jsonl")
    assert [row.id for row in failed] == ["1", "3"]


def spoil_photo(folder: Path, row: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = next(folder.glob("*.parquet"))
    rows = pq.read_table(path).to_pylist()
    rows[row]["images"][0]["bytes"] = b"no picture"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)


def test_when_no_row_can_be_read_nobody_is_asked(tmp_path: Path) -> None:
    write_shards(tmp_path, 1, 1, 1)
    spoil_photo(tmp_path, 0)
    with pytest.raises(SomeRowsFailed, match="1 of 1 rows failed"):
        job.run(asking(tmp_path))


def test_results_of_other_rows_change_nothing(tmp_path: Path) -> None:
    write_shards(tmp_path, 2, 1, 2)
    results = tmp_path / "results.jsonl"
    job.run(asking(tmp_path))
    answer_requests(tmp_path / "out", results)
    text = results.read_text(encoding="utf-8")
    results.write_text(text.replace('"custom_id": "1"', '"custom_id": "9"'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"results\.jsonl:1: custom_id '9' is of no row"):
        job.run(asking(tmp_path, results))
    assert Journal(tmp_path / "out/answers").lines() == {}
    assert list((tmp_path / "out").glob("batch_requests*"))


def test_an_adapter_at_an_endpoint_needs_the_endpoints_name_for_it(tmp_path: Path, tiny_model: Path) -> None:
    write_shards(tmp_path, 2, 1, 2)
    recipe = recipe_for(
        tmp_path,
        model_name_or_path=str(tiny_model),
        adapter_name_or_path=str(tmp_path),
        eval_dataset=("rows",),
        infer_backend="openai_batch",
        constrain="off",
    )
    with pytest.raises(RecipeError, match="batch_model: missing"):
        predict_recipe(recipe, folder_of(recipe))
    assert not (tmp_path / "out").exists()


def test_a_batch_file_cannot_hold_an_endpoint_to_a_reports_lines(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="constrain"):
        recipe_for(tmp_path, infer_backend="openai_batch")
