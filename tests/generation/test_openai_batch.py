"""Requests that an endpoint can work from, what it answers read back, and every fault of its files named."""

import base64
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from user_rows import drawn_conversations, drawn_photo

from riskva.data.conversation import Conversation, Message, Photo
from riskva.data.images import open_photo
from riskva.errors import DataError, MissingDataError
from riskva.generation.answer import Answer
from riskva.generation.openai_batch import FileLimits, Form, body_of, custom_id_of, read_results, write_requests
from riskva.generation.token_levels import TokenChoice, levels_from_tokens
from riskva.recipe.key_groups import GenerationKeys
from riskva.report import DEFAULT_FORMAT, LEVEL_LABELS

MAX_PIXELS = 100 * 100
ODD_IDS = ["plain-1", "房屋/3", "a b", "sha256-x", "x" * 700]


class Rows:
    def __init__(self, rows: Sequence[Conversation]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        return self.rows[index]

    @property
    def ids(self) -> list[str]:
        return [row.id for row in self.rows]

    def id_of(self, index: int) -> str:
        return self.rows[index].id


def form(**other: Any) -> Form:
    return replace(Form("endpoints-model", GenerationKeys(), DEFAULT_FORMAT, MAX_PIXELS), **other)


def rows_named(ids: Sequence[str]) -> Rows:
    return Rows([replace(row, id=name) for row, name in zip(drawn_conversations(len(ids)), ids, strict=True)])


def sent(paths: Sequence[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def picture(part: dict[str, Any]) -> Image.Image:
    head, data = part["image_url"]["url"].split(",")
    assert head == "data:image/jpeg;base64"
    image = Image.open(BytesIO(base64.b64decode(data)))
    image.load()
    return image


def answered(custom_id: str, content: str | None, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    choice = {
        "index": 0,
        "finish_reason": finish_reason,
        "message": {"role": "assistant", "content": content} | message,
    }
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return {
        "id": "r",
        "custom_id": custom_id,
        "response": {"status_code": 200, "request_id": "q", "body": body},
        "error": None,
    }


def write(path: Path, lines: Sequence[Any], encode: Callable[[str], bytes] = str.encode) -> Path:
    path.write_bytes(encode("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)))
    return path


def test_what_is_asked_comes_back_as_answers(tmp_path: Path) -> None:
    """The stand-in sees each row's photo and question, answers out of order, and fails at one row."""
    rows = rows_named(ODD_IDS)
    requests = write_requests(rows, tmp_path, form(), num_workers=2)
    assert (requests.num_requests, requests.failed) == (len(ODD_IDS), {})
    replies = []
    for number, line in enumerate(sent(requests.paths)):
        image, text = line["body"]["messages"][-1]["content"]
        width, height = picture(image).size
        photo = open_photo(rows[number].photos[0])
        assert width * height <= MAX_PIXELS
        assert width / height == pytest.approx(photo.width / photo.height, rel=0.03)
        assert text["text"] == rows[number].prompt.messages[-1].content.removeprefix("<image>")
        replies.append(answered(line["custom_id"], f"答{number}"))
    replies[2] |= {"response": {"status_code": 400, "request_id": "q", "body": {"error": {"message": "too large"}}}}
    results = write(tmp_path / "results.jsonl", replies[::-1])
    expected: dict[str, Answer | str] = {name: Answer(f"答{number}", "stop") for number, name in enumerate(ODD_IDS)}
    expected["a b"] = "the endpoint failed 400: too large"
    assert read_results([results], ODD_IDS, DEFAULT_FORMAT) == expected


def test_a_line_says_what_the_recipe_says() -> None:
    row = drawn_conversations(1)[0].prompt
    body = body_of(row, form())
    assert body["model"] == "endpoints-model"
    assert (body["temperature"], body["max_completion_tokens"], body["seed"]) == (0, 512, 42)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
    assert not {"top_p", "repetition_penalty", "response_format"} & set(body)
    keys = GenerationKeys(do_sample=True, temperature=0.3, top_p=0.8, repetition_penalty=1.1, max_new_tokens=7)
    body = body_of(row, form(keys=keys, constrain="json", with_levels=False))
    assert (body["temperature"], body["top_p"], body["repetition_penalty"]) == (0.3, 0.8, 1.1)
    assert body["max_completion_tokens"] == 7
    assert "logprobs" not in body
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == list(DEFAULT_FORMAT.labels) == list(schema["properties"])
    assert schema["properties"][DEFAULT_FORMAT.level_label]["enum"] == list(LEVEL_LABELS)


def test_an_answer_in_the_schema_is_a_report() -> None:
    schema = body_of(drawn_conversations(1)[0].prompt, form(constrain="json"))["response_format"]["json_schema"][
        "schema"
    ]
    answer = {name: kind.get("enum", ["墙面有裂缝。"])[-1] for name, kind in schema["properties"].items()}
    report = DEFAULT_FORMAT.read_answer(json.dumps(answer, ensure_ascii=False)).report
    assert report is not None
    assert report.level.label == "严重"


def test_photos_stand_where_their_marks_do() -> None:
    messages = (Message("system", "你是工程师"), Message("user", "前<image>中<image>"))
    photos = (drawn_photo(1, 56, 28), drawn_photo(2, 28, 56))
    body = body_of(Conversation("two", messages, photos), form())
    system, user = body["messages"]
    assert system == {"role": "system", "content": "你是工程师"}
    first, one, middle, two = user["content"]
    assert (first["text"], middle["text"]) == ("前", "中")
    assert (picture(one).size, picture(two).size) == ((56, 28), (28, 56))


def test_photos_are_turned_and_shrunk_and_small_jpegs_untouched() -> None:
    def jpeg(size: tuple[int, int], orientation: int) -> bytes:
        stream = BytesIO()
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", size, (90, 60, 30)).save(stream, "JPEG", exif=exif)
        return stream.getvalue()

    def sent_photo(data: bytes) -> dict[str, Any]:
        row = Conversation("r", (Message("user", "<image>问"),), (Photo(data=data, name="p"),))
        part: dict[str, Any] = body_of(row, form())["messages"][0]["content"][0]
        return part

    small = jpeg((64, 48), 1)
    assert base64.b64decode(sent_photo(small)["image_url"]["url"].split(",")[1]) == small
    assert picture(sent_photo(jpeg((64, 48), 6))).size == (48, 64)
    assert picture(sent_photo(jpeg((400, 300), 6))).size == (86, 115)  # 100 x 100 pixels' worth, upright


def test_files_stay_within_the_limits_and_replace_earlier_ones(tmp_path: Path) -> None:
    rows = rows_named([f"r{number}" for number in range(5)])
    paths = write_requests(rows, tmp_path, form(), limits=FileLimits(requests=2)).paths
    assert [path.name for path in paths] == [f"batch_requests-0000{number}.jsonl" for number in range(3)]
    ids = [line["custom_id"] for line in sent(paths)]
    assert ids == [f"r{number}" for number in range(5)]
    most = max(map(len, paths[0].read_bytes().splitlines(keepends=True)))
    by_size = write_requests(rows, tmp_path, form(), limits=FileLimits(num_bytes=most)).paths
    assert len(by_size) == 5
    again = write_requests(rows, tmp_path, form(), numbers=[1, 3]).paths
    assert [line["custom_id"] for line in sent(again)] == ["r1", "r3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["batch_requests-00000.jsonl"]


def test_a_photo_that_cannot_be_read_costs_its_row_alone(tmp_path: Path) -> None:
    good = drawn_conversations(3)
    bad = replace(good[1], photos=(Photo(data=b"text, not a photo", name="b.jpg"),))
    requests = write_requests(Rows([good[0], bad, good[2]]), tmp_path, form(), num_workers=2)
    assert [line["custom_id"] for line in sent(requests.paths)] == ["0", "2"]
    assert requests.num_requests == 2
    assert list(requests.failed) == ["1"]
    assert "b.jpg: not a picture" in requests.failed["1"]


def test_custom_ids_are_plain_short_and_all_different() -> None:
    made = [custom_id_of(one) for one in [*ODD_IDS, custom_id_of("房屋/3")]]
    assert len(set(made)) == len(made)
    assert all(one.isascii() and len(one) <= 71 and " " not in one for one in made)
    assert made[0] == "plain-1"


def test_a_row_that_was_asked_again_keeps_its_answer(tmp_path: Path) -> None:
    failed = {"id": "r", "custom_id": "a", "response": None, "error": {"code": "batch_expired", "message": "expired"}}
    first = write(tmp_path / "errors.jsonl", [failed, answered("b", "乙")])
    second = write(tmp_path / "second.jsonl", [answered("a", "甲"), answered("b", "乙")])
    for paths in ([first, second], [second, first]):
        found = read_results(paths, ["a", "b", "c"], DEFAULT_FORMAT)
        assert found == {"a": Answer("甲", "stop"), "b": Answer("乙", "stop")}  # nobody answered c
    assert read_results([first], ["a", "b"], DEFAULT_FORMAT) == {"b": Answer("乙", "stop")}  # a is asked again


@pytest.mark.parametrize(("status", "may_pass"), [(400, False), (404, False), (429, True), (500, True), (503, True)])
def test_what_may_pass_is_asked_again(tmp_path: Path, status: int, may_pass: bool) -> None:
    line = {"custom_id": "a", "response": {"status_code": status, "body": {"error": {"message": "no"}}}, "error": None}
    found = read_results([write(tmp_path / "results.jsonl", [line])], ["a"], DEFAULT_FORMAT)
    assert found == ({} if may_pass else {"a": f"the endpoint failed {status}: no"})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (answered("a", "半", "length"), Answer("半", "length")),
        (answered("a", "半", "content_filter"), "the endpoint ended the answer with finish_reason 'content_filter'"),
        (answered("a", None, refusal="I cannot"), "the endpoint refused: I cannot"),
        (answered("a", None), "the endpoint gave no text"),
        (
            {"id": "v", "custom_id": "a", "response": {"status_code": 400, "body": None}, "error": "bad"},
            "the endpoint failed 400: bad",
        ),
        (
            {
                "id": "v",
                "custom_id": "a",
                "response": {"status_code": 404, "request_id": "q"},
                "error": {"error": {"message": "no model", "type": "NotFoundError", "param": None, "code": 404}},
            },
            "the endpoint failed 404: no model",
        ),
    ],
)
def test_every_end_of_a_request_is_told(tmp_path: Path, line: dict[str, Any], expected: Answer | str) -> None:
    path = write(tmp_path / "r.jsonl", [line])
    assert read_results([path], ["a"], DEFAULT_FORMAT) == {"a": expected}


@pytest.mark.parametrize(
    ("lines", "encode", "message"),
    [
        ([answered("z", "答")], str.encode, r"1 line\(s\).*r\.jsonl:1: custom_id 'z' is of no row"),
        ([answered("a", "甲"), answered("a", "乙")], str.encode, r"r\.jsonl:2: a second, different answer for id a"),
        ([answered("a", "甲"), 3, {"custom_id": 5}], str.encode, r"2 line\(s\).*r\.jsonl:2: no line of results"),
        ([answered("a", "甲")], lambda text: text.encode("gbk"), r"r\.jsonl:1: not UTF-8; save the file as UTF-8"),
        ([answered("a", "甲")], lambda text: text.encode("utf-16"), r"r\.jsonl:1: not UTF-8"),
        ([answered("a", "甲")], lambda text: text.encode()[:-20], r"r\.jsonl:1: no line of results: Invalid JSON"),
        ([answered("a", "甲") | {"response": {"status_code": 200, "body": {"choices": []}}}], str.encode, "choices"),
    ],
)
def test_faults_of_results_are_named(
    tmp_path: Path, lines: list[Any], encode: Callable[[str], bytes], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_results([write(tmp_path / "r.jsonl", lines, encode)], ["a"], DEFAULT_FORMAT)


def test_a_byte_order_mark_and_blank_lines_are_read_over(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [answered("a", "甲")], lambda text: b"\xef\xbb\xbf" + text.encode() + b"\r\n\n")
    assert read_results([path], ["a"], DEFAULT_FORMAT) == {"a": Answer("甲", "stop")}


def test_a_results_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none\.jsonl: no such file"):
        read_results([tmp_path / "none.jsonl"], ["a"], DEFAULT_FORMAT)


ANSWER = "**风险描述**: 严重渗水\n**风险等级**: 中等\n**纠正和预防建议**: 修\n**缺陷描述**: 缝"
CUT = ANSWER.index("中等")


def choices(*pieces: str, **listed: float) -> list[TokenChoice]:
    """A token a piece, each certain; at the piece 中等 stands what `listed` says."""
    return [
        TokenChoice(one.encode(), {name.encode(): math.log(share) for name, share in listed.items()})
        if one.strip() == "中等"
        else TokenChoice(one.encode(), {one.encode(): 0.0})
        for one in pieces
    ]


def test_levels_come_from_the_likeliest_tokens(tmp_path: Path) -> None:
    """Shares of 0.2, 0.5 and 0.1 among all tokens are 0.25, 0.625 and 0.125 among the three."""
    tokens = choices(ANSWER[:CUT], "中等", ANSWER[CUT + 2 :], 轻=0.15, 轻微=0.05, 中等=0.5, 严重=0.1, 较=0.2)
    assert levels_from_tokens(ANSWER, tokens, DEFAULT_FORMAT) == pytest.approx((0.25, 0.625, 0.125))
    line = answered("a", ANSWER)
    line["response"]["body"]["choices"][0]["logprobs"] = {
        "content": [
            {
                "token": one.piece.decode(),
                "bytes": list(one.piece) if number else None,
                "logprob": one.log_probabilities[one.piece],
                "top_logprobs": [{"token": name.decode(), "logprob": p} for name, p in one.log_probabilities.items()],
            }
            for number, one in enumerate(tokens)
        ]
    }
    found = read_results([write(tmp_path / "r.jsonl", [line])], ["a"], DEFAULT_FORMAT)["a"]
    assert isinstance(found, Answer)
    assert found.level_probabilities == pytest.approx((0.25, 0.625, 0.125))


def test_a_token_may_begin_before_the_level() -> None:
    shares = {"轻": 0.1, "中": 0.3, "严": 0.1}
    tokens = [
        TokenChoice(ANSWER[: CUT - 1].encode(), {}),
        TokenChoice(" 中等".encode(), {f" {one}".encode(): math.log(p) for one, p in shares.items()}),
        TokenChoice(ANSWER[CUT + 2 :].encode(), {}),
    ]
    assert levels_from_tokens(ANSWER, tokens, DEFAULT_FORMAT) == pytest.approx((0.2, 0.6, 0.2))


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        choices(ANSWER[:CUT], "中等", ANSWER[CUT + 2 :], 轻微=0.2, 中等=0.5),  # 严重 is not listed
        choices("x" + ANSWER[:CUT], "中等", 轻微=0.2, 中等=0.5, 严重=0.1),  # of another text
        [
            TokenChoice(ANSWER[:CUT].encode(), {}),
            TokenChoice("中".encode()[:2], {"中".encode()[:2]: -0.1, "轻".encode(): -3.0, "严".encode(): -3.0}),
        ],  # bytes that begin 中等 and 严重 alike
    ],
)
def test_what_the_tokens_do_not_tell_is_not_made_up(tokens: list[TokenChoice]) -> None:
    assert levels_from_tokens(ANSWER, tokens, DEFAULT_FORMAT) is None
