"""A data set's folder: built out of sight, put in place when it is whole, and never at the cost of others' files.

`output_dir`/.prepare.partial is where the work lies: a folder for each part's pieces, and the files of the data set
until they are whole. It stays when a run is killed or fails, so that the same command goes on, and goes when the data
set is in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from riskva.data.manifest import MANIFEST_NAME, Manifest, read_manifest
from riskva.data.registry import FEATURES_FOLDER, LENGTHS_FOLDER, REGISTRY_NAME
from riskva.errors import OutputFolderError
from riskva.files import held_alone, remove_folder, write_json, write_whole
from riskva.parts import Part

QUARANTINE_NAME = "quarantine.jsonl"
"""The bad rows of a data set, or of a run that failed where there is no data set."""
AUDIT_NAME = "audit.json"
AUDIT_PAGE_NAME = "audit.html"

WORK_FOLDER = ".prepare.partial"

_DESCRIPTIONS = (QUARANTINE_NAME, AUDIT_NAME, AUDIT_PAGE_NAME)
"""What describes a data set beside its manifest, and a failed run where there is none."""


class Staging:
    """The output folder of one data set.

    Raises `OutputFolderError` when `output_dir` holds anything else, unless `overwrite` is set; even then only
    files that a former run wrote make way, and only once the new ones are whole.
    """

    def __init__(self, output_dir: Path, overwrite: bool, expected: Iterable[str] = ()) -> None:
        self.output_dir = output_dir
        self.work = output_dir / WORK_FOLDER
        self.folder = self.work / "set"
        """Where the data set's files are built."""
        self._check_is_folder()
        self._former = set(_listed(output_dir))
        self._unfinished = self._half_published()
        self._refuse_names_outside()
        if not overwrite:
            self._refuse_content()
        self.refuse_clashes(expected)

    def _half_published(self) -> set[str]:
        """What a run that was killed while it published may have put in place; its registry would have come last."""
        if (self.output_dir / REGISTRY_NAME).exists() or not (self.folder / REGISTRY_NAME).exists():
            return set()
        return {*(_listed(self.folder) or _listed(self.output_dir)), MANIFEST_NAME}

    def failure_path(self, name: str) -> Path:
        """Where a run that fails describes itself: `name`, with `.failed` in it where a data set stands already."""
        stands = (self.output_dir / MANIFEST_NAME).exists()
        return self.output_dir / (_failed(name) if stands else name)

    def part_folder(self, part: Part) -> Path:
        """Where the pieces of `part` lie."""
        return self.work / part.name

    @contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Nobody else works on `what` (a part's name, or `set`) while the block runs.

        When nothing has come of the work, no trace of it is left. Raises `OutputFolderError` while another process is
        at it.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        lock = self.work / f"{what}.lock"
        try:
            with held_alone(lock, f"another run is writing into {self.output_dir}; let it end, or end it"):
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
        finally:
            for folder in (self.work, self.output_dir):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

    def begin(self, key: str) -> None:
        """Ready `folder` for the data set that `key` stands for: files of that key that are whole are kept.

        Files that a killed run had put in place already, without coming to its end, go back.
        """
        for name in self._unfinished - {MANIFEST_NAME}:
            there, back = self.output_dir / name, self.folder / name
            if there.exists() and not back.exists():
                back.parent.mkdir(parents=True, exist_ok=True)
                there.replace(back)
        self._remove_from_output(self._unfinished)
        kept = self.folder / "key"
        if not kept.is_file() or kept.read_text(encoding="ascii") != key:
            remove_folder(self.folder)
            with write_whole(kept) as stream:
                stream.write(key)
        for name in (REGISTRY_NAME, MANIFEST_NAME):
            (self.folder / name).unlink(missing_ok=True)

    def publish(self, manifest: Manifest, registry: Mapping[str, Any]) -> None:
        """Put the files that `manifest` names in place, what describes them, the manifest, then the registry."""
        self.refuse_clashes(manifest.names)
        write_json(self.folder / MANIFEST_NAME, manifest.to_json())
        write_json(self.folder / REGISTRY_NAME, dict(registry))
        # The registry goes first and comes last: a half-replaced data set has no name to be opened by.
        # The manifest goes after all that it lists, so that a killed run leaves no file that nobody knows of.
        failed = [_failed(name) for name in _DESCRIPTIONS]
        self._remove_from_output([REGISTRY_NAME, *self._former, *failed, MANIFEST_NAME])
        for name in manifest.names:
            (self.output_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).replace(self.output_dir / name)
        for name in (*_DESCRIPTIONS, MANIFEST_NAME, REGISTRY_NAME):
            (self.folder / name).replace(self.output_dir / name)

    def clear(self, parts: Iterable[Part]) -> None:
        """Remove the pieces of these parts and what is left of the work, but not other parts that lie there.

        Only for who has locked them all.
        """
        for folder in (*map(self.part_folder, parts), self.folder):
            remove_folder(folder)

    @property
    def _own(self) -> set[str]:
        registry = {REGISTRY_NAME, MANIFEST_NAME} if (self.output_dir / MANIFEST_NAME).exists() else set[str]()
        return {*_DESCRIPTIONS, WORK_FOLDER} | self._unfinished | self._former | registry

    def _check_is_folder(self) -> None:
        try:
            real = self.output_dir.resolve(strict=False)
            there = next(one for one in (real, *real.parents) if one.exists())
        except (OSError, RuntimeError) as error:  # a name that is too long, links in a circle
            raise OutputFolderError(f"{self.output_dir}: output_dir cannot be made ({error}); name another") from error
        if not there.is_dir():
            what = "is a file" if there == real else f"lies below {there}, which is a file"
            raise OutputFolderError(f"{self.output_dir}: output_dir {what}; name a folder")
        if self.output_dir.is_symlink() and not self.output_dir.exists():
            raise OutputFolderError(f"{self.output_dir}: output_dir is a link to nothing; make the folder it leads to")
        if self.work.is_symlink() or (self.work.exists() and not self.work.is_dir()):
            raise OutputFolderError(f"{self.work}: something else bears this name, which prepare needs; remove it")

    def _refuse_content(self) -> None:
        unfinished = {name.split("/")[0] for name in self._unfinished}
        kept_by_training = {LENGTHS_FOLDER, FEATURES_FOLDER}
        harmless = {*_DESCRIPTIONS, *map(_failed, _DESCRIPTIONS), WORK_FOLDER} | kept_by_training | unfinished
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


def _failed(name: str) -> str:
    path = Path(name)
    return f"{path.stem}.failed{path.suffix}"


def _is_inside(folder: Path, root: Path) -> bool:
    return folder.resolve().is_relative_to(root)


def _listed(folder: Path) -> tuple[str, ...]:
    manifest = read_manifest(folder)
    return manifest.names if manifest else ()
