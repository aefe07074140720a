"""What a model was taught decides, and a recipe that says otherwise is told so."""

import shutil
from pathlib import Path

import pytest

from riskva.data.manifest import Manifest
from riskva.errors import ModelError, RecipeError
from riskva.modeling.context import ModelContext
from riskva.modeling.resolving import asking_of, resolve_context
from riskva.preparation.recipe_readings import prompt_of
from riskva.recipe import PrepareRecipe
from riskva.recipe.key_groups import AnswerKeys, ModelKeys, ReportKeys
from riskva.report import DEFAULT_FORMAT, DEFAULT_SYSTEM_PROMPT, ReportField, ReportFormat, default_question

FIVE_FIELDS = ReportFormat((*DEFAULT_FORMAT.fields, ReportField("位置信息", "位置", default="未知")))
ANSWER_FIELDS = tuple(
    {"label": one.label, "column": one.column, "default": one.default, "is_level": one.is_level}
    for one in FIVE_FIELDS.fields
)
TAUGHT = "<image>有什么缺陷？"


@pytest.fixture
def adapter(tmp_path: Path, tiny_model: Path) -> Path:
    (tmp_path / "adapter_config.json").write_text("{}")
    taught = ModelContext(str(tiny_model), system_prompt="你是检查员。", question=TAUGHT, image_max_pixels=50176)
    taught.save(tmp_path)
    return tmp_path


def keys(model: Path, **more: object) -> ModelKeys:
    return ModelKeys.model_validate({"model_name_or_path": str(model)} | more)


def report_keys(**values: object) -> ReportKeys:
    return ReportKeys.model_validate(values)


def test_the_adapters_context_decides(adapter: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = resolve_context(keys(tiny_model, adapter_name_or_path=str(adapter)), adapter, report_keys())
    assert context.image_max_pixels == 50176
    assert (asking_of(context).system_prompt, asking_of(context).question) == ("你是检查员。", TAUGHT)
    assert capsys.readouterr().err == ""


def test_a_recipe_that_contradicts_it_wins_and_both_values_are_named(
    adapter: Path, tiny_model: Path, tiny_model_hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = keys(tiny_model, adapter_name_or_path=str(adapter), image_max_pixels=100352)
    context = resolve_context(loud, adapter, AnswerKeys.model_validate({"answer_fields": ANSWER_FIELDS}))
    assert (context.image_max_pixels, context.report_format) == (100352, FIVE_FIELDS)
    said = capsys.readouterr().err
    assert "100352" in said
    assert "50176" in said
    assert "位置信息" in said
    resolve_context(keys(tiny_model_hub, adapter_name_or_path=str(adapter)), adapter)
    said = capsys.readouterr().err
    assert str(tiny_model_hub) in said
    assert str(tiny_model) in said


def test_a_recipes_own_prompt_wins_and_gets_its_mark(
    adapter: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = keys(tiny_model, adapter_name_or_path=str(adapter))
    asking = asking_of(resolve_context(own, adapter, report_keys(question="哪里裂了？", system_prompt="")))
    assert (asking.system_prompt, asking.question) == (None, "<image>哪里裂了？")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert any("哪里裂了" in line and TAUGHT in line for line in said)
    assert any("says none" in line and "你是检查员。" in line for line in said)
    resolve_context(own, adapter, report_keys(question=TAUGHT))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("wrong", [{"question": "<image>和<image>"}, {"system_prompt": "<|im_end|>"}])
def test_a_question_that_no_photo_can_be_asked_is_refused(tiny_model: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match="question and system_prompt"):
        resolve_context(keys(tiny_model), None, report_keys(**wrong))


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
    first, second = capsys.readouterr().err.splitlines()
    assert "default form" in first
    assert f"the form of {tmp_path}/manifest.json" in second


def test_without_riskva_json_one_warning_says_so_and_photos_are_asked_as_prepare_words_it(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = resolve_context(keys(tiny_model), None, report_keys())
    assert (context.question, context.system_prompt) == (None, None)
    (said,) = capsys.readouterr().err.splitlines()
    assert f"{tiny_model}: no riskva.json" in said
    assert "built-in prompt" in said
    recipe = {"stage": "prepare", "csv_path": "a.csv", "image_base_path": ".", "output_dir": "out"}
    prepared = prompt_of(PrepareRecipe.model_validate(recipe))
    assert (asking_of(context).system_prompt, asking_of(context).question) == (prepared.system, prepared.question)


def test_without_riskva_json_the_recipes_own_prompt_and_form_are_used(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asking = asking_of(resolve_context(keys(tiny_model), None, report_keys(question="看图<image>回答")))
    assert (asking.system_prompt, asking.question) == (DEFAULT_SYSTEM_PROMPT, "看图<image>回答")
    assert "the recipe's prompt" in capsys.readouterr().err
    context = resolve_context(keys(tiny_model), None, report_keys(answer_fields=ANSWER_FIELDS, system_prompt="简答。"))
    assert "form of answer_fields" in capsys.readouterr().err
    assert asking_of(context).question == "<image>" + default_question(FIVE_FIELDS)
    assert asking_of(context).system_prompt == "简答。"


def test_a_merged_model_copied_with_its_context_is_asked_as_taught(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = shutil.copytree(tiny_model, tmp_path / "merged")
    ModelContext("base", question=TAUGHT).save(merged)
    asking = asking_of(resolve_context(keys(merged), None, report_keys()))
    assert (asking.question, asking.system_prompt) == (TAUGHT, None)  # taught without a system prompt, told none
    assert capsys.readouterr().err == ""
    resolve_context(keys(merged), None, report_keys(system_prompt=""))
    assert capsys.readouterr().err == ""
    resolve_context(keys(merged), None, report_keys(system_prompt="你好"))
    assert "trained with none" in capsys.readouterr().err


def test_rows_that_were_asked_in_many_ways_leave_the_question_open(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = shutil.copytree(tiny_model, tmp_path / "merged")
    ModelContext("base").save(merged)
    context = resolve_context(keys(merged), None, report_keys())
    assert (context.question, asking_of(context).system_prompt) == (None, DEFAULT_SYSTEM_PROMPT)
    own = resolve_context(keys(merged), None, report_keys(question="看<image>"))
    assert (own.question, own.system_prompt) == ("看<image>", DEFAULT_SYSTEM_PROMPT)
    assert capsys.readouterr().err == ""


def test_a_question_about_two_photos_cannot_be_asked_of_one() -> None:
    with pytest.raises(RecipeError, match="set question in the recipe"):
        asking_of(ModelContext("base", question="<image><image>比较"))


def test_a_damaged_riskva_json_is_no_missing_one(tiny_model: Path, tmp_path: Path) -> None:
    merged = shutil.copytree(tiny_model, tmp_path / "merged")
    (merged / "riskva.json").write_text('{"base_model": ')
    with pytest.raises(ModelError, match="damaged"):
        resolve_context(keys(merged), None, report_keys())
