"""The photos of a page: in the page while they are few, else as files in a folder beside it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from riskva.console import progress
from riskva.files import remove_folder

Photos = Callable[[int], Sequence[bytes]]
"""JPEGs of a row by its number, already small (640 px at most); none where a row has none."""

MOST_EMBEDDED = 8_000_000
"""Bytes of photos that a page may hold; beyond, mail and phones have trouble with it."""


@contextmanager
def photo_sources(numbers: Sequence[int], photos: Photos, folder: Path) -> Iterator[Mapping[int, Sequence[str]]]:
    """What the page's images are to name, by row: data URIs, or files in `folder` seen from beside it.

    Photos are asked for row by row, and no more than `MOST_EMBEDDED` bytes are held. `folder` is replaced, or removed
    where the page has no need of it, once the block has ended well; otherwise it is left as it was.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    remove_folder(partial)
    try:
        yield _sources(numbers, photos, folder.name, partial)
    except BaseException:
        remove_folder(partial)
        raise
    remove_folder(folder)
    if partial.is_dir():
        partial.replace(folder)


def _sources(numbers: Sequence[int], photos: Photos, name: str, partial: Path) -> Mapping[int, Sequence[str]]:
    held: dict[int, Sequence[bytes]] = {}
    num_bytes = 0
    files: dict[int, Sequence[str]] = {}
    for number in progress(numbers, len(numbers), "photos for the page"):
        held[number] = photos(number)
        num_bytes += sum(map(len, held[number]))
        if num_bytes > MOST_EMBEDDED:
            files |= {row: _write(row, jpegs, name, partial) for row, jpegs in held.items()}
            held.clear()
    if not files:
        return {row: [_data_uri(jpeg) for jpeg in jpegs] for row, jpegs in held.items()}
    return files


def _write(row: int, jpegs: Sequence[bytes], name: str, partial: Path) -> Sequence[str]:
    partial.mkdir(parents=True, exist_ok=True)
    names = [f"{row:05d}-{place}.jpg" for place in range(len(jpegs))]
    for file, jpeg in zip(names, jpegs, strict=True):
        (partial / file).write_bytes(jpeg)
    return [f"{name}/{file}" for file in names]


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
