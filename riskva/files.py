"""Files that are either whole or absent, and folders that one process works in."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from riskva.errors import OutputFolderError


@contextmanager
def write_whole(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write that takes its name only once it is complete; an exception leaves nothing under that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open(mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)


@contextmanager
def held_alone(lock: Path, otherwise: str) -> Iterator[None]:
    """No other process is in such a block with this lock file; `OutputFolderError` with that message while one is."""
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout as error:
        raise OutputFolderError(otherwise) from error
    try:
        yield
    finally:
        held.release()


def remove_folder(path: Path) -> None:
    """Remove the folder `path` and all in it; nothing where there is none.

    It first gets another name, so that a folder that is half removed is never taken for a whole one.
    """
    if path.is_dir():
        leaving = path.with_name(f"{path.name}.leaving")
        if leaving.exists():
            shutil.rmtree(leaving)  # of a run that was killed here
        path.replace(leaving)
        shutil.rmtree(leaving)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented UTF-8 JSON, whole or not at all."""
    with write_whole(path) as stream:
        json.dump(value, stream, ensure_ascii=False, indent=2)
        stream.write("\n")


def sha256_of(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
