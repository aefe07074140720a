"""Photos that tables name, found in the photo folder and nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from riskva.data.conversation import Photo
from riskva.paths import is_file
from riskva.tables.table_files import RowFault

_LONGEST_NAME = 200  # bytes; file systems take 255, and writers may add to it
_FOREIGN_ROOT = re.compile(r"[A-Za-z]:/|//")
_SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}


class PhotoLookup:
    """Finds photos in `folders`, of which the first that has one counts; none is left, not by symbolic links either.

    A folder may be such a link itself.
    """

    def __init__(self, folders: Sequence[Path], column: str) -> None:
        self._folders = folders
        self._column = column
        self._real_parents: dict[Path, Path] = {}
        self._real = {folder: Path(os.path.realpath(folder)) for folder in folders}

    def find(self, cell: str) -> Photo:
        """The photo that `cell` names; its `name` is relative to its folder, with forward slashes.

        Tables from Windows have the other slashes. Raises `RowFault`: `image_outside` when the folders would be left,
        `image_missing` when there is no such file.
        """
        names = self._names(cell)
        for folder, name in names.items():
            if is_file(folder / name):
                self._check_target(folder, name, cell)
                return Photo(path=folder / name, name=name)
        tried = ", nor ".join(_short(str(folder / name)) for folder, name in names.items())
        raise RowFault("image_missing", f"{self._column}: no such file: {tried}")

    def _names(self, cell: str) -> dict[Path, str]:
        """What the photo would be called in each folder that `cell` does not leave."""
        text = cell.strip().replace("\\", "/")
        if _FOREIGN_ROOT.match(text):
            raise RowFault(
                "image_outside",
                f"{_short(cell)!r} is a path of another computer, outside the photo folder "
                f"{self._folders[0]}; write paths that are relative to it",
            )
        names: dict[Path, str] = {}
        faults = []
        for folder in self._folders:
            try:
                names[folder] = self._relative(text, cell, folder)
            except RowFault as fault:
                faults.append(fault)
        if not names:
            raise faults[0]
        return names

    def _relative(self, text: str, cell: str, folder: Path) -> str:
        path = PurePosixPath(text)
        if path.is_absolute():
            roots = (folder.absolute(), self._real[folder])
            root = next((one for one in roots if path.is_relative_to(one.as_posix())), None)
            if root is None:
                raise RowFault("image_outside", f"{_short(cell)!r} lies outside the photo folder {folder}")
            path = path.relative_to(root.as_posix())
        parts: list[str] = []
        for part in path.parts:
            if part != "..":
                parts.append(part)
            elif parts:
                parts.pop()
            else:
                raise RowFault("image_outside", f"{_short(cell)!r} leads out of the photo folder {folder}")
        return "/".join(parts)

    def _check_target(self, folder: Path, name: str, cell: str) -> None:
        target = self._target(folder / name)
        if not target.is_relative_to(self._real[folder]):
            raise RowFault(
                "image_outside",
                f"{_short(cell)!r} links to {target}, outside the photo folder {folder}; copy it in",
            )

    def _target(self, path: Path) -> Path:
        """Where `path` really leads. A folder is looked up once: on a network disk every look is a round trip."""
        if path.is_symlink():
            return Path(os.path.realpath(path))
        if path.parent not in self._real_parents:
            self._real_parents[path.parent] = Path(os.path.realpath(path.parent))
        return self._real_parents[path.parent] / path.name


def named_photo(photo: Photo, row_id: str) -> Photo:
    """A picture that stood in the table itself, under a name that is safe to write files by.

    A name that leads elsewhere is cut to its last part; without any, or one too long, it is called after its row.
    """
    assert photo.data is not None
    text = _without_controls(photo.name).replace("\\", "/")
    path = PurePosixPath(text)
    if path.is_absolute() or _FOREIGN_ROOT.match(text) or ".." in path.parts:
        path = PurePosixPath(path.name if path.name != ".." else "")
    if path.name and all(len(part.encode()) <= _LONGEST_NAME for part in path.parts):
        return Photo(data=photo.data, name=str(path))
    suffix = next((name for start, name in _SUFFIXES.items() if photo.data.startswith(start)), "")
    safe = re.sub(r"[^\w.-]", "_", row_id).strip(".")[: _LONGEST_NAME // 4] or "photo"
    return Photo(data=photo.data, name=f"{safe}{suffix}")


def _without_controls(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable()).strip()


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:297]}..."
