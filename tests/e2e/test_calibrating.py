import json
import shutil
from pathlib import Path

import pytest
from running import riskva_run

from evaluation.calibration import tempered
from evaluation.predictions import read_predictions
from riskva.errors import ModelError
from riskva.jobs.calibrate import keep_temperature, temperature_folder
from riskva.modeling.context import ModelContext
from riskva.recipe import CalibrateRecipe

SHORT = ("max_field_chars=4", "max_new_tokens=120", "bf16=false", "preprocessing_num_workers=1")


@pytest.fixture
def exported(tiny_model: Path, tmp_path: Path) -> Path:
    """A model of RisKVA's own: random weights with a riskva.json."""
    folder = tmp_path / "exported"
    shutil.copytree(tiny_model, folder)
    ModelContext(base_model="tiny").save(folder)
    return folder


def _run(stage: str, model: Path, data: Path, out: Path, *more: str) -> int:
    places = (f"model_name_or_path={model}", "adapter_name_or_path=null", f"dataset_dir={data}", f"output_dir={out}")
    return riskva_run(stage, *places, *SHORT, *more)


def test_a_temperature_is_fitted_kept_and_applied(
    exported: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ("eval_dataset=building_defect_train", "test_dataset=building_defect_val")
    assert _run("calibrate.yaml", exported, prepared, tmp_path / "calibrate", *rows) == 0
    table = capsys.readouterr().out
    written = json.loads((tmp_path / "calibrate" / "calibration.json").read_text(encoding="utf-8"))
    context = ModelContext.load(exported)
    assert context is not None
    assert context.level_temperature == written["temperature"]
    assert f"temperature {context.level_temperature:.3f}, fitted to" in table
    assert "test rows, as answered" in table
    assert written["fitted"]["after"]["nll"] <= written["fitted"]["before"]["nll"]

    assert _run("predict.yaml", exported, prepared, tmp_path / "predict", "eval_dataset=building_defect_val") == 0
    raw = read_predictions(tmp_path / "calibrate" / "test_predictions.jsonl")
    told = read_predictions(tmp_path / "predict" / "generated_predictions.jsonl")
    assert [row.predict for row in told] == [row.predict for row in raw]
    for before, after in zip(raw, told, strict=True):
        assert before.level_probabilities is not None
        assert after.level_probabilities == pytest.approx(tempered(before.level_probabilities, written["temperature"]))


def test_a_model_without_riskva_json_is_refused_before_it_answers(
    tiny_model: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "calibrate"
    assert _run("calibrate.yaml", tiny_model, prepared, out, "eval_dataset=building_defect_train") == 1
    assert "no riskva.json, in which the temperature is to be kept" in capsys.readouterr().err
    assert not out.exists()


def test_a_model_in_the_hubs_cache_is_refused(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riskva.jobs.calibrate.locate_model_and_adapter", lambda *_: (exported, None))
    recipe = CalibrateRecipe(
        stage="calibrate", model_name_or_path="someone/model", eval_dataset=("val",), output_dir=tmp_path / "out"
    )
    with pytest.raises(ModelError, match="a model from the hub; download it"):
        temperature_folder(recipe)


def test_a_new_temperature_replaces_the_old_one_and_nothing_else(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = ModelContext.load(exported)
    keep_temperature(exported, 2.0)
    assert "replaces" not in capsys.readouterr().err
    keep_temperature(exported, 1.5)
    assert "replaces the level_temperature 2.000" in capsys.readouterr().err
    after = ModelContext.load(exported)
    assert before is not None
    assert after is not None
    assert after.level_temperature == 1.5
    assert {name for name, value in vars(after).items() if value != vars(before)[name]} == {"level_temperature"}
