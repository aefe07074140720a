"""Who may write into an output folder: a fresh run, or the same run going on; nobody's files are lost by accident."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from riskva.errors import OutputFolderError
from riskva.files import write_whole

RECIPE_FILE = "recipe.yaml"


def claim(folder: Path, recipe_text: str, finished_file: str, owned: Iterable[str], overwrite: bool) -> bool:
    """Make `folder` this run's own; True when it holds the same run, unfinished, to go on with.

    `recipe_text` is the resolved recipe and is written as `recipe.yaml`; a folder with the very same one and without
    `finished_file` is a run to go on with. With `overwrite`, files and folders that match the `owned` patterns are
    deleted first, and nothing else. A folder with nothing but a `recipe.yaml` is that of a run that failed before it
    began, and is free. Raises `OutputFolderError` for every other folder with something in it.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputFolderError(f"{folder} is a file; name a folder")
    if overwrite:
        _delete(folder, [*owned, finished_file, RECIPE_FILE])
    elif folder.is_dir() and any(path.name != RECIPE_FILE for path in folder.iterdir()):
        if _same_recipe(folder, recipe_text) and not (folder / finished_file).exists():
            return True
        raise OutputFolderError(_refusal(folder, finished_file))
    with write_whole(folder / RECIPE_FILE) as stream:
        stream.write(recipe_text)
    return False


def _same_recipe(folder: Path, recipe_text: str) -> bool:
    path = folder / RECIPE_FILE
    return path.is_file() and path.read_text(encoding="utf-8") == recipe_text


def _delete(folder: Path, patterns: Iterable[str]) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _refusal(folder: Path, finished_file: str) -> str:
    if (folder / finished_file).exists():
        state = "holds a finished run"
    elif (folder / RECIPE_FILE).exists():
        state = f"holds an unfinished run of another recipe (compare {folder / RECIPE_FILE})"
    else:
        state = "is not empty"
    return f"{folder} {state}; name another folder, or set overwrite_output_dir: true to replace what is there"
