import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from user_rows import drawn_conversations

from riskva.encoding import encode, load_processor
from riskva.errors import ModelError
from riskva.modeling.context import ModelContext
from riskva.modeling.export_check import logits_of
from riskva.modeling.loading import (
    attach_adapter,
    load_model,
    load_model_and_adapter,
    locate_adapter,
    locate_model,
    locate_model_and_adapter,
)
from riskva.modeling.tuning import prepare_tuning
from riskva.recipe import SftRecipe


@pytest.fixture
def copied(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def make_adapter(model_folder: Path, target: Path) -> Path:
    keys = SftRecipe(stage="sft", model_name_or_path="m", output_dir=target, dataset=("d",), lora_rank=4)
    prepare_tuning(load_model(model_folder), keys).save_pretrained(target)
    return target


def test_both_layouts_load_to_the_same_model(tiny_model: Path, tiny_model_hub: Path) -> None:
    row = drawn_conversations(1)[0]
    outputs = []
    for folder in (tiny_model, tiny_model_hub):
        processor = load_processor(locate_model(str(folder)))
        outputs.append(logits_of(load_model(folder), encode(row, processor), processor))
    assert outputs[0].equal(outputs[1])


def test_missing_folder_and_unreachable_hub_are_one_line(tmp_path: Path) -> None:
    for name in (str(tmp_path / "nothing"), "./nothing", "nothing"):
        with pytest.raises(ModelError, match="no folder") as caught:
            locate_model(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="cannot be fetched from the hub") as caught:
        locate_model("Qwen/Qwen2.5-VL-7B-Instruct")
    assert "\n" not in str(caught.value)


def test_folder_of_another_kind(copied: Path, tmp_path: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    with pytest.raises(ModelError, match="model_type is 'llama'"):
        locate_model(str(copied))
    adapter = make_adapter_folder(tmp_path / "adapter")
    with pytest.raises(ModelError, match="name it as adapter_name_or_path"):
        locate_model(str(adapter))
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        locate_adapter(str(copied))


def make_adapter_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    return folder


def test_missing_weight_is_an_error_not_a_random_number(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    name = next(name for name in weights if "q_proj.weight" in name)
    save_file(
        {key: value for key, value in weights.items() if key != name}, copied / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ModelError, match=r"1 weights are missing .*q_proj\.weight"):
        load_model(copied)


def test_truncated_weights(copied: Path) -> None:
    data = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(copied)


def test_adapter_whose_names_do_not_fit(tiny_model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    attach_adapter(load_model(tiny_model), adapter)
    weights = load_file(adapter / "adapter_model.safetensors")
    renamed = {name.replace("language_model.layers.0", "layers.0"): tensor for name, tensor in weights.items()}
    save_file(renamed, adapter / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="adapter tensors do not fit the model"):
        attach_adapter(load_model(tiny_model), adapter)


def test_an_adapters_folder_stands_for_both(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    # Without riskva.json PEFT's own file says what the base is
    assert locate_model_and_adapter(str(adapter)) == (tiny_model, adapter)
    monkeypatch.chdir(tiny_model.parent)
    ModelContext(base_model=tiny_model.name).save(adapter)
    assert locate_model_and_adapter(str(adapter)) == (Path(tiny_model.name), adapter)
    assert locate_model_and_adapter(str(tiny_model)) == (tiny_model, None)
    assert locate_model_and_adapter(str(tiny_model), str(adapter)) == (tiny_model, adapter)
    processor, row = load_processor(tiny_model), drawn_conversations(1)[0]
    found = [
        logits_of(model, encode(row, processor), processor)
        for model in (
            load_model_and_adapter(*locate_model_and_adapter(str(adapter))),
            attach_adapter(load_model(tiny_model), adapter),
        )
    ]
    assert found[0].equal(found[1])


def test_an_adapter_whose_base_is_gone_names_file_and_value(tiny_model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "./gone"}))
    with pytest.raises(ModelError, match=r"adapter_config\.json: the adapter's base is \./gone, which is not found"):
        locate_model_and_adapter(str(adapter))
    ModelContext(base_model="./elsewhere").save(adapter)
    with pytest.raises(ModelError, match=r"riskva\.json: the adapter's base is \./elsewhere, which is not found"):
        locate_model_and_adapter(str(adapter))
    (adapter / "riskva.json").unlink()
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(ModelError, match="does not say which base the adapter is for"):
        locate_model_and_adapter(str(adapter))


def test_weights_that_zero3_has_not_gathered(copied: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Whole weights beside the parts are a checkpoint as any other."""
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    for folder in (copied, adapter):
        (folder / "global_step100").mkdir()
    attach_adapter(load_model(locate_model(str(copied))), adapter)
    (copied / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"only ZeRO-3's parts of them in global_step100.*zero_to_fp32\.py"):
        locate_model(str(copied))
    save_file({}, adapter / "adapter_model.safetensors")  # what Trainer leaves of weights that it could not gather
    with pytest.raises(ModelError, match="stage3_gather_16bit_weights_on_model_save: true"):
        attach_adapter(load_model(tiny_model), adapter)


def test_context_round_trip_and_damage(tmp_path: Path) -> None:
    assert ModelContext.load(tmp_path) is None
    context = ModelContext(base_model="m", question="<image>看", image_max_pixels=5000)
    context.save(tmp_path)
    assert ModelContext.load(tmp_path) == context
    values = json.loads((tmp_path / "riskva.json").read_text())
    (tmp_path / "riskva.json").write_text(json.dumps(values | {"image_backend": "torch"}))
    with pytest.raises(ModelError, match="image_backend is 'torch'"):
        ModelContext.load(tmp_path)
    (tmp_path / "riskva.json").write_text('{"base_model": 1')
    with pytest.raises(ModelError, match="damaged"):
        ModelContext.load(tmp_path)
