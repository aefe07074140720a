"""What a model was taught decides, and a recipe that says otherwise is told so."""

from pathlib import Path

import pytest

from riskva.data.manifest import Manifest
from riskva.modeling.context import ModelContext
from riskva.modeling.resolving import resolve_context
from riskva.recipe.stages import ModelKeys
from riskva.report import DEFAULT_FORMAT, ReportField, ReportFormat

FIVE_FIELDS = ReportFormat((*DEFAULT_FORMAT.fields, ReportField("位置信息", "位置", default="未知")))


@pytest.fixture
def adapter(tmp_path: Path, tiny_model: Path) -> Path:
    (tmp_path / "adapter_config.json").write_text("{}")
    ModelContext(base_model=str(tiny_model), image_max_pixels=50176).save(tmp_path)
    return tmp_path


def keys(model: Path, **more: object) -> ModelKeys:
    return ModelKeys.model_validate({"model_name_or_path": str(model)} | more)


def test_the_adapters_context_decides(adapter: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = resolve_context(keys(tiny_model, adapter_name_or_path=str(adapter)), adapter)
    assert context.image_max_pixels == 50176
    assert capsys.readouterr().err == ""


def test_a_recipe_that_contradicts_it_wins_and_both_values_are_named(
    adapter: Path, tiny_model: Path, tiny_model_hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = keys(tiny_model, adapter_name_or_path=str(adapter), image_max_pixels=100352)
    context = resolve_context(loud, adapter, FIVE_FIELDS)
    assert (context.image_max_pixels, context.report_format) == (100352, FIVE_FIELDS)
    said = capsys.readouterr().err
    assert "100352" in said
    assert "50176" in said
    assert "位置信息" in said
    resolve_context(keys(tiny_model_hub, adapter_name_or_path=str(adapter)), adapter)
    said = capsys.readouterr().err
    assert str(tiny_model_hub) in said
    assert str(tiny_model) in said


def test_a_base_model_answers_in_the_datas_form(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resolve_context(keys(tiny_model, image_max_pixels=12544), tmp_path).report_format == DEFAULT_FORMAT

    def manifest_of(folder: Path) -> Manifest:
        manifest = object.__new__(Manifest)
        object.__setattr__(manifest, "report_format", FIVE_FIELDS)
        return manifest

    monkeypatch.setattr("riskva.modeling.resolving.read_manifest", manifest_of)
    context = resolve_context(keys(tiny_model, image_max_pixels=12544), tmp_path)
    assert (context.report_format, context.image_max_pixels) == (FIVE_FIELDS, 12544)
    assert capsys.readouterr().err == ""
