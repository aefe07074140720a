"""Whether a path that stands in someone's data leads anywhere."""

from __future__ import annotations

from pathlib import Path


def is_file(path: Path) -> bool:
    """Whether a file can be found at `path`.

    False, where `Path.is_file` raises, for a name that is too long and for a folder that may not be entered.
    """
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether a folder can be found at `path`; False for all else, as `is_file`."""
    try:
        return path.is_dir()
    except OSError:
        return False
