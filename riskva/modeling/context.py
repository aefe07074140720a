"""`riskva.json`: what a checkpoint carries besides its weights, so that training and serving cannot drift apart."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from riskva.encoding.processor import DEFAULT_MAX_PIXELS, DEFAULT_MIN_PIXELS, IMAGE_BACKEND
from riskva.errors import ModelError
from riskva.files import write_json
from riskva.report import DEFAULT_FORMAT, ReportField, ReportFormat

FILE_NAME = "riskva.json"

EXIF_POLICY = "turned"

RECORDED_PACKAGES = ("riskva", "torch", "transformers", "peft", "pillow")


def _versions() -> Mapping[str, str]:
    return {name: version(name) for name in RECORDED_PACKAGES}


@dataclass(frozen=True)
class ModelContext:
    """How a model was taught to see and to be asked.

    `system_prompt` and `question` (with its `<image>` mark) are None when the training rows differ in them.
    `level_temperature` is what `stage: calibrate` has fitted: probabilities of levels are tempered by it.
    `image_backend` and `exif` name the rules for photos: PIL's bicubic, and EXIF orientation applied once.
    """

    base_model: str
    report_format: ReportFormat = DEFAULT_FORMAT
    system_prompt: str | None = None
    question: str | None = None
    image_max_pixels: int = DEFAULT_MAX_PIXELS
    image_min_pixels: int = DEFAULT_MIN_PIXELS
    image_backend: str = IMAGE_BACKEND
    exif: str = EXIF_POLICY
    template: str = "qwen2_vl"
    dataset_fingerprint: str | None = None
    level_temperature: float | None = None
    versions: Mapping[str, str] = field(default_factory=_versions)

    def save(self, folder: Path) -> None:
        """Write `riskva.json` into `folder`."""
        values = asdict(self)
        values["report_format"] = [asdict(one) for one in self.report_format.fields]
        write_json(folder / FILE_NAME, values)

    @classmethod
    def load(cls, folder: Path) -> ModelContext | None:
        """The context in `folder`, or None when a model was not made by RisKVA.

        Raises `ModelError` when the file is damaged or asks for pixels that this version does not make.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            return None
        try:
            context = cls._from_json(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(f"{path}: damaged ({error}); copy it again from the training run") from error
        for name, ours in (("image_backend", IMAGE_BACKEND), ("exif", EXIF_POLICY)):
            if getattr(context, name) != ours:
                raise ModelError(f"{path}: {name} is {getattr(context, name)!r}, this version only knows {ours!r}")
        return context

    @classmethod
    def _from_json(cls, values: dict[str, Any]) -> ModelContext:
        fields = tuple(ReportField(**one) for one in values.pop("report_format"))
        context = cls(report_format=ReportFormat(fields), **values)
        for name, kinds in (("image_max_pixels", int), ("image_min_pixels", int), ("base_model", str)):
            if not isinstance(getattr(context, name), kinds):
                raise ValueError(f"{name} is {getattr(context, name)!r}")
        for name in ("system_prompt", "question"):
            if not isinstance(getattr(context, name), str | None):
                raise ValueError(f"{name} is {getattr(context, name)!r}")
        temperature = context.level_temperature
        if temperature is not None and not (isinstance(temperature, int | float) and 0 < temperature < math.inf):
            raise ValueError(f"level_temperature is {temperature!r}")
        if not 0 < context.image_min_pixels <= context.image_max_pixels:
            raise ValueError(
                f"image_min_pixels {context.image_min_pixels}, image_max_pixels {context.image_max_pixels}"
            )
        return context
