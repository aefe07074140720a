"""`predict_with_generate` while training: scores in every log, the best checkpoint by them, and no other training."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from running import SHORT_TRAINING, log_of, losses_of, riskva_run, start
from safetensors.torch import load_file
from shards import ENTRY, write_manifest, write_shards
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from evaluation.predictions import read_predictions
from evaluation.while_training import scores_while_training
from riskva.generation.sampled import SampleAnswerer
from riskva.recipe.metrics import REPORT_SCORES, is_report_score
from riskva.report import DEFAULT_FORMAT, RiskReport

pytestmark = pytest.mark.slow

BASE = "model_name_or_path=riskva/assets/tiny-qwen2.5-vl"
"""The pretrained one: it learns to write reports within seconds."""

GENERATING = ("predict_with_generate=true", "max_new_tokens=100", "per_device_eval_batch_size=2")
EVERY_TWO = ("eval_strategy=steps", "eval_steps=2", "save_strategy=steps", "save_steps=2", "save_total_limit=null")
TINY = ("predict_with_generate=true", "max_new_tokens=8", "num_generated_samples=3")
BY_MACRO_F1 = ("metric_for_best_model=risk_level_macro_f1", "load_best_model_at_end=true")


def places(model: object, data: Path, out: Path) -> tuple[str, ...]:
    return (f"model_name_or_path={model}", f"dataset_dir={data}", f"output_dir={out}")


def scores_of(output_dir: Path) -> list[dict[str, Any]]:
    """The scores of each evaluation that a run logged, with the step that it was at."""
    return [
        {name: value for name, value in entry.items() if is_report_score(name) or name == "current_steps"}
        for entry in log_of(output_dir)
        if "eval_loss" in entry
    ]


def weights_are_equal(one: Path, other: Path) -> bool:
    name = "adapter_model.safetensors" if (one / "adapter_model.safetensors").exists() else "model.safetensors"
    weights, others = load_file(one / name), load_file(other / name)
    return all(weights[key].equal(others[key]) for key in weights.keys() | others.keys())


def training_to_write(data: Path, out: Path) -> tuple[str, ...]:
    """A training of some seconds, after which the model writes reports for the photos that it has seen."""
    short = (
        "max_steps=64",
        "learning_rate=4e-3",
        "per_device_train_batch_size=8",
        "nproc_per_node=1",
        "lora_dropout=0",
    )
    asked = ("eval_dataset=building_defect_train", "num_generated_samples=5", *GENERATING)
    logged = ("eval_steps=32", "save_steps=32", "save_total_limit=null", "logging_steps=8", "report_to=tensorboard")
    return (BASE, f"dataset_dir={data}", f"output_dir={out}", *short, *asked, *logged)


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("generating") / "sft"
    assert riskva_run("demo/sft.yaml", *training_to_write(prepared, out)) == 0
    return out


def test_every_evaluation_has_scores_and_they_rise(trained: Path) -> None:
    scores = scores_of(trained)
    assert [one["current_steps"] for one in scores] == [32, 64]
    rouge = {f"eval_rouge-l_{label}" for label in DEFAULT_FORMAT.text_labels}
    for one in scores:
        assert one.keys() - {"eval_risk_level_severe_recall"} >= {"eval_risk_level_macro_f1", *rouge}
        assert {name.removeprefix("eval_") for name in one} >= set(REPORT_SCORES) - {"risk_level_severe_recall"}
    assert scores[-1]["eval_format_valid_rate"] > 0.5
    assert scores[-1]["eval_risk_level_macro_f1"] > scores[0]["eval_risk_level_macro_f1"]
    assert scores[-1]["eval_rouge-l_风险描述"] > scores[0]["eval_rouge-l_风险描述"]
    at_the_end = json.loads((trained / "eval_results.json").read_text(encoding="utf-8"))
    assert {**scores[-1], **at_the_end} == {**at_the_end, "current_steps": 64}
    assert (trained / "training_loss.png").is_file()


def test_the_tracker_gets_every_score(trained: Path) -> None:
    (events,) = trained.glob("runs/**/events*")
    board = EventAccumulator(str(events))
    board.Reload()
    for name, value in scores_of(trained)[-1].items():
        if name != "current_steps":
            logged = board.Scalars(f"eval/{name.removeprefix('eval_')}")
            assert logged[-1].value == pytest.approx(value)
            assert len(logged) == 2


def test_the_scores_are_those_of_a_prediction_afterwards(trained: Path, prepared: Path, tmp_path: Path) -> None:
    rows = ("eval_dataset=building_defect_train", "max_new_tokens=100", "per_device_eval_batch_size=2")
    keys = (f"adapter_name_or_path={trained}", f"dataset_dir={prepared}", f"output_dir={tmp_path}", *rows)
    assert riskva_run("demo/predict.yaml", *keys) == 0
    drawn = sorted(random.Random(42).sample(range(14), 5))
    predictions = [read_predictions(tmp_path / "generated_predictions.jsonl")[row] for row in drawn]
    answers = [DEFAULT_FORMAT.read_answer(row.predict).report for row in predictions]
    labels = [DEFAULT_FORMAT.parse(row.label) for row in predictions]
    expected = scores_while_training(
        answers, [one for one in labels if isinstance(one, RiskReport)], DEFAULT_FORMAT.text_labels
    )
    logged = {name.removeprefix("eval_"): value for name, value in scores_of(trained)[-1].items()}
    assert expected == {name: value for name, value in logged.items() if name != "current_steps"}


def test_a_resumed_run_has_the_same_scores(trained: Path, prepared: Path, tmp_path: Path) -> None:
    go_on = f"resume_from_checkpoint={trained / 'checkpoint-32'}"
    assert riskva_run("demo/sft.yaml", *training_to_write(prepared, tmp_path / "out"), go_on) == 0
    assert scores_of(tmp_path / "out") == scores_of(trained)[1:]
    assert losses_of(tmp_path / "out") == losses_of(trained)[4:]


@pytest.mark.parametrize("recipe", ["sft_lora.yaml", "sft_full.yaml"])
def test_generation_changes_nothing_of_the_training(
    recipe: str, tiny_model_hub: Path, prepared: Path, tmp_path: Path
) -> None:
    """With dropout, shuffling and gradient checkpointing: whatever generation left behind would show."""
    plain, generating = tmp_path / "plain", tmp_path / "generating"
    same = ("deepspeed=null", "max_steps=6", *EVERY_TWO, *SHORT_TRAINING, "lora_dropout=0.1", "save_steps=6")
    assert riskva_run(recipe, *places(tiny_model_hub, prepared, plain), *same, "gradient_checkpointing=true") == 0
    keys = (*same, "gradient_checkpointing=true", *TINY)
    assert riskva_run(recipe, *places(tiny_model_hub, prepared, generating), *keys) == 0
    assert losses_of(generating) == losses_of(plain)
    assert [one["eval_loss"] for one in log_of(generating) if "eval_loss" in one] == [
        one["eval_loss"] for one in log_of(plain) if "eval_loss" in one
    ]
    assert weights_are_equal(generating, plain)
    assert not any(is_report_score(name) for entry in log_of(plain) for name in entry)
    if recipe == "sft_full.yaml":
        name = "generation_config.json"
        assert (generating / name).read_bytes() == (plain / name).read_bytes()


@pytest.fixture
def num_right(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many of the 5 rows each evaluation from here on answers rightly; the others get no answer."""
    numbers: list[int] = []

    def answers(self: SampleAnswerer, model: object) -> list[str]:
        right = numbers.pop(0)
        rows = self.sample.conversations
        return [str(rows[row].answer) if row < right else "" for row in range(len(rows))]

    monkeypatch.setattr(SampleAnswerer, "__call__", answers)
    return numbers


def early(model: Path, data: Path, out: Path) -> tuple[str, ...]:
    patient = ("early_stopping_steps=2", "max_steps=20")
    return (
        *places(model, data, out),
        *EVERY_TWO,
        *SHORT_TRAINING,
        *TINY,
        *BY_MACRO_F1,
        *patient,
        "num_generated_samples=9",
    )


@pytest.fixture
def stopped_early(num_right: list[int], tiny_model: Path, prepared: Path, tmp_path: Path) -> Path:
    """A run whose second evaluation, at step 4, was its best one."""
    num_right += [1, 4, 2, 3]
    assert riskva_run("sft_lora.yaml", *early(tiny_model, prepared, tmp_path / "whole")) == 0
    return tmp_path / "whole"


def test_the_best_checkpoint_is_kept_and_no_better_one_ends_the_training(stopped_early: Path) -> None:
    assert [entry["current_steps"] for entry in log_of(stopped_early) if "eval_loss" in entry] == [2, 4, 6, 8]
    assert len(losses_of(stopped_early)) == 8
    assert weights_are_equal(stopped_early, stopped_early / "checkpoint-4")
    assert not weights_are_equal(stopped_early, stopped_early / "checkpoint-8")
    at_the_end = json.loads((stopped_early / "eval_results.json").read_text(encoding="utf-8"))
    assert at_the_end["step"] == 4
    assert at_the_end["eval_risk_level_accuracy"] == pytest.approx(4 / 5)


def test_patience_is_not_renewed_by_a_resume(
    stopped_early: Path, num_right: list[int], tiny_model: Path, prepared: Path, tmp_path: Path
) -> None:
    num_right += [3]
    go_on = f"resume_from_checkpoint={stopped_early / 'checkpoint-6'}"
    assert riskva_run("sft_lora.yaml", *early(tiny_model, prepared, tmp_path / "resumed"), go_on) == 0
    assert len(losses_of(tmp_path / "resumed")) == 2
    assert weights_are_equal(tmp_path / "resumed", stopped_early)


def test_a_run_killed_after_it_stopped_early_only_saves_the_best(
    stopped_early: Path, tiny_model: Path, prepared: Path
) -> None:
    saved = (stopped_early / "adapter_model.safetensors").read_bytes()
    for name in ("train_results.json", "adapter_model.safetensors", "eval_results.json"):
        (stopped_early / name).unlink()
    assert riskva_run("sft_lora.yaml", *early(tiny_model, prepared, stopped_early)) == 0
    assert (stopped_early / "adapter_model.safetensors").read_bytes() == saved
    assert json.loads((stopped_early / "eval_results.json").read_text(encoding="utf-8"))["step"] == 4
    assert not (stopped_early / "checkpoint-10").exists()


def test_only_new_bests_are_saved(num_right: list[int], tiny_model: Path, prepared: Path, tmp_path: Path) -> None:
    num_right += [2, 1, 5, 3]
    short = ("max_steps=8", *BY_MACRO_F1, "save_strategy=best", "num_generated_samples=9")
    keys = (*places(tiny_model, prepared, tmp_path), *EVERY_TWO, *SHORT_TRAINING, *TINY, *short)
    assert riskva_run("sft_lora.yaml", *keys) == 0
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-6"}
    assert weights_are_equal(tmp_path, tmp_path / "checkpoint-6")


@pytest.mark.parametrize("data", ["streaming", "val_size"])
def test_streamed_and_split_off_rows_are_answered_too(data: str, tiny_model: Path, tmp_path: Path) -> None:
    write_manifest(write_shards(tmp_path / "data", 12, num_files=2, rows_per_group=3))
    keys = {"streaming": ("streaming=true", "eval_dataset=rows"), "val_size": ("eval_dataset=null", "val_size=4")}
    short = ("dataset=rows", "max_steps=2", *SHORT_TRAINING, *TINY, *EVERY_TWO, *keys[data])
    assert riskva_run("sft_lora.yaml", *places(tiny_model, tmp_path / "data", tmp_path / "out"), *short) == 0
    (scores,) = scores_of(tmp_path / "out")
    assert scores["eval_format_valid_rate"] == 0
    assert scores["eval_risk_level_accuracy"] == 0


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("risk_level_severe_recall", "do not give risk_level_severe_recall (no drawn row is 严重)"),
        ("rouge-l_缺陷表述", "(the report has no such field)"),
    ],
)
def test_a_metric_that_the_rows_cannot_give_is_refused_at_once(
    metric: str, said: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(write_shards(tmp_path / "data", 2, num_files=1, rows_per_group=2))  # 轻微 and 中等
    rows = ("dataset=rows", "eval_dataset=rows", f"metric_for_best_model={metric}", *SHORT_TRAINING, *TINY)
    assert riskva_run("sft_lora.yaml", *places(tiny_model, tmp_path / "data", tmp_path / "out"), *rows) == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert ("did you mean rouge-l_缺陷描述?" in complaint) is metric.startswith("rouge")
    assert not (tmp_path / "out").exists()


def rows_of_both_kinds(data: Path, folder: Path) -> Path:
    """Five of the rows that the model has seen, in a data set called `rows`: every other one without its photo."""
    table = pq.read_table(next(data.glob("train-*.parquet"))).select(["id", "messages", "images"])
    rows = table.slice(0, 5).to_pylist()
    for row in rows[1::2]:
        row["images"] = []
        row["messages"] = [{**one, "content": one["content"].replace("<image>", "")} for one in row["messages"]]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "rows.parquet")
    registry = {"rows": {"file_name": "rows.parquet", **ENTRY}}
    (folder / "dataset_info.json").write_text(json.dumps(registry), encoding="utf-8")
    return folder


def test_processes_share_the_rows_and_get_the_scores_of_one(trained: Path, prepared: Path, tmp_path: Path) -> None:
    """Five rows over two processes, one with a photo and one without at a time: uneven, and ZeRO-3 must not hang."""
    folder = rows_of_both_kinds(prepared, tmp_path / "data")
    runs = {"single": 1, "lora": 2, "lora_zero2": 2, "lora_zero3": 2}
    for name, processes in runs.items():
        places = (BASE, f"adapter_name_or_path={trained}", f"dataset_dir={folder}", f"output_dir={tmp_path / name}")
        rows = ("dataset=rows", "eval_dataset=rows", "max_samples=5", "per_device_train_batch_size=1")
        short = ("max_steps=2", "save_strategy=no", "eval_strategy=steps", "eval_steps=1", "learning_rate=1e-9")
        shared = (f"nproc_per_node={processes}", f"gradient_accumulation_steps={2 // processes}")
        keys = (*places, *rows, *SHORT_TRAINING, *GENERATING, *short, *shared)
        if processes == 1:
            assert riskva_run("sft_lora.yaml", *keys) == 0
            continue
        worker = start(f"sft_{name}.yaml", *keys)
        _, said = worker.communicate(timeout=300)
        assert worker.returncode == 0, said
    expected = scores_of(tmp_path / "single")
    assert len(expected) == 2
    assert expected[0]["eval_format_valid_rate"] > 0
    for name in runs:
        assert scores_of(tmp_path / name) == expected, name
        assert losses_of(tmp_path / name) == pytest.approx(losses_of(tmp_path / "single"), abs=1e-4), name
