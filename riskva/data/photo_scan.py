"""Which pictures lie in a folder and below it, or fit a pattern; folders are read once, and no file is opened.

Hidden files and folders count as absent, and with them the `._` files that macOS leaves beside photos. A folder that
symbolic links lead to in several ways, or in a circle, counts once: where it really lies, or else by the first link.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from riskva.console import warn
from riskva.errors import DataError, MissingDataError
from riskva.paths import is_folder

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif")

_WILDCARD = re.compile(r"[*?\[]")
_NUM_SHOWN = 3


@dataclass(frozen=True)
class Scan:
    """Files by their paths relative to `folder`, with forward slashes, in plain order: pictures, and all others."""

    folder: Path
    pictures: list[str]
    others: list[str]

    @classmethod
    def of(cls, folder: Path, files: Sequence[str]) -> Scan:
        """`files`, told apart by what their names end in."""
        return cls(folder, [one for one in files if is_picture(one)], [one for one in files if not is_picture(one)])


def is_picture(name: str) -> bool:
    """Whether the file's name ends as a picture's does, in upper or lower case."""
    return name.lower().endswith(PICTURE_SUFFIXES)


def is_pattern(source: Path) -> bool:
    """Whether the path holds a wildcard: `*`, `**`, `?` or `[…]`."""
    return _WILDCARD.search(str(source)) is not None


def scan_folder(folder: Path) -> Scan:
    """What lies in `folder` and below it. Raises `DataError` when the folder cannot be read."""
    return Scan.of(folder, sorted(_files(folder, lambda _: True)))


def scan_pattern(pattern: Path) -> Scan:
    """The files that `pattern` fits, relative to the folder before its first wildcard; `**` is any number of folders.

    Only folders that may hold such files are read. Raises `MissingDataError` without that folder, or when no file
    fits, and `DataError` when the folder cannot be read.
    """
    folder, parts = _parted(pattern)
    if not is_folder(folder):
        raise MissingDataError(f"images: {pattern}: no folder {folder}")
    files = sorted(_files(folder, lambda name: _may_hold(name.split("/"), parts)))
    if fitting := [name for name in files if _fits(name.split("/"), parts)]:
        return Scan.of(folder, fitting)
    raise MissingDataError(f"images: nothing fits the pattern {pattern}{_why_nothing_fits(folder, files, parts)}")


def counted(names: Sequence[str]) -> str:
    """How many files these are, in words."""
    return f"{len(names)} file" + ("s" if len(names) != 1 else "")


def shown(names: Sequence[str]) -> str:
    """The first of `names` for a message."""
    more = ", …" if len(names) > _NUM_SHOWN else ""
    return ", ".join(readable(name) for name in names[:_NUM_SHOWN]) + more


def readable(name: str) -> str:
    """A file's name as text that can be written: what is not UTF-8 is read as GBK, in which Chinese Windows names."""
    raw = os.fsencode(name)
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("utf-8", "backslashreplace")


def _files(folder: Path, enters: Callable[[str], bool]) -> Iterator[str]:
    """All files below `folder`, in any order; of the folders below, those that `enters` takes by their names."""
    waiting, links = [""], list[str]()
    seen: set[tuple[int, int]] = set()
    while waiting or links:
        prefix = waiting.pop() if waiting else heapq.heappop(links)
        for entry in _entries(folder, prefix, seen):
            name = prefix + entry.name
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                if enters(name) and entry.is_symlink():
                    heapq.heappush(links, name + "/")
                elif enters(name):
                    waiting.append(name + "/")
            elif entry.is_symlink() or entry.is_file():
                yield name


def _entries(folder: Path, prefix: str, seen: set[tuple[int, int]]) -> Iterator[os.DirEntry[str]]:
    """What lies in the folder at `prefix`, unless it was `seen`; one below that cannot be read is told of."""
    path = folder / prefix
    try:
        status = path.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(path) as entries:
            yield from entries
    except OSError as error:
        if not prefix:
            raise DataError(f"images: {folder}: the folder cannot be read ({error.strerror})") from error
        warn(f"{readable(str(path))}: the folder cannot be read ({error.strerror}); what lies in it is left out")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _parted(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder that the pattern begins in, and the rest, which begins with a wildcard.

    A part with brackets that is a folder's very name is no wildcard.
    """
    folder, parts = Path(), list(pattern.parts)
    while len(parts) > 1 and (not _WILDCARD.search(parts[0]) or is_folder(folder / parts[0])):
        folder /= parts.pop(0)
    return folder, tuple(parts)


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether a file, by the `names` on the way to it, fits; a `**` at the end takes all that lies below."""
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_fits(names[start:], parts[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _may_hold(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether files in the folder with these `names`, or below it, may fit."""
    if not parts or parts[0] == "**" or not names:
        return bool(parts)
    return fnmatchcase(names[0], parts[0]) and _may_hold(names[1:], parts[1:])


def _why_nothing_fits(folder: Path, files: Sequence[str], parts: Sequence[str]) -> str:
    lowered = [part.lower() for part in parts]
    if other_case := [name for name in files if _fits(name.lower().split("/"), lowered)]:
        return f"; {counted(other_case)} would if it did not matter that letters are large or small: " + shown(
            other_case
        )
    if any("{" in part for part in parts):
        return ": braces stand for themselves; name a folder or end in /** to take all pictures in it"
    return f": of {counted(files)} looked at in {folder}" + (f" ({shown(files)})" if files else "")
