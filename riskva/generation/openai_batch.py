"""Rows as files in the format of OpenAI's Batch API, and the files that an endpoint answers with.

Whatever takes such files can do the work: OpenAI's own service, `vllm run-batch`, and others. One line asks for one
row. Photos travel inside it as JPEG, upright and no larger than the model sees them; the endpoint resizes them to its
own grid, so that pixels are close to the built-in engine's and not equal.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from riskva.console import progress
from riskva.data.conversation import IMAGE_PLACEHOLDER, Conversation, Message, Photo
from riskva.data.images import photo_size, reencode
from riskva.data.parallel import ordered_map
from riskva.data.photo_inputs import Inputs
from riskva.errors import DataError, MissingDataError
from riskva.files import write_whole
from riskva.generation.answer import Answer, FinishReason
from riskva.generation.token_levels import TokenChoice, levels_from_tokens
from riskva.recipe.key_groups import GenerationKeys
from riskva.report import LEVEL_LABELS, ReportFormat

REQUEST_FILES = r"batch_requests-\d{5}\.jsonl(\.partial)?"
"""Matches the names of the files that `write_requests` writes."""
URL = "/v1/chat/completions"

_MOST_REQUESTS = 50_000
_MOST_BYTES = 190_000_000
"""Of one file. The API takes 50,000 requests and 200 MB."""
_JPEG_QUALITY = 95
_TOP_LOGPROBS = 20
"""The most that OpenAI reports, and vLLM unless it is started otherwise."""
_PLAIN_ID = re.compile(r"(?!sha256-)[A-Za-z0-9._:/-]{1,64}")
_NUM_SHOWN = 300

Lines = Iterator[tuple[int, bytes]]


@dataclass(frozen=True)
class Form:
    """What every request says alike.

    `model` is what the endpoint calls the model. `max_pixels` bounds photos. `with_levels` asks for the likeliest
    tokens, from which probabilities of levels come; some endpoints refuse that, and it makes an answer's line about as
    long as its request's.
    """

    model: str
    keys: GenerationKeys
    report_format: ReportFormat
    max_pixels: int
    constrain: Literal["json", "off"] = "off"
    with_levels: bool = True


@dataclass(frozen=True)
class Requests:
    """The files that were written, their lines in all, and by id why rows are in none of them."""

    paths: tuple[Path, ...]
    num_requests: int
    failed: dict[str, str]


@dataclass(frozen=True)
class FileLimits:
    """What one file may hold."""

    requests: int = _MOST_REQUESTS
    num_bytes: int = _MOST_BYTES


def write_requests(
    rows: Inputs,
    folder: Path,
    form: Form,
    *,
    numbers: Sequence[int] | None = None,
    num_workers: int = 1,
    limits: FileLimits = FileLimits(),
) -> Requests:
    """Ask for the rows, or for those with these `numbers`, in `batch_requests-00000.jsonl` and so on in `folder`.

    Files of an earlier call are removed first. A row that cannot be read is in no file and under `failed`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if re.fullmatch(REQUEST_FILES, path.name):
            path.unlink()
    asked = range(len(rows)) if numbers is None else numbers
    written = _Written(limits)
    made = ordered_map(partial(_request, form), _read(rows, asked), num_workers)
    if asked:
        made = progress(made, len(asked), "requests")
    paths = []
    for number, lines in groupby(written.placed(made), key=itemgetter(0)):
        path = folder / f"batch_requests-{number:05d}.jsonl"
        with write_whole(path, "wb") as stream:
            for _, line in lines:
                stream.write(line)
        paths.append(path)
    return Requests(tuple(paths), written.num_requests, written.failed)


@dataclass
class _Written:
    """Counts lines on their way into files."""

    limits: FileLimits
    num_requests: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def placed(self, made: Iterator[tuple[str, bytes | DataError]]) -> Lines:
        """Each line with the number of its file."""
        number = num_lines = num_bytes = 0
        for row_id, line in made:
            if isinstance(line, DataError):
                self.failed[row_id] = str(line)
                continue
            if num_lines and (num_lines == self.limits.requests or num_bytes + len(line) > self.limits.num_bytes):
                number, num_lines, num_bytes = number + 1, 0, 0
            num_lines, num_bytes = num_lines + 1, num_bytes + len(line)
            self.num_requests += 1
            yield number, line


def _read(rows: Inputs, numbers: Sequence[int]) -> Iterator[tuple[str, Conversation | DataError]]:
    """Each row's id, and the row or why it cannot be read; in one thread, as files of rows want it."""
    for number in numbers:
        try:
            yield rows.id_of(number), rows[number]
        except DataError as error:
            yield rows.id_of(number), error


def _request(form: Form, read: tuple[str, Conversation | DataError]) -> tuple[str, bytes | DataError]:
    """The row's id, and its line or why it has none."""
    row_id, row = read
    if isinstance(row, DataError):
        return row_id, row
    try:
        body = body_of(row.prompt, form)
    except DataError as error:
        return row_id, error
    line = {"custom_id": custom_id_of(row_id), "method": "POST", "url": URL, "body": body}
    return row_id, json.dumps(line, ensure_ascii=False).encode() + b"\n"


def custom_id_of(row_id: str) -> str:
    """What the row is called in requests: its id if that is plain and short, else the id's SHA-256."""
    if _PLAIN_ID.fullmatch(row_id):
        return row_id
    return f"sha256-{hashlib.sha256(row_id.encode()).hexdigest()}"


def body_of(prompt: Conversation, form: Form) -> dict[str, Any]:
    """What the endpoint is asked. Raises `DataError` naming the row when a photo cannot be used.

    A repetition penalty is vLLM's; OpenAI's service refuses it, so that it is left out where the recipe asks for none.
    """
    try:
        photos = iter([_data_url(photo, form.max_pixels) for photo in prompt.photos])
    except DataError as error:
        raise DataError(f"{prompt.where}: {error}") from error
    keys = form.keys
    body: dict[str, Any] = {
        "model": form.model,
        "messages": [{"role": one.role, "content": _content(one, photos)} for one in prompt.messages],
        "max_completion_tokens": keys.max_new_tokens,  # vLLM takes this too; OpenAI's newer models refuse max_tokens
        "temperature": keys.temperature if keys.do_sample else 0,
        "seed": keys.seed,
    }
    if keys.do_sample:
        body["top_p"] = keys.top_p
    if keys.repetition_penalty != 1:
        body["repetition_penalty"] = keys.repetition_penalty
    if form.constrain == "json":
        body["response_format"] = _response_format(form.report_format)
    if form.with_levels:
        body |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
    return body


def _content(message: Message, photos: Iterator[str]) -> str | list[dict[str, Any]]:
    if IMAGE_PLACEHOLDER not in message.content:
        return message.content
    parts: list[dict[str, Any]] = []
    for number, text in enumerate(message.content.split(IMAGE_PLACEHOLDER)):
        if number:
            parts.append({"type": "image_url", "image_url": {"url": next(photos)}})
        if text:
            parts.append({"type": "text", "text": text})
    return parts


def _data_url(photo: Photo, max_pixels: int) -> str:
    width, height = photo_size(photo)
    scale = min(1.0, math.sqrt(max_pixels / (width * height)))
    largest = max(1, math.floor(width * scale)), max(1, math.floor(height * scale))
    data = reencode(photo, largest, _JPEG_QUALITY).data
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _response_format(report_format: ReportFormat) -> dict[str, Any]:
    """The report as one JSON object. Lengths are not bounded: OpenAI's strict schemas know no `maxLength`."""
    level = {"type": "string", "enum": list(LEVEL_LABELS)}
    schema = {
        "type": "object",
        "properties": {one.label: level if one.is_level else {"type": "string"} for one in report_format.fields},
        "required": list(report_format.labels),
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "risk_report", "strict": True, "schema": schema}}


class _Piece(BaseModel):
    token: str
    utf8: list[int] | None = Field(None, alias="bytes")
    logprob: float = Field(le=1, allow_inf_nan=False)  # rounding may leave one a little above 0

    @property
    def data(self) -> bytes:
        return self.token.encode() if self.utf8 is None else bytes(self.utf8)


class _Token(_Piece):
    top_logprobs: list[_Piece] = []


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Body(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


class _Response(BaseModel):
    status_code: int
    body: Any = None


class _Line(BaseModel):
    custom_id: str
    response: _Response | None = None
    error: Any = None


def read_results(paths: Sequence[Path], ids: Sequence[str], report_format: ReportFormat) -> dict[str, Answer | str]:
    """What the endpoint said of each row, by id: its answer, or in words why there is none.

    `paths` are the endpoint's output and error files, of one batch or several; where a row failed in one and was
    answered in another, the answer counts. Rows of `ids` that no file names are absent, and so are those that failed
    in a way that may pass (too many requests, a fault of the server, a batch that expired). Raises `MissingDataError`
    when a file is not there, and `DataError`, with how many lines are at fault and the first one's file and number,
    when a line is damaged, is of no row of `ids`, or answers a row otherwise than another line does.
    """
    by_custom_id = {custom_id_of(row_id): row_id for row_id in ids}
    found: dict[str, Answer | str] = {}
    faults: list[str] = []
    for path in paths:
        for where, text in _lines_of(path):
            try:
                custom_id, result = _read_line(text, report_format)
                if result is not None:
                    _add(found, by_custom_id, custom_id, result)
            except ValueError as error:
                faults.append(f"{where}: {error}")
    if faults:
        raise DataError(f"{len(faults)} line(s) of the endpoint's results cannot be used; the first is {faults[0]}")
    return found


def _lines_of(path: Path) -> Iterator[tuple[str, bytes]]:
    """`file:number` and bytes of every line that is not blank, without the file's byte-order mark."""
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file of an endpoint's results")
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                yield f"{path}:{number}", text


def _add(found: dict[str, Answer | str], by_custom_id: dict[str, str], custom_id: str, result: Answer | str) -> None:
    row_id = by_custom_id.get(custom_id)
    if row_id is None:
        raise ValueError(f"custom_id {custom_id!r} is of no row that was to be asked; is the file of another data set?")
    earlier = found.get(row_id)
    if isinstance(earlier, Answer) and isinstance(result, Answer) and earlier != result:
        raise ValueError(f"a second, different answer for id {row_id}; name only one of the files")
    if not isinstance(earlier, Answer):
        found[row_id] = result


def _read_line(data: bytes, report_format: ReportFormat) -> tuple[str, Answer | str | None]:
    """The line's custom_id and result; None for a failure that may pass. Raises `ValueError` for any other line."""
    try:
        line = _Line.model_validate_json(data.decode())
        if line.error is not None or line.response is None or line.response.status_code != 200:
            return line.custom_id, None if _may_pass(line) else _why(line)
        return line.custom_id, _answer(_Body.model_validate(line.response.body).choices[0], report_format)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8; save the file as UTF-8") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"no line of results: {place}{': ' if place else ''}{first['msg']}") from None


def _may_pass(line: _Line) -> bool:
    """Whether asking again may help: nothing came back, or the server was busy or at fault."""
    status = line.response.status_code if line.response else None
    return status in (None, 408, 409, 429) or (status is not None and status >= 500)


def _why(line: _Line) -> str:
    """What an endpoint says of a request that failed: OpenAI as `error.message`, others as a text or deeper within."""
    body = line.response.body if line.response else None
    said: Any = line.error if line.error is not None else body
    while isinstance(said, dict) and ("error" in said or "message" in said):
        said = said["message"] if said.get("message") is not None else said.get("error")
    status = f" {line.response.status_code}" if line.response else ""
    text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    return f"the endpoint failed{status}: {text[:_NUM_SHOWN]}"


def _answer(choice: _Choice, report_format: ReportFormat) -> Answer | str:
    if choice.message.refusal:
        return f"the endpoint refused: {choice.message.refusal[:_NUM_SHOWN]}"
    if choice.finish_reason not in ("stop", "length"):
        return f"the endpoint ended the answer with finish_reason {choice.finish_reason!r}"
    if choice.message.content is None:
        return "the endpoint gave no text"
    tokens = (choice.logprobs.content if choice.logprobs else None) or []
    levels = levels_from_tokens(choice.message.content, list(map(_choice_of, tokens)), report_format)
    reason: FinishReason = "stop" if choice.finish_reason == "stop" else "length"
    return Answer(choice.message.content, reason, levels)


def _choice_of(token: _Token) -> TokenChoice:
    listed = {one.data: one.logprob for one in token.top_logprobs}
    return TokenChoice(token.data, listed | {token.data: token.logprob})
