"""A data set's folder: built out of sight, put in place when it is whole, and never at the cost of others' files."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from riskva.data.manifest import MANIFEST_NAME, Manifest, read_manifest
from riskva.data.registry import REGISTRY_NAME
from riskva.errors import OutputFolderError
from riskva.files import write_json

QUARANTINE_NAME = "quarantine.jsonl"
"""The bad rows of a data set, or of a run that failed where there is no data set."""
FAILED_QUARANTINE_NAME = "quarantine.failed.jsonl"
"""The bad rows of a run that was to overwrite a data set and failed; the data set keeps its own list."""

_BUILD_FOLDER = ".prepare.partial"


class Staging:
    """A folder inside `output_dir` to build a data set in; `publish` gives its files their names, all at the end.

    Used in a `with` block: whatever is unpublished when it ends is removed. A run that was killed leaves only the
    hidden folder, which the next run clears, along with files that the killed one was about to publish.

    Raises `OutputFolderError` when `output_dir` holds anything else, unless `overwrite` is set; even then only
    files that a former run wrote make way, and only once the new ones are whole.
    """

    def __init__(self, output_dir: Path, overwrite: bool, expected: Iterable[str] = ()) -> None:
        self.output_dir = output_dir
        self.folder = output_dir / _BUILD_FOLDER
        self._check_is_folder()
        self._unfinished = set(_listed(self.folder)) if not (output_dir / MANIFEST_NAME).exists() else set[str]()
        self._former = set(_listed(output_dir))
        self._refuse_names_outside()
        if not overwrite:
            self._refuse_content()
        self.refuse_clashes(expected)

    @property
    def failure_list(self) -> Path:
        """Where a run that fails lists its bad rows."""
        stands = (self.output_dir / MANIFEST_NAME).exists()
        return self.output_dir / (FAILED_QUARANTINE_NAME if stands else QUARANTINE_NAME)

    def __enter__(self) -> Staging:
        if self.folder.exists():
            self._remove_from_output(self._unfinished)
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder)

    def publish(self, manifest: Manifest, registry: Mapping[str, Any]) -> None:
        """Put the files that `manifest` names in place, the list of bad rows, the manifest, then the registry."""
        self.refuse_clashes(manifest.names)
        write_json(self.folder / MANIFEST_NAME, manifest.to_json())
        write_json(self.folder / REGISTRY_NAME, dict(registry))
        # The registry goes first and comes last: a half-replaced data set has no name to be opened by.
        # The manifest goes after all that it lists, so that a killed run leaves no file that nobody knows of.
        self._remove_from_output([REGISTRY_NAME, *self._former, FAILED_QUARANTINE_NAME, MANIFEST_NAME])
        for name in manifest.names:
            (self.output_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).replace(self.output_dir / name)
        if (self.folder / QUARANTINE_NAME).exists():
            (self.folder / QUARANTINE_NAME).replace(self.output_dir / QUARANTINE_NAME)
        (self.folder / MANIFEST_NAME).replace(self.output_dir / MANIFEST_NAME)
        (self.folder / REGISTRY_NAME).replace(self.output_dir / REGISTRY_NAME)

    @property
    def _own(self) -> set[str]:
        registry = {REGISTRY_NAME, MANIFEST_NAME} if (self.output_dir / MANIFEST_NAME).exists() else set[str]()
        return {QUARANTINE_NAME, _BUILD_FOLDER} | self._unfinished | self._former | registry

    def _check_is_folder(self) -> None:
        if self.output_dir.exists() and not self.output_dir.is_dir():
            raise OutputFolderError(f"{self.output_dir}: output_dir is a file; name a folder")

    def _refuse_content(self) -> None:
        unfinished = {name.split("/")[0] for name in self._unfinished}
        harmless = {QUARANTINE_NAME, FAILED_QUARANTINE_NAME, _BUILD_FOLDER} | unfinished
        found = sorted(path.name for path in self.output_dir.glob("*") if path.name not in harmless)
        if found:
            shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
            raise OutputFolderError(
                f"{self.output_dir}: output_dir is not empty ({shown}); name another folder, or set "
                "overwrite_output_dir: true to replace what a former prepare wrote there"
            )

    def refuse_clashes(self, names: Iterable[str]) -> None:
        """Raise `OutputFolderError` when a file that no former run wrote bears one of `names`."""
        strangers = [name for name in names if name not in self._own and (self.output_dir / name).exists()]
        if strangers:
            raise OutputFolderError(
                f"{self.output_dir / strangers[0]}: prepare would write this file, and did not write the one that is "
                f"there ({len(strangers)} such); move it away or name another output_dir"
            )

    def _refuse_names_outside(self) -> None:
        """Names in a manifest are deleted when it is overwritten, so they must not lead out of the folder."""
        root = self.output_dir.resolve()
        names = sorted(self._unfinished | self._former)
        inside = {parent for parent in {(root / name).parent for name in names} if _is_inside(parent, root)}
        for name in names:
            path = root / name
            if path.parent not in inside or ".." in path.parts or (path.is_dir() and not path.is_symlink()):
                raise OutputFolderError(
                    f"{self.output_dir}: {MANIFEST_NAME} there lists {name!r}, which is no file inside the folder, so "
                    "prepare did not write it; remove that manifest or name another output_dir"
                )

    def _remove_from_output(self, names: Iterable[str]) -> None:
        folders: set[Path] = set()
        for name in names:
            (self.output_dir / name).unlink(missing_ok=True)
            folders.update(self.output_dir / parent for parent in Path(name).parents if parent.name)
        for folder in sorted(folders, key=lambda path: -len(path.parts)):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _is_inside(folder: Path, root: Path) -> bool:
    return folder.resolve().is_relative_to(root)


def _listed(folder: Path) -> tuple[str, ...]:
    manifest = read_manifest(folder)
    return manifest.names if manifest else ()
