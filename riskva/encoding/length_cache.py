"""What a survey found, kept for the next start: a hundred thousand rows are then measured in the time of a listing.

A kept survey counts as long as nothing that it was made from has changed: the rows and how they are read, their files,
the photos' files, the tokenizer, the image processor's settings, and the code that measures. Files are compared by
path, size and times, photos each by itself; those within the rows' files are part of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import tokenizers
import transformers

import riskva.data
import riskva.encoding
from riskva.console import note, warn
from riskva.data.datasets import ConversationDataset
from riskva.data.stamps import Stamped, digest_of, stamped_all
from riskva.encoding.lengths import Lengths
from riskva.encoding.processor import Processor
from riskva.encoding.survey import Asked, Survey, survey
from riskva.files import write_whole

SUFFIX = ".lengths"

_MOST_FILES = 32
"""Surveys that are kept in one folder, the newest: one for each data set, tokenizer and pixel limit that is in use."""

_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class LengthCache:
    """The surveys of one processor that are kept in `folder`, one file each; nothing is written if not `writes`.

    Several processes may use a folder at the same time. One that cannot be written to is done without.
    """

    folder: Path
    processor: Processor
    writes: bool = True

    def survey(self, rows: ConversationDataset, what: str, num_workers: int = 1) -> Survey:
        """The survey of these rows: the kept one if nothing has changed since, or else a new one, kept from now on.

        Raises `DataError` as `survey` does; then nothing is kept.
        """
        path = self.folder / f"{self._key(rows)}{SUFFIX}"
        kept = _read(path)
        if kept is not None and kept.counts():
            note(f"{what}: {len(rows)} rows were measured before ({path})")
            return kept.survey
        photo_files = list[Stamped]()
        found = survey(rows, self.processor, what, num_workers, photo_files)
        if self.writes:
            _keep(_Kept(found, [one.path for one in photo_files], digest_of(photo_files)), path)
        return found

    def _key(self, rows: ConversationDataset) -> str:
        return hashlib.sha256(f"{self._how_measured} {rows.digest()}".encode()).hexdigest()[:32]

    @cached_property
    def _how_measured(self) -> str:
        """A hex digest of all but the rows that lengths depend on."""
        digest = hashlib.sha256(repr([_code(), *_versions()]).encode())
        tokenizer = self.processor.tokenizer
        digest.update(f"{tokenizer.split_special_tokens} {tokenizer.backend_tokenizer.to_str()}".encode())
        digest.update(self.processor.image_processor.to_json_string().encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class _Kept:
    """A survey, the files that its rows' photos lie in, and the digest of these files as they were."""

    survey: Survey
    photo_paths: Sequence[str]
    photos_digest: str

    def counts(self) -> bool:
        """Whether the photos' files are still the same."""
        return digest_of(stamped_all(self.photo_paths)) == self.photos_digest


def _versions() -> list[str]:
    return [one.__version__ for one in (transformers, tokenizers, PIL)]


def _code() -> str:
    """A hex digest of the code that reads and measures rows."""
    digest = hashlib.sha256()
    for package in (riskva.data, riskva.encoding):
        for path in sorted(Path(str(package.__file__)).parent.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _keep(kept: _Kept, path: Path) -> None:
    data = _to_bytes(kept)
    own = path.with_name(f"{uuid.uuid4().hex}{SUFFIX}")  # another run may be writing the same survey
    try:
        with write_whole(own, "wb") as stream:
            stream.write(hashlib.sha256(data).digest() + data)
        own.replace(path)
        _make_room(path.parent)
    except OSError as error:
        note(f"{path.parent}: the rows' lengths cannot be kept here ({error.strerror}); each start measures them")


def _make_room(folder: Path) -> None:
    """Remove all but the newest files, those that a killed run has left half-written among them."""
    files: list[tuple[int, Path]] = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another run makes room as well
            files.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(files, reverse=True)[_MOST_FILES:]:
        path.unlink(missing_ok=True)


def _read(path: Path) -> _Kept | None:
    """What the file holds; None where there is none, and with a warning where it is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        warn(f"{path} cannot be read ({error.strerror}): measuring the rows again")
        return None
    digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(data).digest() != digest:
        warn(f"{path} is damaged: measuring the rows again")
        return None
    return _from_bytes(data)


def _to_bytes(kept: _Kept) -> bytes:
    """The arrays of an .npz file; texts are in it as bytes."""
    found, stream = kept.survey, BytesIO()
    asked = {"system_prompts": list(found.asked.system_prompts), "questions": list(found.asked.questions)}
    np.savez_compressed(
        stream,
        num_text_tokens=found.lengths.num_text_tokens,
        num_image_tokens=found.lengths.num_image_tokens,
        unanswered=np.array(found.unanswered, np.int64),
        asked=_array(json.dumps(asked).encode()),
        photo_paths=_array(os.fsencode("\0".join(kept.photo_paths))),
        photos_digest=_array(kept.photos_digest.encode()),
    )
    return stream.getvalue()


def _from_bytes(data: bytes) -> _Kept:
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        lengths = Lengths(arrays["num_text_tokens"], arrays["num_image_tokens"])
        asked = json.loads(arrays["asked"].tobytes())
        paths = os.fsdecode(arrays["photo_paths"].tobytes())
        return _Kept(
            Survey(
                lengths,
                Asked(frozenset(asked["system_prompts"]), frozenset(asked["questions"])),
                tuple(arrays["unanswered"].tolist()),
            ),
            paths.split("\0") if paths else [],
            arrays["photos_digest"].tobytes().decode(),
        )


def _array(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(data, np.uint8)
