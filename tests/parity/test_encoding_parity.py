"""Ids against transformers' chat template, pixels against transformers' PIL image processor."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer

from riskva.data.conversation import Conversation, Message, Photo
from riskva.encoding import Processor, encode, load_processor, measure

MakePhoto = Callable[[int, int], Photo]


@pytest.fixture(scope="module")
def processor(tiny_model: Path) -> Processor:
    return load_processor(tiny_model)


@pytest.fixture(scope="module")
def photo() -> MakePhoto:
    def make(width: int, height: int) -> Photo:
        pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        stream = BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return Photo(data=stream.getvalue(), name=f"{width}x{height}.png")

    return make


CONVERSATIONS = {
    "one image": ((("user", "<image>请检查"), ("assistant", "**风险等级**: 严重")), [(300, 200)]),
    "system": ((("system", "你是检查员"), ("user", "<image>看图"), ("assistant", "墙面渗水 12-3")), [(112, 112)]),
    "two images apart": ((("user", "前<image>后<image>比较"), ("assistant", "有裂缝")), [(112, 140), (224, 112)]),
    "text alone": ((("user", "什么是空鼓？"), ("assistant", "抹灰层与基层脱开。")), []),
    "several turns": (
        (("user", "<image>一"), ("assistant", "assistant 一"), ("user", "二？"), ("assistant", "三\n四")),
        [(150, 90)],
    ),
    "latin and digits": (
        (("user", "Room 1-2-301 <image> ok?"), ("assistant", "it's 100%  fine \n\n yes")),
        [(90, 150)],
    ),
}


def conversation(name: str, photo: MakePhoto) -> Conversation:
    turns, sizes = CONVERSATIONS[name]
    return Conversation(name, tuple(Message(*turn) for turn in turns), tuple(photo(*size) for size in sizes))


def hf_messages(sample: Conversation) -> list[dict[str, object]]:
    """The conversation as transformers' templates take it: images as items of a content list."""
    messages = []
    for message in sample.messages:
        items: list[dict[str, str]] = []
        for index, text in enumerate(message.content.split("<image>")):
            items += [{"type": "image"}] * (index > 0) + ([{"type": "text", "text": text}] if text else [])
        messages.append({"role": message.role, "content": items})
    return messages


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("layout", ["tiny_model", "tiny_model_hub"])
def test_ids_equal_the_chat_template(name: str, layout: str, photo: MakePhoto, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(layout)
    sample = conversation(name, photo)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(hf_messages(sample), tokenize=False)
    encoded = encode(sample, load_processor(folder))
    for grid in encoded.image_grid_thw:
        text = text.replace("<|image_pad|>", "<|placeholder|>" * (int(grid.prod()) // 4), 1)
    expected = tokenizer(text.replace("<|placeholder|>", "<|image_pad|>"))["input_ids"]
    assert encoded.input_ids.tolist() == expected


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_prompt_equals_the_generation_prompt_and_is_a_prefix(name: str, processor: Processor, photo: MakePhoto) -> None:
    sample = conversation(name, photo)
    whole, prompt = encode(sample, processor), encode(sample.prompt, processor)
    assert whole.input_ids[: len(prompt.input_ids)].tolist() == prompt.input_ids.tolist()
    text = processor.tokenizer.apply_chat_template(
        hf_messages(sample.prompt), tokenize=False, add_generation_prompt=True
    )
    assert processor.tokenizer.decode(prompt.input_ids).replace("<|image_pad|>", "") == text.replace(
        "<|image_pad|>", ""
    )


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_labels_are_the_assistant_turns_with_their_end(name: str, processor: Processor, photo: MakePhoto) -> None:
    sample = conversation(name, photo)
    encoded = encode(sample, processor)
    supervised = encoded.labels != -100
    assert torch.equal(encoded.labels[supervised], encoded.input_ids[supervised])
    answers = [message.content for message in sample.messages if message.role == "assistant"]
    expected = "".join(f"{answer}<|im_end|>\n" for answer in answers)
    assert processor.tokenizer.decode(encoded.labels[supervised]) == expected


@pytest.mark.parametrize("size", [(112, 112), (30, 40), (1, 90), (640, 480), (481, 1023), (2000, 1500)])
def test_pixels_equal_the_pil_image_processor(size: tuple[int, int], tiny_model_hub: Path, photo: MakePhoto) -> None:
    limits = {"shortest_edge": 56 * 56, "longest_edge": 512 * 512}
    reference = AutoImageProcessor.from_pretrained(tiny_model_hub, backend="pil")
    picture = photo(*size)
    image = Image.open(BytesIO(picture.read())).convert("RGB")
    expected = reference(images=[image], return_tensors="pt", size=limits)
    processor = load_processor(tiny_model_hub, 512 * 512, 56 * 56)
    sample = Conversation("a", (Message("user", "<image>"), Message("assistant", "好")), (picture,))
    encoded = encode(sample, processor)
    assert torch.equal(encoded.pixel_values, expected["pixel_values"])
    assert torch.equal(encoded.image_grid_thw, expected["image_grid_thw"])
    assert measure(sample, processor).total == len(encoded.input_ids)
