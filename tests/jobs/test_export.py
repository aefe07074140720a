"""`stage: export` as a user runs it: what it leaves, what it refuses, and that it needs no RisKVA to be used."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from make_tiny_model import build_tiny_model
from peft import PeftModel
from running import riskva_run
from transformers import GenerationConfig
from user_rows import drawn_conversations

from riskva.data.conversation import Photo
from riskva.encoding import encode, load_processor
from riskva.encoding.processor import PROCESSOR_FILES
from riskva.generation.answer import Writer, generation_settings
from riskva.jobs import export
from riskva.modeling.adapted_weights import AdaptedWeights
from riskva.modeling.context import ModelContext
from riskva.modeling.loading import load_model
from riskva.modeling.resolving import asking_of
from riskva.modeling.tuning import prepare_tuning
from riskva.recipe import SftRecipe
from riskva.recipe.key_groups import GenerationKeys

CONTEXT = ModelContext(
    base_model="base",
    system_prompt='你是"检查员"。',
    question="请看<image>这张照片：\n有什么缺陷？",
    image_max_pixels=90_000,
    dataset_fingerprint="abc123",
    level_temperature=1.25,
)


def save_adapter(base: Path, target: Path) -> Path:
    recipe = SftRecipe(stage="sft", model_name_or_path="m", output_dir=target, dataset=("d",), lora_rank=4)
    torch.manual_seed(1)
    model = prepare_tuning(load_model(base), recipe)
    assert isinstance(model, PeftModel)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = 0.05 * torch.randn_like(weight)
    model.save_pretrained(target)
    CONTEXT.save(target)
    return target


@pytest.fixture(scope="module")
def adapter(tiny_model_hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tiny_model_hub, tmp_path_factory.mktemp("trained") / "sft")


def run(base: Path, adapter: Path, out: Path, *more: str) -> int:
    places = (f"model_name_or_path={base}", f"adapter_name_or_path={adapter}", f"export_dir={out}")
    return riskva_run("export.yaml", *places, *more)


@pytest.fixture(scope="module")
def exported(tiny_model_hub: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "merged"
    assert run(tiny_model_hub, adapter, out) == 0
    return out


def test_all_that_loading_needs_is_there(exported: Path, tiny_model_hub: Path) -> None:
    names = {path.name for path in exported.iterdir()}
    wanted = {name for name in PROCESSOR_FILES if (tiny_model_hub / name).is_file()}
    others = {"config.json", "generation_config.json", "model.safetensors", "riskva.json", "recipe.yaml", "README.md"}
    assert names - {".lock"} == wanted | others
    for name in (*wanted, "config.json"):
        assert (exported / name).read_bytes() == (tiny_model_hub / name).read_bytes()
    context = ModelContext.load(exported)
    assert context is not None
    assert context.base_model == str(tiny_model_hub)
    assert context.question == CONTEXT.question


def test_it_generates_greedily_and_without_warnings(exported: Path, tiny_model_hub: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings = GenerationConfig.from_pretrained(exported)
        settings.validate(strict=True)
    tokenizer = load_processor(tiny_model_hub).tokenizer
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    written = json.loads((exported / "generation_config.json").read_text())
    del written["transformers_version"]
    assert written == {"do_sample": False, "eos_token_id": ends, "pad_token_id": ends[1]}
    assert settings.repetition_penalty in (None, 1.0)


def test_the_card_says_what_the_model_is(exported: Path, tiny_model_hub: Path, adapter: Path) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "language": ["zh"],
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "base_model": str(tiny_model_hub),
        "tags": ["qwen2_5_vl", "riskva"],
    }
    for said in (
        str(adapter),
        "AI 辅助，不替代鉴定",
        "请看<image>这张照片",
        "between 3136 and 90000 pixels",
        "`abc123`",
        "| 1.25 |",
        "**风险等级**: …",
        "float32",
        "of the largest logit",
    ):
        assert said in body
    assert "$" not in body


@pytest.mark.slow
def test_the_cards_code_answers_as_riskva_without_riskva(exported: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(drawn_conversations(1)[0].photos[0].read())
    card = (exported / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    asserts = "import sys\nassert not [name for name in sys.modules if name.split('.')[0] in ('riskva', 'peft')]\n"
    ran = subprocess.run(
        [sys.executable, "-c", code[1] + asserts],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "generation flags are not valid" not in ran.stderr
    processor = load_processor(exported, CONTEXT.image_max_pixels, CONTEXT.image_min_pixels)
    writer = Writer(load_model(exported), processor, generation_settings(GenerationKeys(), processor))
    prompt = asking_of(CONTEXT).conversation(Photo(path=photo), "1")
    (answer,) = writer([encode(prompt, processor)])
    assert len(answer.text) > 20
    assert ran.stdout == answer.text + "\n"


def test_an_adapter_of_another_base_writes_nothing(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, shape in (("wider", {"hidden_size": 96}), ("shallower", {"num_hidden_layers": 1})):
        base = build_tiny_model(tmp_path / name, **shape)  # type: ignore[arg-type]
        assert run(base, adapter, tmp_path / "out") == 1
        assert "adapter tensors do not fit the model" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_a_base_without_processor_files_writes_nothing(
    tiny_model: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for lost in ("tokenizer.json", "processor_config.json"):
        base = Path(shutil.copytree(tiny_model, tmp_path / f"without {lost}"))
        (base / lost).unlink()
        assert run(base, adapter, tmp_path / "out") == 1
        said = capsys.readouterr().err
        assert str(base) in said
        assert "Traceback" not in said
        assert not (tmp_path / "out").exists()


def test_a_full_disk_is_told_before(
    tiny_model: Path,
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(export, "free_bytes", lambda path: 1000)
    assert run(tiny_model, adapter, tmp_path / "out") == 2
    assert "0.0 GB are free there; make room" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("moment", ["while merging", "while checking", "while giving names", "before the last file"])
def test_a_killed_export_leaves_nothing_that_loads_and_runs_again(
    moment: str, tiny_model: Path, adapter: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    def die_at_config(self: Path, target: Path) -> Path:
        if self.name == "config.json":
            raise KeyboardInterrupt
        return Path(shutil.move(self, target))

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        if moment == "before the last file":
            patched.setattr(ModelContext, "save", die)
        elif moment == "while giving names":
            patched.setattr(Path, "replace", die_at_config)
        else:
            place = (AdaptedWeights, "merged") if moment == "while merging" else (export, "check_weights")
            patched.setattr(*place, die)
        try:
            status = run(tiny_model, adapter, out)
        except KeyboardInterrupt:
            status = 130
    assert status != 0
    assert (out / "config.json").exists() is (moment == "before the last file")  # all others are there by then
    assert not (out / "riskva.json").exists()
    assert run(tiny_model, adapter, out) == 0
    assert not (out / "unchecked").exists()
    weights = [path.name for path in out.glob("*.safetensors")]
    assert weights == ["model.safetensors"]
    assert (out / weights[0]).read_bytes() == (exported / weights[0]).read_bytes()


def test_the_plan_counts_what_would_be_merged(
    tiny_model: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_model, adapter, tmp_path / "out", "--dry-run") == 0
    assert re.search(r"merge .* into 14 of the \d+ tensors of", capsys.readouterr().out)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["export_quantization_bit=4", "export_quantization_dataset=c4.json"])
def test_quantizing_is_refused_in_words(
    key: str, tiny_model: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_model, adapter, tmp_path / "out", key) == 2
    assert "LLaMA-Factory knows this key, RisKVA does not" in capsys.readouterr().err
