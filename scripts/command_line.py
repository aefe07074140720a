"""Argument types that the scripts share: a wrong value ends in one line."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path


def count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """Width and height in pixels: `112` as (112, 112), `4000x3000` as it stands."""
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise ArgumentTypeError(f"expected a size such as 112 or 4000x3000, found {text!r}")
    return int(sides[0]), int(sides[-1])


def folder_to_write(text: str) -> Path:
    """A folder, which need not be there yet."""
    path = _path(text)
    if path.exists() and not path.is_dir():
        raise ArgumentTypeError(f"{text} is a file; name a folder")
    return path


def file_to_write(text: str) -> Path:
    """A file, which need not be there yet."""
    path = _path(text)
    if path.is_dir():
        raise ArgumentTypeError(f"{text} is a folder; name a file")
    return path


def _path(text: str) -> Path:
    if not text.strip():
        raise ArgumentTypeError("expected a path, found nothing")
    path = Path(text)
    for parent in path.parents:
        if parent.exists() and not parent.is_dir():
            raise ArgumentTypeError(f"{parent} is a file, so {text} cannot be written")
    return path
