import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from make_tiny_model import SPECIAL_TOKENS, build_tiny_model, mrope_section
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

QUESTION = "客厅墙面裂缝，请检查。\nABC 𠮷 1.5 mm"
USER_TURN = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def load(folder: Path) -> tuple[Any, dict[str, Any]]:
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, output_loading_info=True)


def logits(folder: Path, photo: Image.Image) -> torch.Tensor:
    """Logits (T, V) of a question about `photo`."""
    model, _ = load(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(photo, return_tensors="pt")
    num_tokens = int(pixels["image_grid_thw"].prod()) // 4
    text = tokenizer.apply_chat_template([USER_TURN], tokenize=False, add_generation_prompt=True)
    encoded = tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * num_tokens), return_tensors="pt")
    is_image = (encoded["input_ids"] == model.config.image_token_id).int()
    with torch.no_grad():
        return model(**encoded, **pixels, mm_token_type_ids=is_image).logits[0]


def noise_photo(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (112, 168, 3), dtype=np.uint8))


@pytest.mark.parametrize("layout", ["tiny_model", "tiny_model_hub"])
def test_every_weight_finds_its_place(layout: str, request: pytest.FixtureRequest) -> None:
    _, report = load(request.getfixturevalue(layout))
    assert not any(report.values())


def test_both_layouts_answer_alike_and_look_at_the_photo(tiny_model: Path, tiny_model_hub: Path) -> None:
    answer = logits(tiny_model, noise_photo(1))
    assert torch.equal(answer, logits(tiny_model_hub, noise_photo(1)))
    other = logits(tiny_model, noise_photo(2))
    assert (answer[-1] - other[-1]).abs().max() > 0.1  # measured 0.4 and more; the text alone would give 0


def test_hub_layout_has_the_files_and_keys_of_the_published_repository(tiny_model_hub: Path) -> None:
    names = {path.name for path in tiny_model_hub.iterdir()}
    tokens = {"vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "chat_template.json"}
    assert tokens | {"preprocessor_config.json", "generation_config.json", "model.safetensors.index.json"} <= names
    assert not names & {"processor_config.json", "chat_template.jinja", "model.safetensors"}
    config = json.loads((tiny_model_hub / "config.json").read_text(encoding="utf-8"))
    assert "text_config" not in config
    assert config["rope_scaling"] == {"type": "mrope", "mrope_section": [2, 3, 3]}
    weights = json.loads((tiny_model_hub / "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
    prefixes = ("visual.", "model.layers.", "model.embed_tokens.", "model.norm.", "lm_head.")
    assert all(name.startswith(prefixes) for name in weights)


def test_the_architecture_has_all_that_is_tested_elsewhere(tiny_model: Path) -> None:
    model, _ = load(tiny_model)
    text, vision = model.config.text_config, model.config.vision_config
    sections = text.rope_parameters["mrope_section"]
    assert min(sections) > 0
    assert 2 * sum(sections) == text.hidden_size // text.num_attention_heads
    assert 0 < len(vision.fullatt_block_indexes) < vision.depth
    assert vision.window_size < 112
    assert text.vocab_size > len(AutoTokenizer.from_pretrained(tiny_model))


@pytest.mark.parametrize("head_dim", [8, 16, 32, 64, 128])
def test_rotary_sections_fill_half_a_head(head_dim: int) -> None:
    sections = mrope_section(head_dim)
    assert min(sections) > 0
    assert sum(sections) == head_dim // 2


def test_rotary_sections_of_the_published_head_size() -> None:
    assert mrope_section(128) == [16, 24, 24]


@pytest.mark.parametrize("layout", ["tiny_model", "tiny_model_hub"])
def test_special_tokens_come_in_the_published_order(layout: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(layout)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    assert ids == list(range(ids[0], ids[0] + len(SPECIAL_TOKENS)))
    assert len(tokenizer) == ids[-1] + 1
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    model, _ = load(folder)
    assert model.config.image_token_id == ids[SPECIAL_TOKENS.index("<|image_pad|>")]
    assert model.generation_config.eos_token_id == [ids[2], ids[0]]


@pytest.mark.parametrize("text", [QUESTION, "**风险等级**: 严重\n**缺陷描述**: 墙面 龘 🙂", "  two  spaces\r\n\n"])
def test_any_text_survives_the_tokenizer(tiny_model: Path, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize("layout", ["tiny_model", "tiny_model_hub"])
def test_chat_template_writes_the_documented_form(layout: str, request: pytest.FixtureRequest) -> None:
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(layout))
    answer = {"role": "assistant", "content": "好。"}
    system = {"role": "system", "content": "你是检查员。"}
    text = tokenizer.apply_chat_template([USER_TURN, answer], tokenize=False)
    user = f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{QUESTION}<|im_end|>\n"
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        + user
        + "<|im_start|>assistant\n好。<|im_end|>\n"
    )
    prompt = tokenizer.apply_chat_template([system, USER_TURN], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|im_start|>system\n你是检查员。<|im_end|>\n" + user + "<|im_start|>assistant\n"


def test_the_seed_decides_the_files(tmp_path: Path, tiny_model_hub: Path) -> None:
    again = build_tiny_model(tmp_path / "again", layout="hub")
    other = build_tiny_model(tmp_path / "other", layout="hub", seed=1)
    assert digests(again) == digests(tiny_model_hub)
    differing = {name for name, digest in digests(other).items() if digests(again)[name] != digest}
    assert differing == {name for name in digests(other) if name.endswith(".safetensors")}


def test_building_leaves_the_random_numbers_of_the_caller_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    build_tiny_model(tmp_path / "model")
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("layout", ["v5", "hub"])
def test_tied_embeddings_and_half_precision_on_request(tmp_path: Path, layout: Any) -> None:
    folder = build_tiny_model(tmp_path / "tied", layout=layout, tie_word_embeddings=True, dtype="bfloat16")
    model, report = load(folder)
    assert not any(report.values())
    assert model.lm_head.weight.data_ptr() == model.model.language_model.embed_tokens.weight.data_ptr()
    assert model.dtype == torch.bfloat16
