"""The counts from shapes are PyTorch's own, and at the published shapes a step stays within its bounds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from count_flops import (
    BOUNDS,
    LENGTH,
    NUM_SUPERVISED,
    PUBLISHED,
    attention_calls,
    counting_on_meta,
    lora_recipe,
    packed_batch,
    photo_grid,
    published_config,
    riskva_model,
)
from transformers import Qwen2_5_VLConfig

from riskva.modeling.flops import Batch, head_flops, language_flops, model_flops, step_flops, tower_flops
from riskva.modeling.loading import load_model
from riskva.modeling.shapes import shapes_of
from riskva.modeling.tuning import num_weights, prepare_tuning

PHOTO = (168, 252)
"""12 x 18 patches: windows of 8 x 8, 8 x 2, 4 x 8 and 4 x 2."""
LENGTHS = (90, 40)
NUM_ANSWER = 70


def small_config(**keys: Any) -> Qwen2_5_VLConfig:
    """Three layers, two blocks, and no two sizes alike."""
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 500,
            "hidden_size": 96,
            "intermediate_size": 200,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_window_layers": 3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            "bos_token_id": 1,
            "eos_token_id": 1,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 120,
            "num_heads": 4,
            "out_hidden_size": 96,
            "fullatt_block_indexes": [1],
        },
        image_token_id=5,
        **keys,
    )


def counted(config: Any, num_checkpointed: int, keys: dict[str, Any], is_cached: bool = False) -> int:
    """PyTorch's count of a step."""
    model = riskva_model(config, num_checkpointed, lora_recipe(**keys))
    batch = packed_batch(config, LENGTHS, NUM_ANSWER, is_cached, PHOTO)
    with counting_on_meta() as counter:
        torch.autograd.backward(model(**batch).sums.sum())
    return int(counter.get_total_flops())


TUNINGS: dict[str, dict[str, Any]] = {
    "lora": {"lora_rank": 8},
    "some modules": {"lora_rank": 8, "lora_target": ("q_proj", "k_proj", "v_proj", "o_proj")},
    "lora on the tower": {"lora_rank": 8, "freeze_vision_tower": False, "freeze_multi_modal_projector": False},
    "full": {"finetuning_type": "full"},
    "all of it": {"finetuning_type": "full", "freeze_vision_tower": False, "freeze_multi_modal_projector": False},
    "the merger": {"finetuning_type": "full", "freeze_multi_modal_projector": False},
    "last layer": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "first layer": {"finetuning_type": "freeze", "freeze_trainable_layers": -1},
}


@pytest.mark.parametrize("num_checkpointed", [0, 1, 3])
@pytest.mark.parametrize("keys", TUNINGS.values(), ids=TUNINGS)
def test_a_step_is_what_pytorch_counts(keys: dict[str, Any], num_checkpointed: int) -> None:
    config = small_config()
    shapes = shapes_of(config, lora_recipe(**keys))
    batch = Batch(LENGTHS, NUM_ANSWER, [photo_grid(PHOTO)])
    assert counted(config, num_checkpointed, keys) == step_flops(shapes, batch, num_checkpointed)


def test_forward_alone_is_what_pytorch_counts() -> None:
    config = small_config()
    shapes = shapes_of(config, lora_recipe(lora_rank=8))
    supervised = [0] * (len(LENGTHS) - 1) + [NUM_ANSWER]
    forward = sum(language_flops(shapes, *one) for one in zip(LENGTHS, supervised, strict=True))
    forward += tower_flops(shapes, photo_grid(PHOTO))
    model, batch = riskva_model(config, 0, lora_recipe(lora_rank=8)), packed_batch(config, LENGTHS, 70, False, PHOTO)
    with torch.no_grad(), counting_on_meta() as counter:
        model(**batch)
    assert counter.get_total_flops() == forward + head_flops(shapes, NUM_ANSWER)


def test_cached_photos_cost_nothing_in_the_tower() -> None:
    config = small_config()
    shapes = shapes_of(config, lora_recipe(lora_rank=8))
    assert counted(config, 0, {"lora_rank": 8}, is_cached=True) == step_flops(shapes, Batch(LENGTHS, NUM_ANSWER))


@pytest.mark.parametrize(("kind", "times"), [("lora", 0), ("full", 1)])
def test_what_is_computed_twice_is_not_needed(kind: str, times: int) -> None:
    shapes = shapes_of(small_config(), lora_recipe(finetuning_type=kind))
    batch = Batch(LENGTHS, NUM_ANSWER, [photo_grid(PHOTO)])
    assert model_flops(shapes, batch) == step_flops(shapes, batch) - times * head_flops(shapes, NUM_ANSWER)
    assert step_flops(shapes, batch, 3) > step_flops(shapes, batch, 1) > step_flops(shapes, batch)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("keys", TUNINGS.values(), ids=TUNINGS)
def test_weights_are_those_of_the_model(keys: dict[str, Any], tied: bool) -> None:
    config = small_config(tie_word_embeddings=tied)
    shapes = shapes_of(config, lora_recipe(**keys))
    model = riskva_model(config, 0, lora_recipe(**keys))
    assert (shapes.num_trained, shapes.num_weights) == num_weights(model)


@pytest.mark.parametrize("name", PUBLISHED)
def test_bounds_at_published_shapes(name: str) -> None:
    shapes = shapes_of(published_config(name), lora_recipe())
    layers, grid = len(shapes.layers), photo_grid()
    # transformers' loop without its backward pass through the frozen tower: the logits of all positions
    plain = step_flops(shapes, Batch([LENGTH], LENGTH, [grid]), layers)
    cached = Batch([LENGTH], NUM_SUPERVISED)
    assert step_flops(shapes, cached, layers) / plain <= BOUNDS[name].checkpointed
    assert step_flops(shapes, cached) / plain <= BOUNDS[name].not_checkpointed


def test_tower_calls_attention_less_than_a_hundred_times() -> None:
    config = published_config("3B", num_layers=1, num_blocks=8)
    calls = attention_calls(riskva_model(config, 0))
    windowed, full = 28, 4
    assert (calls - 1) / 7 * windowed + full <= BOUNDS["3B"].attention_calls  # block 7 attends to the whole photo


def test_adapter_that_is_trained_on_says_itself_what_it_is(tiny_model: Path, tmp_path: Path) -> None:
    keys = {"lora_rank": 4, "lora_target": ("q_proj", "down_proj")}
    prepare_tuning(load_model(tiny_model), lora_recipe(**keys)).save_pretrained(tmp_path)
    goes_on = lora_recipe(lora_rank=64, adapter_name_or_path=str(tmp_path))
    shapes = shapes_of(Qwen2_5_VLConfig.from_pretrained(tiny_model), goes_on)
    assert (shapes.num_trained, shapes.num_weights) == num_weights(prepare_tuning(load_model(tiny_model), goes_on))
