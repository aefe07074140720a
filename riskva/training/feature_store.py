"""What a frozen vision tower made of photos, one file a photo.

A file holds numbers and nothing else: (tokens, hidden size), row after row. It takes its name when it is whole, so any
number of processes may write and read side by side, and a process that is killed leaves nothing that could be read.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_PARTIAL = ".partial"
_SECONDS_TO_WRITE = 3600
"""A file that has been partial for longer belongs to a process that was killed."""


@dataclass(frozen=True)
class FeatureStore:
    """The features in `folder`; its name must tell them from those of other towers (see `tower_fingerprint`)."""

    folder: Path
    hidden_size: int
    dtype: torch.dtype

    def find(self, data: bytes, num_tokens: int) -> tuple[str, Tensor | None]:
        """The key of the photo with these encoded bytes, and its features if they are here."""
        key = photo_key(data)
        return key, self.features(key, num_tokens)

    def features(self, key: str, num_tokens: int) -> Tensor | None:
        """(tokens, hidden size), mapped from the file; None where there is no file of just that size."""
        try:
            stream = self._path(key).open("rb")
        except FileNotFoundError:
            return None
        with stream:
            if os.fstat(stream.fileno()).st_size != self.num_bytes(num_tokens):
                return None
            # No `torch.from_file`: its tensors cannot be sent from one process to another.
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        return torch.frombuffer(content, dtype=self.dtype).view(num_tokens, self.hidden_size)

    def holds(self, key: str, num_tokens: int) -> bool:
        """Whether the features of that photo are here, as many as there should be."""
        try:
            return self._path(key).stat().st_size == self.num_bytes(num_tokens)
        except FileNotFoundError:
            return False

    def write(self, key: str, features: Tensor) -> None:
        """Keep (tokens, hidden size) numbers that lie in memory; on an `OSError` nothing is left of them.

        A `FileNotFoundError` says that the store's folder is gone.
        """
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        partial = path.with_name(f"{key}.{socket.gethostname()}-{os.getpid()}{_PARTIAL}")
        try:
            with partial.open("wb") as stream:
                stream.write(features.contiguous().view(torch.uint8).numpy().data)
                stream.flush()
                os.fsync(
                    stream.fileno()
                )  # or a machine that loses power keeps a file of the right size without content
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def num_bytes(self, num_tokens: int) -> int:
        """What the features of so many image tokens take."""
        return num_tokens * self.hidden_size * self.dtype.itemsize

    def delete_abandoned(self) -> None:
        """Delete what killed processes have left unfinished."""
        for entry in _files(self.folder):
            if entry.name.endswith(_PARTIAL):
                with suppress(FileNotFoundError):  # its process lives and has just finished it
                    if time.time() - entry.stat().st_mtime > _SECONDS_TO_WRITE:
                        Path(entry.path).unlink()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key


def photo_key(data: bytes) -> str:
    """What a photo is called in a store: 40 hex digits made of its encoded bytes."""
    return hashlib.blake2b(data, digest_size=20).hexdigest()


def stored_bytes(folder: Path) -> int:
    """What lies in a folder and all folders below it; 0 where there is none."""
    total = 0
    for entry in _files(folder):
        with suppress(FileNotFoundError):  # a partial file that has got its name meanwhile
            total += entry.stat().st_size
    return total


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            else:
                yield entry
