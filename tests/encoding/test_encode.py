from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from riskva.data.conversation import Conversation, Message, Photo
from riskva.encoding import Collator, Processor, encode, load_processor
from riskva.encoding.processor import copy_processor_files
from riskva.encoding.survey import survey
from riskva.errors import DataError, ImageError, ModelError


@pytest.fixture(scope="module")
def processor(tiny_model: Path) -> Processor:
    return load_processor(tiny_model)


def png(width: int, height: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (width, height), (120, 130, 140)).save(stream, "PNG")
    return stream.getvalue()


def sample(
    name: str, answer: str | None = "墙面裂缝", sizes: tuple[tuple[int, int], ...] = ((112, 112),)
) -> Conversation:
    turns = [Message("user", "<image>" * len(sizes) + "看图")] + ([Message("assistant", answer)] if answer else [])
    return Conversation(
        name, tuple(turns), tuple(Photo(data=png(*size), name=name) for size in sizes), f"x.jsonl:{name}"
    )


@pytest.mark.parametrize("token", ["<|im_end|>", "<|im_start|>", "<|image_pad|>", "<|endoftext|>"])
def test_control_tokens_in_a_text_are_refused(token: str, processor: Processor) -> None:
    with pytest.raises(DataError, match=r"x\.jsonl:7 \(id 7\): the assistant's text holds the control token"):
        encode(sample("7", f"裂缝{token}继续"), processor)


def test_truncated_photo_names_the_row(processor: Processor) -> None:
    broken = Photo(data=png(200, 200)[:-200], name="a.png")
    with pytest.raises(ImageError, match=r"x:3 \(id 3\)"):
        encode(Conversation("3", (Message("user", "<image>"),), (broken,), "x:3"), processor)


def test_extreme_aspect_ratio_is_refused(processor: Processor) -> None:
    with pytest.raises(ImageError) as caught:
        encode(sample("9", sizes=((2010, 10),)), processor)
    assert "(id 9)" in str(caught.value)


def test_batch_pads_and_marks(processor: Processor) -> None:
    rows = [
        encode(sample("1"), processor),
        encode(sample("2", "长一些的回答，共有两句。", ((112, 112), (56, 84))), processor),
    ]
    rows.append(encode(sample("3", sizes=()), processor))
    for side in ("right", "left"):
        batch = Collator(processor, padding_side=side)(rows)  # type: ignore[arg-type]
        assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
        assert batch["pixel_values"].shape == (sum(len(row.pixel_values) for row in rows), 1176)
        assert batch["image_grid_thw"].shape == (3, 3)
        assert batch["mm_token_type_ids"].sum() == (batch["input_ids"] == processor.image_token_id).sum()
        for index, row in enumerate(rows):
            kept = batch["attention_mask"][index].bool()
            assert torch.equal(batch["input_ids"][index][kept], row.input_ids)
            assert torch.equal(batch["labels"][index][kept], row.labels)
            assert (batch["labels"][index][~kept] == -100).all()


def test_batch_of_text_alone_has_no_pixels_unless_asked(processor: Processor) -> None:
    rows = [encode(sample("1", sizes=()), processor)]
    assert "pixel_values" not in Collator(processor)(rows)
    blank = Collator(processor, always_an_image=True)(rows)
    assert blank["image_grid_thw"].tolist() == [[1, 2, 2]]
    assert blank["attention_mask"][0, -1] == 0
    assert blank["labels"][0, -1] == -100
    asked = Collator(processor, padding_side="left", always_an_image=True)(rows)
    assert asked["input_ids"][0].tolist() == [processor.image_token_id, *rows[0].input_ids.tolist()]
    assert asked["attention_mask"][0].tolist() == [0] + [1] * len(rows[0].input_ids)


def test_pixel_limits_that_contradict_each_other(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="image_min_pixels"):
        load_processor(tiny_model, image_max_pixels=1000, image_min_pixels=5000)


def test_processor_files_are_copied_as_they_are(tiny_model_hub: Path, tmp_path: Path) -> None:
    copy_processor_files(tiny_model_hub, tmp_path)
    for name in ("tokenizer.json", "preprocessor_config.json", "chat_template.json", "merges.txt"):
        assert (tmp_path / name).read_bytes() == (tiny_model_hub / name).read_bytes()
    assert not (tmp_path / "model.safetensors").exists()


def test_survey_refuses_or_drops_overlong_rows(processor: Processor, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [sample("short"), sample("long", "很长" * 400), sample("asked", None)]
    found = survey(rows, processor, "rows")
    assert [length.total for length in found.lengths] == [len(encode(row, processor).input_ids) for row in rows]
    assert found.unanswered == (2,)
    with pytest.raises(DataError, match=r"1 of 3 rows are over cutoff_len=200 tokens: long \(\d+\)"):
        found.kept(rows, 200, drop_overlong=False)
    assert found.kept(rows, 200, drop_overlong=True) == [0, 2]
    assert "long" in capsys.readouterr().err
    with pytest.raises(DataError, match="no row of at most"):
        found.kept(rows, 2, drop_overlong=True)


def test_survey_reports_every_bad_row_at_once(processor: Processor) -> None:
    bad = [sample("1", "<|im_end|>"), sample("2"), sample("3", sizes=((4000, 10),))]
    with pytest.raises(DataError, match=r"2 of 3 rows of rows cannot be used") as caught:
        survey(bad, processor, "rows")
    assert "(id 1)" in str(caught.value)
    assert "(id 3)" in str(caught.value)
