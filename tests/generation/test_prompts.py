"""Rows as prompts: what is said of a row that cannot be asked, and of an answer that is no report."""

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from user_rows import drawn_conversations, drawn_photo

from evaluation.predictions import prediction_of
from riskva.columns import GROUP_COLUMN
from riskva.data.conversation import Conversation, Message, Photo
from riskva.encoding import Encoded, Processor, encode, load_processor
from riskva.errors import DataError
from riskva.generation.answer import Answer
from riskva.generation.journal import Line
from riskva.generation.predict import lines_of
from riskva.generation.prompts import Prompt, PromptDataset, PromptEncoder, answered, failed, line_of
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport

REPORT = DEFAULT_FORMAT.render(RiskReport(RiskLevel.SEVERE, dict.fromkeys(DEFAULT_FORMAT.text_labels, "裂缝")))
PROBABILITIES = (0.1, 0.2, 0.7)


class Listed:
    def __init__(self, rows: Sequence[Conversation | DataError]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        row = self.rows[index]
        if isinstance(row, DataError):
            raise row
        return row

    @property
    def ids(self) -> list[str]:
        return [self.id_of(number) for number in range(len(self))]

    def id_of(self, index: int) -> str:
        row = self.rows[index]
        return row.id if isinstance(row, Conversation) else f"bad-{index}"


@pytest.fixture(scope="module")
def processor(tiny_model: Path) -> Processor:
    return load_processor(tiny_model)


def prompt_of(row: Conversation | DataError, processor: Processor, cutoff_len: int = 4096) -> Prompt[Encoded]:
    return PromptDataset(Listed([row]), PromptEncoder(processor, cutoff_len))[0]


def with_photo(photo: Photo) -> Conversation:
    return replace(drawn_conversations(1)[0], photos=(photo,), source="rows.jsonl:7")


def is_error(prompt: Prompt[Encoded], *words: str) -> None:
    assert prompt.encoded is None
    assert prompt.line["finish_reason"] == "error"
    assert prompt.line["level"] is None
    assert all(word in prompt.line["error"] for word in words), prompt.line["error"]
    prediction_of(prompt.line)


def test_a_row_that_can_be_asked_is_encoded_with_a_key_for_its_photo(processor: Processor) -> None:
    one, other = drawn_conversations(2)
    prompt = prompt_of(one, processor)
    assert prompt.encoded is not None
    assert "error" not in prompt.line
    expected = encode(one.prompt, processor)
    assert prompt.encoded.input_ids.equal(expected.input_ids)
    assert prompt.encoded.pixel_values.equal(expected.pixel_values)
    again, different = prompt_of(one, processor), prompt_of(other, processor)
    assert again.encoded is not None
    assert different.encoded is not None
    assert prompt.encoded.photo_keys == again.encoded.photo_keys != different.encoded.photo_keys


@pytest.mark.parametrize("damage", ["a text", "half a photo", "no file"])
def test_a_photo_that_cannot_be_used_is_an_error_row(damage: str, processor: Processor, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    if damage == "a text":
        path.write_text("裂缝照片")
    elif damage == "half a photo":
        data = drawn_photo(1).data
        assert data is not None
        path.write_bytes(data[: len(data) // 2])
    prompt = prompt_of(with_photo(Photo(path=path, name="photo.jpg")), processor)
    is_error(prompt, "photo.jpg", "rows.jsonl:7")
    assert prompt.line["image"] == "photo.jpg"
    assert prompt.line["label"] == drawn_conversations(1)[0].answer


def test_a_row_that_cannot_be_read_goes_by_its_id(processor: Processor) -> None:
    prompt = prompt_of(DataError("rows.jsonl:3: not JSON"), processor)
    is_error(prompt, "rows.jsonl:3: not JSON")
    assert prompt.line["id"] == "bad-0"


def test_a_prompt_that_is_too_long_says_what_to_change(processor: Processor) -> None:
    row = drawn_conversations(1)[0]
    num_tokens = len(encode(row.prompt, processor).input_ids)
    assert prompt_of(row, processor, num_tokens).encoded is not None
    is_error(
        prompt_of(row, processor, num_tokens - 1),
        f"{num_tokens} tokens, over cutoff_len={num_tokens - 1}",
        "raise cutoff_len or lower image_max_pixels",
    )


def test_faults_of_the_program_are_not_rows_of_error(processor: Processor) -> None:
    def broken(_: Conversation) -> Encoded:
        raise TypeError("a fault of the program")

    with pytest.raises(TypeError):
        PromptDataset(Listed(drawn_conversations(1)), broken)[0]


def test_the_data_set_goes_to_other_processes(processor: Processor) -> None:
    rows = Listed([*drawn_conversations(2), DataError("x")])
    copied = pickle.loads(pickle.dumps(PromptDataset(rows, PromptEncoder(processor, 4096))))
    assert [copied[number].line["id"] for number in range(3)] == ["0", "1", "bad-2"]


def test_a_line_knows_its_photos_and_group() -> None:
    row = replace(drawn_conversations(1)[0], extra={GROUP_COLUMN: "房屋3"})
    line = line_of(row)
    assert line["image"] == row.photos[0].name
    assert line["group"] == "房屋3"
    assert line["prompt"] == row.messages[0].content
    assert line_of(drawn_conversations(1, with_photos=False)[0])["image"] == []
    two = Conversation("two", (Message("user", "<image>和<image>"),), (drawn_photo(1), drawn_photo(2)))
    assert line_of(two)["image"] == ["1.png", "2.png"]
    assert prediction_of(answered(line_of(row.prompt), Answer(REPORT, "stop"), DEFAULT_FORMAT)).label == ""


def the_line() -> Line:
    return line_of(drawn_conversations(1)[0])


def test_a_report_has_its_level_and_how_sure_it_is() -> None:
    line = answered(the_line(), Answer(REPORT, "stop", PROBABILITIES), DEFAULT_FORMAT)
    assert (line["level"], line["level_probabilities"]) == ("严重", [0.1, 0.2, 0.7])
    row = prediction_of(line)
    assert row.level == "严重"
    assert row.error is None


@pytest.mark.parametrize("text", [REPORT, "看不清", ""])
def test_an_answer_that_was_cut_off_has_no_level(text: str) -> None:
    line = answered(the_line(), Answer(text, "length", PROBABILITIES), DEFAULT_FORMAT)
    assert (line["level"], line["level_probabilities"], line["finish_reason"]) == (None, None, "length")
    assert line["predict"] == text
    assert prediction_of(line).reading(DEFAULT_FORMAT).report is None


def test_an_answer_that_is_no_report_has_no_level() -> None:
    line = answered(the_line(), Answer("看不清", "stop", PROBABILITIES), DEFAULT_FORMAT)
    assert (line["level"], line["level_probabilities"]) == (None, None)


def test_lines_keep_their_prompts_order_and_answers_go_to_their_rows() -> None:
    prompts = [
        Prompt(failed({"id": "a", "prompt": "", "label": ""}, "unreadable"), None),
        Prompt({"id": "b"}, "b"),
        Prompt({"id": "c"}, "large"),
        Prompt({"id": "d"}, "d"),
    ]

    def answer(texts: Sequence[str]) -> list[Answer]:
        if "large" in texts:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [Answer(text * 2, "stop") for text in texts]

    lines = lines_of(prompts, answer, DEFAULT_FORMAT)
    assert [(line["id"], line["predict"], line["finish_reason"]) for line in lines] == [
        ("a", "", "error"),
        ("b", "bb", "stop"),
        ("c", "", "error"),
        ("d", "dd", "stop"),
    ]
    assert "id c: no memory for this row even alone (CUDA out of memory)" in lines[2]["error"]
    assert "max_new_tokens" in lines[2]["error"]


def test_a_batch_of_failed_rows_alone_asks_nobody() -> None:
    def answer(_: Sequence[str]) -> list[Answer]:
        raise AssertionError

    assert lines_of([Prompt(failed({"id": "a"}, "x"), None)], answer, DEFAULT_FORMAT)[0]["error"] == "x"
