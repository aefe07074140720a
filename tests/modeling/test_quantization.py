"""What 4 bits are for, where they are refused, and, on a GPU with bitsandbytes, a step over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers.quantizers.quantizers_utils import should_convert_module
from transformers.utils.import_utils import is_bitsandbytes_available
from user_rows import drawn_conversations

from riskva.encoding import PackedCollator, encode, load_processor
from riskva.errors import RecipeError
from riskva.modeling import quantization
from riskva.modeling.adapted_weights import AdaptedWeights
from riskva.modeling.export_check import check_weights
from riskva.modeling.loading import load_model
from riskva.modeling.merging import merge_and_save
from riskva.modeling.quantization import BITS_PER_WEIGHT, num_values, quantization_config, require_quantization
from riskva.modeling.tuning import num_weights, prepare_tuning
from riskva.recipe import SftRecipe


def recipe(**keys: Any) -> SftRecipe:
    return SftRecipe(stage="sft", model_name_or_path="m", output_dir=Path("o"), dataset=("d",), **keys)


def test_the_configuration_is_qloras() -> None:
    config = quantization_config(recipe(quantization_bit=4), torch.bfloat16)
    assert config is not None
    assert config.quantization_method() == "nf4"
    assert config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert quantization_config(recipe(), torch.bfloat16) is None


def test_the_language_models_linear_layers_are_quantized_and_nothing_else(tiny_model: Path) -> None:
    config = quantization_config(recipe(quantization_bit=4), torch.float32)
    assert config is not None
    linear = {name for name, module in load_model(tiny_model).named_modules() if isinstance(module, nn.Linear)}
    quantized = {name for name in linear if should_convert_module(name, config.llm_int8_skip_modules)}
    assert quantized == {name for name in linear if name.startswith("model.language_model.layers.")}
    assert {"lm_head", "model.visual.blocks.0.attn.qkv", "model.visual.merger.mlp.0"} <= linear - quantized


def test_without_the_key_nothing_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    require_quantization(recipe())  # raises nothing where there is neither a GPU nor bitsandbytes
    assert quantization_config(recipe(), torch.bfloat16) is None


def test_a_machine_without_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match=r"^quantization_bit: needs an NVIDIA GPU, .* or set quantization_bit: null$"):
        require_quantization(recipe(quantization_bit=4))


def test_a_missing_bitsandbytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(quantization, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(RecipeError, match=r"needs bitsandbytes .*; pip install -e '\.\[qlora\]', or set"):
        require_quantization(recipe(quantization_bit=4))


@pytest.mark.parametrize(("stage", "fits"), [(2, True), (3, False)])
def test_zero_3_is_refused(stage: int, fits: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(quantization, "is_bitsandbytes_available", lambda: True)
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    asked = recipe(quantization_bit=4, training={"deepspeed": str(path)})
    if fits:
        require_quantization(asked)
    else:
        with pytest.raises(RecipeError, match="ZeRO-3 cannot split weights of 4 bits"):
            require_quantization(asked)


def test_weights_are_counted_whole() -> None:
    packed, split = nn.Parameter(torch.zeros(32, 1)), nn.Parameter(torch.zeros(0))
    packed.quant_state = type("State", (), {"shape": torch.Size([8, 8])})  # type: ignore[attr-defined]
    split.ds_numel = 12  # type: ignore[attr-defined]
    assert [num_values(one) for one in (packed, split, nn.Parameter(torch.zeros(3, 3)))] == [64, 12, 9]


def test_the_constants_take_what_the_paper_says() -> None:
    assert pytest.approx(0.127, abs=1e-3) == BITS_PER_WEIGHT - 4  # arXiv 2305.14314, section 3


needs_gpu = pytest.mark.skipif(
    not (torch.cuda.is_available() and is_bitsandbytes_available()), reason="needs a CUDA device and bitsandbytes"
)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("use_dora", [False, True])
def test_a_step_over_four_bits_trains_an_adapter_for_the_whole_weights(
    use_dora: bool, tiny_model: Path, tmp_path: Path
) -> None:
    asked = recipe(quantization_bit=4, lora_rank=4, use_dora=use_dora)
    require_quantization(asked)
    model = load_model(tiny_model, torch.bfloat16, quantization_config=quantization_config(asked, torch.bfloat16))
    whole = load_model(tiny_model)
    tuned = prepare_tuning(model, asked).train()
    trains, total = num_weights(tuned)
    assert total - trains == sum(weight.numel() for weight in whole.parameters())
    assert {weight.dtype for weight in tuned.parameters() if weight.requires_grad} == {torch.float32}
    processor = load_processor(tiny_model)
    batch = PackedCollator(processor)([encode(one, processor) for one in drawn_conversations(2)])
    batch = {name: value.to(model.device) for name, value in batch.items()}
    optimizer = torch.optim.AdamW([weight for weight in tuned.parameters() if weight.requires_grad], lr=1e-2)
    losses = []
    for _ in range(3):
        with torch.autocast(model.device.type, torch.bfloat16):
            losses.append(tuned(**batch).sums.sum() / batch["labels"].shape[1])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[2] < losses[0]
    tuned.save_pretrained(tmp_path / "adapter")
    merge_and_save(AdaptedWeights.of(tiny_model, tmp_path / "adapter"), tmp_path / "merged", 10**9)
    check_weights(tmp_path / "merged", AdaptedWeights.of(tiny_model, tmp_path / "adapter"))
