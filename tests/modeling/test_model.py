"""RisKVA's model class against transformers' own: what its tower, attention and answers are, and what it saves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from make_tiny_model import build_tiny_model
from mixed_samples import PHOTO_SIZES, mixed_conversations
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLAttention
from user_rows import drawn_photo

from riskva.data.conversation import Conversation, Message
from riskva.encoding import IGNORED, Collator, Encoded, PackedCollator, Processor, encode, load_processor
from riskva.modeling.loading import load_model
from riskva.modeling.model import BatchedVisionAttention, PackedAttention
from riskva.training.trainer import sample_losses

Theirs = transformers.Qwen2_5_VLForConditionalGeneration


@pytest.fixture(scope="module")
def processor(tiny_model: Path) -> Processor:
    return load_processor(tiny_model)


@pytest.fixture(scope="module")
def rows(processor: Processor) -> list[Encoded]:
    return [encode(conversation, processor) for conversation in mixed_conversations()]


class AttentionCalls(TorchFunctionMode):
    """Counts calls of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += func is torch.nn.functional.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


def photo_rows(processor: Processor, *sizes: tuple[int, int]) -> list[Encoded]:
    turns = (Message("user", "<image>"), Message("assistant", "好"))
    photos = [drawn_photo(number, *size) for number, size in enumerate(sizes)]
    return [encode(Conversation(photo.name, turns, (photo,)), processor) for photo in photos]


@pytest.mark.parametrize("window_size", [56, 112])
@pytest.mark.parametrize("trains", [False, True])
def test_the_tower_sees_what_transformers_own_sees(
    trains: bool, window_size: int, processor: Processor, tmp_path: Path
) -> None:
    folder = build_tiny_model(tmp_path, window_size=window_size, vision_depth=3)
    ours, theirs = load_model(folder), Theirs.from_pretrained(folder)
    rows = photo_rows(processor, *PHOTO_SIZES, (280, 224))
    batch = PackedCollator(processor)(rows)
    seen: list[Tensor] = []
    ours.keep_features = lambda _, features: seen.extend(features)
    ours.model.visual.requires_grad_(trains)
    sample_losses(ours, batch | {"photo_keys": [row.id for row in rows], "has_features": [False] * len(rows)})
    expected = theirs.model.get_image_features(batch["pixel_values"], batch["image_grid_thw"]).pooler_output
    assert len(seen) == len(expected) == len(rows)
    for one, other in zip(seen, expected, strict=True):
        # Measured: at most 2e-6 apart, of values of up to 3.
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert one.requires_grad is trains


def test_windows_of_all_photos_take_few_calls(processor: Processor, tiny_model: Path) -> None:
    """transformers calls attention for each of 56 windows in the first block, and for each photo in the second."""
    sizes = [(280, 224), (140, 196), (224, 280), (84, 84)]
    batch = PackedCollator(processor)(photo_rows(processor, *sizes))
    images = {name: batch[name] for name in ("pixel_values", "image_grid_thw")}
    with torch.no_grad(), AttentionCalls() as ours:
        load_model(tiny_model)._encoded(**images)
    theirs_model = Theirs.from_pretrained(tiny_model)
    with torch.no_grad(), AttentionCalls() as theirs:
        theirs_model.model.get_image_features(**images)
    assert theirs.calls == 56 + 4
    assert ours.calls <= 4 + 4  # windows have one of four sizes


def dense_mask(bounds: Tensor) -> Tensor:
    """(1, 1, L, L): 0 where a place sees another, the lowest number elsewhere."""
    segment = torch.bucketize(torch.arange(int(bounds[-1])), bounds[1:], right=True)
    sees = (segment[:, None] == segment[None]).tril()
    return torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)[None, None]


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_within_samples_is_transformers_own_with_a_mask(
    implementation: str, processor: Processor, rows: list[Encoded], tiny_model: Path
) -> None:
    theirs_model = Theirs.from_pretrained(tiny_model, attn_implementation=implementation)
    batch = PackedCollator(processor)(rows)
    language: Any = load_model(tiny_model).model.language_model
    hidden = torch.randn(1, batch["input_ids"].shape[1], 64, generator=torch.Generator().manual_seed(0))
    embeddings = language.rotary_emb(hidden, batch["position_ids"][1:])
    for ours, layer in zip(language.layers, theirs_model.model.language_model.layers, strict=True):
        theirs = layer.self_attn
        assert type(theirs) is Qwen2_5_VLAttention
        assert type(ours.self_attn) is PackedAttention
        mask = dense_mask(batch["cu_seqlens"])
        expected, _ = theirs(hidden, position_embeddings=embeddings, attention_mask=mask)
        found, _ = ours.self_attn(hidden, cu_seqlens=batch["cu_seqlens"], position_embeddings=embeddings)
        # Measured: at most 1e-6 apart, of values of up to 1.
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=5e-6)


def test_padded_batches_give_transformers_logits_and_loss(
    processor: Processor, rows: list[Encoded], tiny_model: Path
) -> None:
    batch = Collator(processor)(rows)
    with torch.no_grad():
        ours, theirs = load_model(tiny_model)(**batch), Theirs.from_pretrained(tiny_model)(**batch)
    torch.testing.assert_close(ours.loss, theirs.loss)
    learned = batch["attention_mask"].bool()
    torch.testing.assert_close(ours.logits[learned], theirs.logits[learned], rtol=1e-4, atol=1e-4)


def test_answers_are_transformers_own(processor: Processor, tiny_model: Path) -> None:
    """Prompts with 0, 1, 3 and 2 photos in one padded batch, greedily; the ids are equal."""
    prompts = [encode(conversation.prompt, processor) for conversation in mixed_conversations()]
    batch = Collator(processor, padding_side="left")(prompts)
    del batch["labels"]
    how = {"max_new_tokens": 24, "do_sample": False, "repetition_penalty": 1.0}
    ours = load_model(tiny_model).eval().generate(**batch, **how)
    theirs = Theirs.from_pretrained(tiny_model).eval().generate(**batch, **how)
    assert ours.equal(theirs)
    assert len(torch.unique(ours[:, batch["input_ids"].shape[1] :])) > 20  # they say something


@pytest.fixture(scope="module", params=["v5", "hub", "tied"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: dict[str, Callable[[Path], Path]] = {
        "v5": build_tiny_model,
        "hub": lambda out: build_tiny_model(out, layout="hub"),
        "tied": lambda out: build_tiny_model(out, tie_word_embeddings=True),
    }
    return made[request.param](tmp_path_factory.mktemp("model") / "m")


def test_what_is_saved_is_transformers_own(
    folder: Path, processor: Processor, rows: list[Encoded], tmp_path: Path
) -> None:
    ours, theirs = load_model(folder), Theirs.from_pretrained(folder)
    for model in (ours, theirs):
        with torch.no_grad():
            model.model.language_model.layers[0].mlp.up_proj.weight += 0.01  # not what was loaded
            model.model.visual.blocks[0].attn.qkv.weight += 0.01
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    names = ("config.json", "generation_config.json", "model.safetensors")
    for name in names:  # bit for bit: names, order, dtypes and values of weights
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    config = json.loads((tmp_path / "ours" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen2_5_VLForConditionalGeneration"]
    assert config["model_type"] == "qwen2_5_vl"
    again = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "ours")
    assert type(again) is Theirs
    batch = Collator(processor)(rows)
    with torch.no_grad():
        assert again(**batch).logits.equal(theirs(**batch).logits)


def test_both_packed_classes_are_in_their_places(folder: Path) -> None:
    model = load_model(folder)
    assert all(type(layer.self_attn) is PackedAttention for layer in model.model.language_model.layers)
    assert all(type(block.attn) is BatchedVisionAttention for block in model.model.visual.blocks)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) is model.config.tie_word_embeddings


def test_tied_heads_learn_from_both_ends(processor: Processor, rows: list[Encoded], tmp_path: Path) -> None:
    """The gradient of tied embeddings is that of transformers' own: what the head and the input give, together."""
    folder = build_tiny_model(tmp_path, tie_word_embeddings=True)
    ours, theirs = load_model(folder).train(), Theirs.from_pretrained(folder).train()
    row = rows[1]
    sums, counts = sample_losses(ours, PackedCollator(processor)([row]))
    (sums.sum() / counts.sum()).backward()
    theirs(**Collator(processor)([row])).loss.backward()
    found, expected = (one.get_input_embeddings().weight.grad for one in (ours, theirs))
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_a_blank_photo_gives_the_tower_gradients_of_zero(
    processor: Processor, rows: list[Encoded], tiny_model: Path
) -> None:
    """Processes that wait for each other's gradients must all have some, also those with text alone."""
    model = load_model(tiny_model).train()
    model.always_runs_tower = True
    sample_losses(model, PackedCollator(processor)([rows[0], rows[3]])).sums.sum().backward()
    for name, weight in model.model.visual.named_parameters():
        assert weight.grad is not None, name
        assert not weight.grad.any(), name


@pytest.mark.parametrize("trains", [False, True])
def test_a_row_that_supervises_nothing_has_a_loss_of_zero(
    trains: bool, processor: Processor, rows: list[Encoded], tiny_model: Path
) -> None:
    """As one process of several may get; gradients are there, for the others not to wait."""
    model = load_model(tiny_model).train().requires_grad_(False)
    (model if trains else model.model.language_model.layers).requires_grad_(True)
    batch = PackedCollator(processor)(rows[:2])
    sums, counts = sample_losses(model, batch | {"labels": torch.full_like(batch["labels"], IGNORED)})
    assert sums.tolist() == [0.0, 0.0]
    assert counts.tolist() == [0, 0]
    sums.sum().backward()
    for name, weight in model.model.language_model.layers.named_parameters():
        assert weight.grad is not None, name
        assert not weight.grad.any(), name
