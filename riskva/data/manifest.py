"""manifest.json: what `stage: prepare` wrote, from what, and in which form the answers are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from riskva.errors import DataError
from riskva.report import ReportField, ReportFormat

MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True)
class WrittenFile:
    """A file of the data set: its name relative to the folder, size in bytes, SHA-256, and rows (None for a photo)."""

    name: str
    bytes: int
    sha256: str
    rows: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"a file's name is text, not {self.name!r}")


@dataclass(frozen=True)
class SourceTable:
    """A table that a data set was made from; `encoding` says in words how it was read."""

    path: str
    sha256: str
    encoding: str
    rows: int
    bad_rows: int


@dataclass(frozen=True)
class Manifest:
    """What a prepared data set consists of and how it came about; nothing in it depends on time or machine load."""

    riskva_version: str
    tables: tuple[SourceTable, ...]
    recipe: Mapping[str, Any]
    report_format: ReportFormat
    system_prompt: str
    question: str
    files: tuple[WrittenFile, ...]
    photos: tuple[WrittenFile, ...] = field(default=(), repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Every file of the data set, relative to its folder; the manifest and the registry are not among them."""
        return tuple(one.name for one in (*self.photos, *self.files))

    @property
    def fingerprint(self) -> str:
        """A hex digest of all files' names and contents: equal data sets have equal ones, wherever they lie."""
        digest = hashlib.sha256()
        for one in sorted((*self.photos, *self.files), key=lambda one: one.name):
            digest.update(f"{one.name}\0{one.sha256}\n".encode())
        return digest.hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The manifest as it stands in the file."""
        return {
            "riskva_version": self.riskva_version,
            "fingerprint": self.fingerprint,
            "tables": [asdict(one) for one in self.tables],
            "recipe": dict(self.recipe),
            "answer_fields": [asdict(one) for one in self.report_format.fields],
            "system_prompt": self.system_prompt,
            "question": self.question,
            "files": [asdict(one) for one in self.files],
            "photos": [{key: value for key, value in asdict(one).items() if key != "rows"} for one in self.photos],
        }


def read_manifest(dataset_dir: Path) -> Manifest | None:
    """The manifest of the data set in `dataset_dir`; None where there is none, as for data made elsewhere.

    Raises `DataError` when the file is there but is no manifest.
    """
    path = dataset_dir / MANIFEST_NAME
    if not path.is_file():
        return None
    try:
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(
            f"{path}: not a manifest of `stage: prepare` ({error!r}); prepare the data set again"
        ) from error


def _from_json(raw: dict[str, Any]) -> Manifest:
    return Manifest(
        raw["riskva_version"],
        tuple(SourceTable(**one) for one in raw["tables"]),
        raw["recipe"],
        ReportFormat(tuple(ReportField(**one) for one in raw["answer_fields"])),
        raw["system_prompt"],
        raw["question"],
        tuple(WrittenFile(**one) for one in raw["files"]),
        tuple(WrittenFile(**one) for one in raw["photos"]),
    )
