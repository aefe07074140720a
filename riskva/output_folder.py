"""Who may write into an output folder: a fresh run, or the same run going on; nobody's files are lost by accident.

A run first checks its folder, then all else that may be wrong, and takes the folder last, just before it begins. A
folder that a run has taken bears a `recipe.yaml` whose first line says so.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout

from riskva.errors import OutputFolderError
from riskva.files import write_whole

RECIPE_FILE = "recipe.yaml"

LOCK_FILE = ".lock"

LEFT_IN_TAKING = (LOCK_FILE, f"{RECIPE_FILE}.partial")
"""All that a run leaves which was killed before it had marked its folder."""

MARK = "# The recipe of this run as riskva-run resolved it.\n"


@dataclass(frozen=True)
class OutputFolder:
    """A folder that one run wants to write into.

    `recipe_text` is the resolved recipe without the keys that only say how to start. `finished_file` is written last
    of all. `owned` are regular expressions for the names of all that such a run writes, directly in the folder.
    """

    path: Path
    recipe_text: str
    finished_file: str
    owned: tuple[str, ...]
    overwrite: bool

    @cached_property
    def _lock(self) -> FileLock:
        return FileLock(self.path / LOCK_FILE)

    def check(self, inputs: Iterable[Path | str | None] = ()) -> bool:
        """True when the folder holds this very run, unfinished, to go on with; False when it may be taken afresh.

        Nothing is changed. An unfinished run of the same recipe goes on even with `overwrite`: the same command
        resumes. Raises `OutputFolderError` for a folder with something else in it, unless `overwrite` lets this run
        delete it: that takes a folder that a run of RisKVA has marked, and none of the `inputs` inside it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise OutputFolderError(f"{self.path} is a file; name a folder")
        if not self.path.is_dir() or not any(path.name not in LEFT_IN_TAKING for path in self.path.iterdir()):
            return False
        if self.holds_this_run_unfinished():
            return True
        if not self.overwrite:
            raise OutputFolderError(self._refusal())
        self._check_overwriting(inputs)
        return False

    def take(self, goes_on: bool) -> None:
        """Make the folder this run's: delete what an overwritten run left, unless this run goes on, and mark it.

        A run that goes on is unfinished from here, also when it lengthens one that had finished. Raises
        `OutputFolderError` while another process writes into the folder; it is free again when this object goes.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise OutputFolderError(f"another run is writing into {self.path}; let it end, or end it") from error
        is_anothers = self._recipe_there() is not None and not self.holds_this_run_unfinished()
        if is_anothers and not (goes_on or self.overwrite):
            raise OutputFolderError(f"another run has taken {self.path} meanwhile; {self._refusal()}")
        if goes_on:
            (self.path / self.finished_file).unlink(missing_ok=True)
        elif self.overwrite:
            for path in self._owned_paths():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        with write_whole(self.path / RECIPE_FILE) as stream:
            stream.write(MARK + self.recipe_text)

    def holds_this_run(self) -> bool:
        """Whether a run of the very same recipe has taken the folder."""
        return self._recipe_there() == self.recipe_text

    def holds_this_run_unfinished(self) -> bool:
        """Whether such a run has not come to its end."""
        return self.holds_this_run() and not (self.path / self.finished_file).exists()

    def _owned_paths(self) -> list[Path]:
        pattern = re.compile("|".join([*self.owned, re.escape(self.finished_file), re.escape(RECIPE_FILE)]))
        return [path for path in self.path.iterdir() if pattern.fullmatch(path.name)] if self.path.is_dir() else []

    def _recipe_there(self) -> str | None:
        path = self.path / RECIPE_FILE
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        return text.removeprefix(MARK) if text.startswith(MARK) else None

    def _check_overwriting(self, inputs: Iterable[Path | str | None]) -> None:
        here = self.path.resolve()
        for name in inputs:
            if name is not None and Path(name).exists() and Path(name).resolve().is_relative_to(here):
                raise OutputFolderError(f"{name} lies in the output folder {self.path}: overwriting would delete it")
        if self._recipe_there() is None and self._owned_paths():
            names = ", ".join(sorted(path.name for path in self._owned_paths())[:5])
            raise OutputFolderError(
                f"{self.path} holds {names}, which no run of RisKVA has marked as its own: name another folder, or "
                "delete them yourself"
            )

    def _refusal(self) -> str:
        if self._recipe_there() is None:
            return f"{self.path} is not empty; name another folder"
        if (self.path / self.finished_file).exists():
            state = "holds a finished run"
        else:
            state = f"holds an unfinished run of another recipe (compare {self.path / RECIPE_FILE})"
        return f"{self.path} {state}; name another folder, or set overwrite_output_dir: true to replace what is there"
