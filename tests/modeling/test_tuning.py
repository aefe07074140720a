"""Exactly the recipe's weights train, and a frozen tower costs no backward pass."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from user_rows import drawn_conversations

from riskva.encoding import PackedCollator, Processor, encode, load_processor
from riskva.errors import RecipeError
from riskva.modeling.loading import load_model
from riskva.modeling.tuning import num_weights, prepare_tuning
from riskva.recipe import SftRecipe
from riskva.training.trainer import sample_losses


def recipe(**keys: Any) -> SftRecipe:
    return SftRecipe(stage="sft", model_name_or_path="m", output_dir=Path("o"), dataset=("d",), **keys)


def trainable(model: torch.nn.Module) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("target", [("all",), ("q_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj")])
def test_lora_stays_in_the_language_model(target: tuple[str, ...], tiny_model: Path) -> None:
    names = trainable(prepare_tuning(load_model(tiny_model), recipe(lora_target=target, lora_rank=4)))
    assert names
    assert all("language_model" in name and "lora_" in name for name in names)
    leaves = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in names}
    everything = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert leaves == (everything if target == ("all",) else set(target))


def test_lora_reaches_the_vision_tower_when_it_is_not_frozen(tiny_model: Path) -> None:
    keys = recipe(lora_target=("q_proj", "gate_proj"), freeze_vision_tower=False, freeze_multi_modal_projector=False)
    names = trainable(prepare_tuning(load_model(tiny_model), keys))
    assert any("visual.blocks.0.attn.qkv.lora_A" in name for name in names)
    assert any("visual.blocks.0.mlp.gate_proj.lora_A" in name for name in names)
    assert any("visual.merger.mlp.0.lora_A" in name for name in names)
    assert not any("visual.blocks.0.mlp.up_proj" in name for name in names)


def test_misspelt_target_names_the_choices(tiny_model: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"lora_target: q_porj names no trainable module; there are: all, down_proj, gate_proj"
    ):
        prepare_tuning(load_model(tiny_model), recipe(lora_target=("q_porj", "v_proj")))


@pytest.mark.parametrize(
    ("keys", "part", "trains"),
    [
        ({"finetuning_type": "full"}, "visual", False),
        ({"finetuning_type": "full"}, "language_model", True),
        ({"finetuning_type": "full"}, "lm_head", True),
        ({"finetuning_type": "full", "freeze_vision_tower": False}, "visual.blocks", True),
        ({"finetuning_type": "full", "freeze_vision_tower": False}, "visual.merger", False),
        ({"finetuning_type": "full", "freeze_multi_modal_projector": False}, "visual.merger", True),
        ({"finetuning_type": "freeze", "freeze_trainable_layers": 1}, "language_model.layers.0.", False),
        ({"finetuning_type": "freeze", "freeze_trainable_layers": -1}, "language_model.layers.0.", True),
        ({"finetuning_type": "freeze"}, "embed_tokens", False),
    ],
)
def test_full_and_freeze_tuning(keys: dict[str, Any], part: str, trains: bool, tiny_model: Path) -> None:
    model = prepare_tuning(load_model(tiny_model), recipe(**keys))
    of_part = [weight.requires_grad for name, weight in model.named_parameters() if part in name]
    assert of_part
    assert all(grad is trains for grad in of_part)


def test_trainable_weights_are_float32_over_a_bfloat16_base(tiny_model: Path) -> None:
    for kind in ("lora", "full"):
        model = prepare_tuning(load_model(tiny_model, torch.bfloat16), recipe(finetuning_type=kind))
        dtypes = {weight.dtype for weight in model.parameters() if weight.requires_grad}
        assert dtypes == {torch.float32}
        assert any(weight.dtype == torch.bfloat16 for weight in model.parameters())


@pytest.mark.parametrize(("use_rslora", "scale"), [(False, 2.0), (True, 4.0)])
def test_rslora_scales_by_the_root_of_the_rank(use_rslora: bool, scale: float, tiny_model: Path) -> None:
    model = prepare_tuning(load_model(tiny_model), recipe(lora_rank=4, lora_alpha=8, use_rslora=use_rslora))
    scales = {layer.scaling["default"] for layer in model.modules() if isinstance(layer, LoraLayer)}
    assert scales == {scale}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_new_dora_adapter_changes_nothing(dtype: torch.dtype, tiny_model: Path) -> None:
    ids = torch.randint(0, 1000, (1, 16))
    base = load_model(tiny_model, dtype).eval()(input_ids=ids).logits
    model = prepare_tuning(load_model(tiny_model, dtype), recipe(lora_rank=4, use_dora=True)).eval()
    magnitudes = {name for name in trainable(model) if "lora_magnitude_vector" in name}
    assert len(magnitudes) == len({name for name in trainable(model) if "lora_B" in name})
    # Lengths and quotients are rounded in float32; PEFT's own magnitudes were measured at 1e-2 over bfloat16.
    assert (model(input_ids=ids).logits - base).abs().max() <= 1e-6 * base.abs().max()


def test_dora_trains_its_magnitudes(tiny_model: Path) -> None:
    model = prepare_tuning(load_model(tiny_model), recipe(lora_rank=4, use_dora=True)).train()
    ids = torch.randint(0, 1000, (1, 16))
    model(input_ids=ids, labels=ids).loss.backward()
    magnitudes = [weight for name, weight in model.named_parameters() if "lora_magnitude_vector" in name]
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in magnitudes)


def test_an_adapter_keeps_its_form(tiny_model: Path, tmp_path: Path) -> None:
    prepare_tuning(load_model(tiny_model), recipe(lora_rank=4)).save_pretrained(tmp_path)
    for key in ("use_dora", "use_rslora"):
        with pytest.raises(RecipeError, match=rf"^{key}: .* was begun without it"):
            prepare_tuning(load_model(tiny_model), recipe(adapter_name_or_path=str(tmp_path), **{key: True}))
    assert prepare_tuning(load_model(tiny_model), recipe(adapter_name_or_path=str(tmp_path)))


def test_a_dora_adapter_is_trained_on(tiny_model: Path, tmp_path: Path) -> None:
    begun = prepare_tuning(load_model(tiny_model), recipe(lora_rank=4, use_dora=True))
    for weight in begun.parameters():
        if weight.requires_grad:
            weight.data += 0.01
    begun.save_pretrained(tmp_path)
    again = prepare_tuning(load_model(tiny_model), recipe(adapter_name_or_path=str(tmp_path), use_dora=True))
    found = {name: weight for name, weight in again.named_parameters() if weight.requires_grad}
    expected = {name: weight for name, weight in begun.named_parameters() if weight.requires_grad}
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_counts(tiny_model: Path) -> None:
    model = prepare_tuning(load_model(tiny_model), recipe(lora_rank=4))
    trains, total = num_weights(model)
    assert total == sum(weight.numel() for weight in model.parameters())
    assert 0 < trains < total


class BackwardCounter:
    """Counts how often gradients flow out of the vision tower's blocks."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.calls = 0
        blocks = [module for name, module in model.named_modules() if name.endswith("visual.blocks.0")]
        assert len(blocks) == 1
        blocks[0].register_full_backward_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.calls += 1


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_tower_runs_no_backward_under_gradient_checkpointing(
    freeze: bool, tiny_model: Path, processor: Processor
) -> None:
    model = prepare_tuning(load_model(tiny_model), recipe(lora_rank=4, freeze_vision_tower=freeze))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()  # what PEFT and Trainer do; in transformers 5 it hooks the tower as well
    counter = BackwardCounter(model)
    sums, _ = sample_losses(model.train(), PackedCollator(processor)([encode(drawn_conversations(1)[0], processor)]))
    sums.sum().backward()
    assert (counter.calls == 0) is freeze
    gradients = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert gradients == trainable(model)


@pytest.fixture(scope="module")
def processor(tiny_model: Path) -> Processor:
    return load_processor(tiny_model)
