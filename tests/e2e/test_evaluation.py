"""`stage: eval` on answers that are there already, and `stage: compare`: files, refusals, what people are told."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from running import riskva_run

from riskva.data.datasets import open_datasets
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport

TEST = ("building_defect_test",)


def report_of(text: str) -> RiskReport:
    parsed = DEFAULT_FORMAT.parse(text)
    assert isinstance(parsed, RiskReport)
    return parsed


def answered(data: Path, folder: Path, wrong: int = 0) -> Path:
    """The test rows, answered to the letter but for the level of the first `wrong` ones."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "generated_predictions.jsonl"
    lines = []
    for number, row in enumerate(open_datasets(TEST, data)):
        truth = report_of(row.answer or "")
        level = RiskLevel((truth.level + 1) % 3) if number < wrong else truth.level
        line = {
            "id": row.id,
            "prompt": "",
            "predict": DEFAULT_FORMAT.render(replace(truth, level=level)),
            "label": row.answer,
            "level_probabilities": [0.8 if one == level else 0.1 for one in RiskLevel],
        }
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def scored(out: Path, data: Path, predictions: Path, *more: str) -> int:
    return riskva_run("eval.yaml", f"dataset_dir={data}", f"predictions={predictions}", f"output_dir={out}", *more)


def metrics_in(out: Path) -> dict[str, object]:
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_everything_that_an_evaluation_writes(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = answered(prepared, tmp_path / "run", wrong=2)
    board = tmp_path / "leaderboard.jsonl"
    options = ("label_studio=true", f"leaderboard={board}")
    assert scored(tmp_path / "eval", prepared, predictions.parent, *options) == 0
    rows = open_datasets(TEST, prepared)
    out = tmp_path / "eval"
    assert {"metrics.json", "sample_scores.jsonl", "report.html", "label_studio", "recipe.yaml"} <= {
        path.name for path in out.iterdir()
    }
    lines = (out / "sample_scores.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == rows.ids
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") >= len(rows)
    tasks = json.loads((out / "label_studio" / "tasks.json").read_text(encoding="utf-8"))
    assert [task["data"]["image_id"] for task in tasks] == rows.ids[:2]
    printed = capsys.readouterr()
    assert "level macro-F1" in printed.out
    assert "nearest training report" in printed.out
    assert f"{out}" in printed.out  # the board
    assert "report.html" in printed.err
    assert scored(tmp_path / "eval2", prepared, answered(prepared, tmp_path / "run2"), f"leaderboard={board}") == 0
    assert len(board.read_text(encoding="utf-8").splitlines()) == 2


def test_llama_factorys_file_and_a_csv_score_the_same(prepared: Path, tmp_path: Path) -> None:
    ours = answered(prepared, tmp_path / "ours", wrong=3)
    rows = [json.loads(line) for line in ours.read_text(encoding="utf-8").splitlines()]
    theirs = tmp_path / "theirs.jsonl"
    texts = [{"prompt": "system\n", "predict": row["predict"], "label": row["label"] + "\n"} for row in rows]
    theirs.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in texts), encoding="utf-8")
    table = tmp_path / "table.csv"
    with table.open("w", encoding="gb18030", newline="") as stream:
        writer = csv.DictWriter(stream, ["id", "predict", "label"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    found = {}
    for name, path in {"ours": ours, "theirs": theirs, "csv": table}.items():
        assert scored(tmp_path / name / "scores", prepared, path) == 0
        found[name] = metrics_in(tmp_path / name / "scores")
    for key in ("signature", "format", "kind", "rouge", "rouge_characters"):
        assert found["csv"][key] == found["ours"][key]
        # the line break at the end of their labels is nothing to ROUGE; BLEU counts it, here as in LLaMA-Factory
        assert found["theirs"][key] == found["ours"][key]
    assert (found["csv"]["baselines"], found["csv"]["bleu"]) == (found["ours"]["baselines"], found["ours"]["bleu"])
    assert found["ours"]["risk_level"]["probabilities"]["num_rows"] == len(rows)  # type: ignore[index]
    assert found["csv"]["risk_level"]["probabilities"] is None  # type: ignore[index]


def test_costs_and_vocabulary_are_the_recipes(prepared: Path, tmp_path: Path) -> None:
    predictions = answered(prepared, tmp_path / "run", wrong=1)
    costs = "level_costs={轻微: {中等: 7, 严重: 0}, 中等: {轻微: 0, 严重: 7}, 严重: {轻微: 7, 中等: 0}}"
    assert scored(tmp_path / "eval", prepared, predictions, costs, "kinds={墙: [墙]}", "train_dataset=null") == 0
    metrics = metrics_in(tmp_path / "eval")
    num_rows = len(open_datasets(TEST, prepared))
    assert metrics["risk_level"]["expected_cost"] == pytest.approx(7 / num_rows)  # type: ignore[index]
    assert metrics["kind"]["num_named"] < num_rows  # type: ignore[index]
    assert "nearest" not in metrics["baselines"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("level_costs={严重: {轻微: -1}}", "level_costs: 严重 → 轻微: a cost is a number from 0 to"),
        ("level_costs={严重: {轻微: 10}}", "no cost for 轻微 → 中等"),
        ("level_costs={严重: {严重: 1}}", "a right level costs nothing"),
        ("level_costs={重: {轻微: 1}}", "level_costs: unknown risk level '重'"),
        ("rooms={厨房: [厨房], 餐厅: [厨房]}", "rooms: 厨房 stands for both"),
    ],
)
def test_wrong_scoring_keys_are_told_at_once(
    override: str, message: str, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scored(tmp_path / "eval", prepared, answered(prepared, tmp_path / "run"), override) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "eval").exists()


def test_a_board_that_cannot_be_read_is_told_before_the_work(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = tmp_path / "board.jsonl"
    board.write_text("no json\n", encoding="utf-8")
    predictions = answered(prepared, tmp_path / "run")
    assert scored(tmp_path / "eval", prepared, predictions, f"leaderboard={board}") == 1
    assert "board.jsonl:1: no line of a leaderboard" in capsys.readouterr().err
    assert not (tmp_path / "eval").exists()


def test_training_rows_of_another_form_are_refused(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = answered(prepared, tmp_path / "run")
    assert scored(tmp_path / "eval", prepared, predictions, "train_dataset=no_such_set") == 1
    assert "no data set 'no_such_set'" in capsys.readouterr().err


def test_predictions_that_do_not_fit_take_no_folder(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = answered(prepared, tmp_path / "run")
    lines = predictions.read_text(encoding="utf-8").splitlines(keepends=True)
    predictions.write_text("".join(lines[:-1]), encoding="utf-8")
    assert scored(tmp_path / "eval", prepared, predictions) == 1
    assert "1 of 5 rows of building_defect_test have no prediction" in capsys.readouterr().err
    assert not (tmp_path / "eval").exists()


def compared(out: Path, data: Path, runs: dict[str, Path], *more: str) -> int:
    named = ", ".join(f"{name}: {path}" for name, path in runs.items())
    return riskva_run("compare.yaml", f"predictions={{{named}}}", f"dataset_dir={data}", f"output_dir={out}", *more)


def test_two_runs_are_compared(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {"old": answered(prepared, tmp_path / "old", wrong=4), "new": answered(prepared, tmp_path / "new").parent}
    assert compared(tmp_path / "out", prepared, runs, "--dry-run") == 0
    assert not (tmp_path / "out").exists()
    assert compared(tmp_path / "out", prepared, runs) == 0
    written = json.loads((tmp_path / "out/comparison.json").read_text(encoding="utf-8"))
    rival = written["rivals"]["new"]
    assert (rival["num_only_first"], rival["num_only_this"], rival["p_value"]) == (0, 4, 0.125)
    assert sorted(rival["wins"]) == sorted(open_datasets(TEST, prepared).ids[:4])
    assert "new against old" in capsys.readouterr().out
    assert "data:image/jpeg" in (tmp_path / "out/comparison.html").read_text(encoding="utf-8")
    # a finished comparison is not replaced by accident
    assert compared(tmp_path / "out", prepared, runs) == 2


def test_a_folder_of_scores_is_compared_like_one_of_answers(prepared: Path, tmp_path: Path) -> None:
    for name, wrong in (("old", 2), ("new", 0)):
        assert scored(tmp_path / name, prepared, answered(prepared, tmp_path / f"{name}_answers", wrong)) == 0
    runs = {"old": tmp_path / "old", "new": tmp_path / "new"}
    assert compared(tmp_path / "out", prepared, runs) == 0
    written = json.loads((tmp_path / "out/comparison.json").read_text(encoding="utf-8"))
    assert written["rivals"]["new"]["num_only_this"] == 2


def test_the_first_run_stays_the_first_when_its_path_is_overridden(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, tuned = answered(prepared, tmp_path / "b", wrong=1), answered(prepared, tmp_path / "t")
    overrides = (f"predictions.tuned={tuned}", f"predictions.base={base}")
    places = (f"dataset_dir={prepared}", f"output_dir={tmp_path / 'out'}")
    assert riskva_run("compare.yaml", *overrides, *places) == 0
    assert "tuned − base" in capsys.readouterr().out


def test_what_others_put_among_the_tasks_is_not_deleted(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, out = answered(prepared, tmp_path / "run", wrong=2), tmp_path / "eval"
    assert scored(out, prepared, predictions, "label_studio=true") == 0
    assert scored(out, prepared, predictions, "overwrite_output_dir=true") == 0
    assert (out / "label_studio" / "tasks.json").is_file()
    export = out / "label_studio" / "project-export.json"
    export.write_text("[]", encoding="utf-8")
    assert scored(out, prepared, predictions, "overwrite_output_dir=true", "label_studio=true") == 1
    assert "holds project-export.json, which no evaluation wrote" in capsys.readouterr().err
    assert export.is_file()


def test_runs_on_other_rows_are_refused(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = answered(prepared, tmp_path / "old"), answered(prepared, tmp_path / "new")
    lines = new.read_text(encoding="utf-8").splitlines(keepends=True)
    new.write_text("".join(lines[1:]), encoding="utf-8")
    # with the data set at hand it is told which row is missing there, without it that the two differ
    assert compared(tmp_path / "out", prepared, {"old": old, "new": new}) == 1
    assert "1 of 5 rows of building_defect_test have no prediction" in capsys.readouterr().err
    assert compared(tmp_path / "out", prepared, {"old": old, "new": new}, "eval_dataset=null") == 1
    error = capsys.readouterr().err
    assert "old and new cannot be compared, their data differ" in error
    assert open_datasets(TEST, prepared).ids[0] in error
    assert not (tmp_path / "out").exists()


def test_one_run_is_no_comparison(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compared(tmp_path / "out", prepared, {"only": answered(prepared, tmp_path / "old")}) == 2
    assert "names 1 run(s); give two or more to compare" in capsys.readouterr().err
