"""`riskva.load`: a model in Python, which makes a typed report of a photo."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from transformers.utils import logging

from evaluation.predictions import prediction_of
from riskva.data.asking import Asking
from riskva.data.conversation import Conversation, Photo
from riskva.encoding import load_processor
from riskva.generation.engines import Constrain, Engine, load_answering, report_writer
from riskva.generation.journal import Line
from riskva.generation.predict import answer_row, lines_of
from riskva.generation.prompts import PromptDataset, PromptEncoder
from riskva.generation.share import with_confidence
from riskva.modeling.loading import locate_model_and_adapter
from riskva.modeling.resolving import asking_of, resolve_context
from riskva.recipe.key_groups import GenerationKeys, ModelKeys, ReportKeys
from riskva.report import ReportFormat, RiskLevel, RiskReport

_PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")

AnyPhoto = str | Path | bytes | Image.Image
"""A file's path, an encoded picture (JPEG, PNG, …) in memory, or one that Pillow has opened."""


@dataclass(frozen=True)
class PhotoReport:
    """What a model says of one photo.

    `report` is None where the answer is none, and `reason` then says why; `text` is the answer as it was written.
    `probabilities` are those of the three levels at the place where the answer says its own, calibrated if the model
    is; they add up to 1, and are None without a report. `error` says why a photo has no answer at all.
    """

    report: RiskReport | None
    text: str
    finish_reason: str | None
    probabilities: Mapping[RiskLevel, float] | None = None
    reason: str | None = None
    error: str | None = None

    @property
    def level(self) -> RiskLevel | None:
        """The report's level, None without a report."""
        return self.report.level if self.report else None

    @property
    def confidence(self) -> float | None:
        """The probability (0 to 1) of the level that the report says."""
        return None if self.level is None or self.probabilities is None else self.probabilities[self.level]


@dataclass(frozen=True)
class Reporter:
    """A model that is loaded, with all that it needs to be asked as it was trained. Not for several threads at once."""

    engine: Engine
    report_format: ReportFormat
    asking: Asking
    temperature: float

    def report(self, photo: AnyPhoto) -> PhotoReport:
        """The report of one photo. Raises `ImageError` where it cannot be read, `ModelError` where memory is short."""
        rows = _Photos([_photo(photo, 0)], self.asking)
        return self._report(answer_row(rows[0], self.engine, self.report_format))

    def reports(self, photos: Iterable[AnyPhoto], batch_size: int = 8) -> Iterator[PhotoReport]:
        """A report for each photo, in order, `batch_size` worked out together; one that fails has its `error`."""
        if isinstance(photos, str | bytes | Path | Image.Image):
            raise TypeError("reports takes several photos, such as a list; report takes one")
        waiting = iter(photos)
        while batch := list(islice(waiting, batch_size)):
            yield from self._answered(batch)

    def _answered(self, photos: list[AnyPhoto]) -> list[PhotoReport]:
        rows = _Photos([_photo(one, number) for number, one in enumerate(photos)], self.asking)
        dataset = PromptDataset(rows, self.engine.encode)
        prompts = [dataset[number] for number in range(len(rows))]
        return [self._report(line) for line in lines_of(prompts, self.engine.answer, self.report_format)]

    def _report(self, line: Line) -> PhotoReport:
        row = with_confidence(prediction_of(line), self.temperature)
        reading = row.reading(self.report_format)
        known = row.level_probabilities
        probabilities = dict(zip(RiskLevel, known, strict=True)) if known and reading.report else None
        reason = None if reading.report or row.error else reading.reason
        return PhotoReport(reading.report, row.predict, row.finish_reason, probabilities, reason, row.error)


def load(
    path: str | Path,
    *,
    base: str | Path | None = None,
    constrain: Constrain = "report",
    dtype: torch.dtype | None = None,
    max_new_tokens: int = 512,
    max_field_chars: int = 400,
    cutoff_len: int = 4096,
    question: str | None = None,
    system_prompt: str | None = None,
) -> Reporter:
    """The model in the folder `path`: an adapter or checkpoint of `stage: sft`, an export, or a Qwen2.5-VL.

    An adapter's base is the one that it was trained on, or `base`. The model is on the GPU if there is one, in the
    precision that it was saved in, or `dtype`. It is asked as its riskva.json says, and under `constrain` it writes
    nothing but reports; `question` and `system_prompt` are for models without a riskva.json. Raises `ModelError`.
    """
    named = (str(path), None) if base is None else (str(base), str(path))
    keys = ModelKeys(model_name_or_path=named[0], adapter_name_or_path=named[1])
    context = resolve_context(keys, asked=ReportKeys(question=question, system_prompt=system_prompt))
    folder, adapter = locate_model_and_adapter(*named)
    processor = load_processor(folder, context.image_max_pixels, context.image_min_pixels)
    generation = GenerationKeys(max_new_tokens=max_new_tokens, max_field_chars=max_field_chars)
    with _without_bar():
        model = load_answering(folder, adapter, dtype)
    writer = report_writer(model, processor, context.report_format, generation, constrain)
    engine = Engine(PromptEncoder(processor, cutoff_len), writer, batch_size=1)
    return Reporter(engine, context.report_format, asking_of(context), context.level_temperature or 1.0)


@contextmanager
def _without_bar() -> Iterator[None]:
    """Within, transformers shows no bar over a model's tensors, which come in no time or are waited for at the disk."""
    was_shown = logging.is_progress_bar_enabled()
    cast(Any, logging).disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            cast(Any, logging).enable_progress_bar()


@dataclass(frozen=True)
class _Photos:
    """Photos as rows, called by their numbers."""

    photos: list[Photo]
    asking: Asking

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Conversation:
        return self.asking.conversation(self.photos[index], str(index), source=self.photos[index].name)

    @property
    def ids(self) -> list[str]:
        return [str(index) for index in range(len(self.photos))]

    def id_of(self, index: int) -> str:
        return str(index)


def _photo(photo: AnyPhoto, number: int) -> Photo:
    if isinstance(photo, bytes):
        return Photo(data=photo, name=f"photo {number}")
    if isinstance(photo, Image.Image):
        return Photo(data=_encoded(photo), name=f"photo {number}")
    return Photo(path=Path(photo), name=str(photo))


def _encoded(picture: Image.Image) -> bytes:
    """Lossless, with its EXIF orientation, which is applied where all photos are opened; nothing if it is broken.

    TIFF holds the modes that PNG does not; what becomes of CMYK and the like is decided where photos are opened.
    """
    stream = io.BytesIO()
    form = "PNG" if picture.mode in _PNG_MODES else "TIFF"
    try:
        picture.save(stream, form, exif=picture.getexif())
    except (OSError, ValueError, SyntaxError):  # a file that Pillow opened lazily, and that is cut short
        return b""
    return stream.getvalue()
