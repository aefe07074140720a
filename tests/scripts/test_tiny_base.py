"""The base that ships: what it is, what it can say about a drawing, and how its lessons are written."""

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch
from drawn_defects.captions import caption
from drawn_defects.language import COPY
from drawn_defects.table import Drawing
from make_tiny_base import COURSES, Course, copied_words, random_start, ship, write_lessons
from make_tiny_model import SPECIAL_TOKENS
from PIL import Image
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoTokenizer, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from riskva.data.conversation import Conversation, Message, Photo
from riskva.data.datasets import open_datasets
from riskva.encoding import Collator, encode, load_processor
from riskva.modeling.loading import load_model

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = REPOSITORY / "riskva" / "assets" / "tiny-qwen2.5-vl"
MOST_BYTES = 8 * 2**20


def test_the_base_is_small_and_of_half_precision() -> None:
    assert sum(path.stat().st_size for path in BASE.iterdir()) <= MOST_BYTES
    with safe_open(BASE / "model.safetensors", framework="pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_the_base_is_a_whole_qwen2_5_vl_for_transformers() -> None:
    model, report = AutoModelForImageTextToText.from_pretrained(BASE, output_loading_info=True)
    assert type(model) is Qwen2_5_VLForConditionalGeneration
    assert not any(report.values())
    names = {path.name for path in BASE.iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "processor_config.json"} <= names
    assert "riskva.json" not in names  # a base has not been taught any report


def test_its_tokenizer_splits_text_as_qwen2_does() -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    splitting = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"]["pretokenizers"][0]
    assert splitting["pattern"] == {"Regex": PRETOKENIZE_REGEX}
    ids = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    assert ids == list(range(ids[0], ids[0] + len(SPECIAL_TOKENS)))


def test_it_describes_drawings_that_it_has_not_seen() -> None:
    model, processor = load_model(BASE, torch.float32).eval(), load_processor(BASE)
    collator, drawing = Collator(processor), Drawing(seed=32)
    num_right, num_rows = 0, 60
    for number in range(num_rows):
        drawn = drawing.photo(number)
        expected = caption(drawn.scene, drawn.rng)
        asked = Conversation(
            str(number), (Message("user", "<image>" + expected.question),), (as_photo(drawn.image),), "drawn"
        )
        batch = collator([encode(asked.prompt, processor)])
        prompt = {key: value for key, value in batch.items() if key != "labels"}
        with torch.inference_mode():
            written = model.generate(**prompt, max_new_tokens=60, do_sample=False, repetition_penalty=1.0)
        answer = processor.tokenizer.decode(written[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        num_right += answer.strip() == expected.answer
    assert num_right >= 0.9 * num_rows  # measured: 0.98 of 960 answers about 320 other drawings


def as_photo(image: Image.Image) -> Photo:
    stream = BytesIO()
    image.save(stream, "PNG")
    return Photo(data=stream.getvalue(), name="drawn.png")


@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.name)
def test_lessons_are_a_data_set_that_can_be_written_again(tmp_path: Path, tiny_model: Path, course: Course) -> None:
    words, small = copied_words(tiny_model), replace(course, num_photos=40)
    assert len(words) > 100
    assert all("一" <= char <= "鿿" for word in words for char in word)
    for name in ("once", "again"):
        write_lessons(tmp_path / name, small, words, num_val=10)
    once, again = (sorted((tmp_path / name).rglob("*.*")) for name in ("once", "again"))
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]
    rows = list(open_datasets(["drawings_train"], tmp_path / "once"))
    assert sum(bool(row.photos) for row in rows) == 30
    assert sum(not row.photos for row in rows) == int(40 * course.text_share)
    assert len(open_datasets(["drawings_val"], tmp_path / "once")) == 10
    assert any(COPY in row.messages[-2].content for row in rows)
    assert course.is_long == (len({row.system for row in rows}) > 1)


def test_shipping_rounds_once_and_brings_the_processor(tmp_path: Path) -> None:
    start = random_start(tmp_path / "random")
    ship(start, start, tmp_path / "shipped")
    whole, rounded = load_model(start), load_model(tmp_path / "shipped")
    assert rounded.dtype == torch.bfloat16
    for name, weight in whole.state_dict().items():
        assert torch.equal(rounded.state_dict()[name], weight.to(torch.bfloat16))
    assert load_processor(tmp_path / "shipped").tokenizer.get_vocab() == load_processor(start).tokenizer.get_vocab()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja", "processor_config.json"])
def test_the_committed_script_makes_the_shipped_architecture_and_tokenizer(tmp_path: Path, name: str) -> None:
    shipped, made = ((folder / name).read_text(encoding="utf-8") for folder in (BASE, random_start(tmp_path / "made")))
    if name != "config.json":
        assert shipped == made
        return
    differing = ("dtype", "transformers_version")
    configs = [json.loads(text) for text in (shipped, made)]
    for config in configs:
        for part in (config, config["text_config"], config["vision_config"]):
            for key in differing:
                part.pop(key, None)
    assert configs[0] == configs[1]
