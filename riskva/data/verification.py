"""Whether a prepared data set's files are still those that its manifest.json lists.

By size, a file that is missing, cut short or another one is found in the time of a directory listing. A bit that has
flipped changes no size: only `full` finds it, at the price of reading every byte.
"""

from __future__ import annotations

import fnmatch
import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from riskva.console import progress
from riskva.data.datasets import named_entries
from riskva.data.manifest import MANIFEST_NAME, Manifest, WrittenFile, read_manifest
from riskva.data.parallel import num_cores, ordered_map
from riskva.data.registry import DatasetEntry, Registry, load_registry
from riskva.errors import DataError
from riskva.files import sha256_of

Verify = Literal["size", "full", "off"]

_MOST_EXAMPLES = 5
# Asking for a size is a wait, on a network disk half a millisecond; the threads wait side by side.
_SIZES_AT_ONCE = 32
_FILES_PER_TASK = 64


@dataclass(frozen=True)
class _Expected:
    """A file that a manifest lists, and where it is read from."""

    path: Path
    written: WrittenFile


def verify_datasets(names: Sequence[str], dataset_dir: Path, media_dir: Path | None, how: Verify) -> None:
    """Compare the files that these data sets are read from with the manifest in `dataset_dir`.

    `size` compares sizes, `full` the SHA-256 too, with a progress bar; photos are compared where a data set is JSONL.
    Without a manifest, and for data sets that it does not list, there is nothing to compare.

    Raises `DataError` that names the first files that differ, with what was expected and found.
    """
    manifest = read_manifest(dataset_dir) if how != "off" else None
    if manifest is None:
        return
    registry = load_registry(dataset_dir)
    expected, strangers = list[_Expected](), list[Path]()
    for entry in named_entries(names, registry):
        listed = _listed(_pattern(entry, registry), manifest)
        expected += [_Expected(dataset_dir / one.name, one) for one in listed]
        strangers += _strangers(entry, listed, dataset_dir)
    if any(one.path.suffix == ".jsonl" for one in expected):
        expected += _photos(manifest, media_dir or dataset_dir, dataset_dir)
    faults = [f"{path.name}: not listed in it" for path in strangers]
    faults += _faults(list({one.path: one for one in expected}.values()), how)
    if faults:
        raise DataError(_message(faults, dataset_dir / MANIFEST_NAME))


def _pattern(entry: DatasetEntry, registry: Registry) -> str:
    """The entry's files as the registry has them; a folder stands for all files in it."""
    file_name = os.path.normpath(registry.entries[entry.name]["file_name"])
    return os.path.normpath(f"{file_name}/*") if (registry.path.parent / file_name).is_dir() else file_name


def _listed(pattern: str, manifest: Manifest) -> list[WrittenFile]:
    """By the pattern, not by what it finds: a shard that is gone would not be missed otherwise."""
    return [one for one in manifest.files if fnmatch.fnmatchcase(os.path.normpath(one.name), pattern)]


def _strangers(entry: DatasetEntry, listed: Sequence[WrittenFile], dataset_dir: Path) -> Iterator[Path]:
    """Files that are read along with listed ones without being listed, such as a shard of an older data set."""
    known = {os.path.normpath(dataset_dir / one.name) for one in listed}
    return (path for path in entry.files if known and os.path.normpath(path) not in known)


def _photos(manifest: Manifest, media_dir: Path, dataset_dir: Path) -> Iterator[_Expected]:
    """The photos where rows find them: in `media_dir`, or else beside the JSONL."""
    is_elsewhere = media_dir.resolve() != dataset_dir.resolve()
    for one in manifest.photos:
        there = media_dir / one.name
        yield _Expected(there if is_elsewhere and there.is_file() else dataset_dir / one.name, one)


def _faults(expected: Sequence[_Expected], how: Verify) -> list[str]:
    found = list(itertools.chain.from_iterable(ordered_map(_sizes, _tasks(expected), _SIZES_AT_ONCE)))
    by_size = [(one, fault) for one, size in zip(expected, found, strict=True) if (fault := _size_fault(one, size))]
    if how == "size" or by_size or not expected:
        return [fault for _, fault in by_size]
    digests = progress(ordered_map(_digest_fault, expected, num_cores()), len(expected), "verifying", "file")
    return [fault for fault in digests if fault]


def _tasks(expected: Sequence[_Expected]) -> Iterator[Sequence[_Expected]]:
    return (expected[start : start + _FILES_PER_TASK] for start in range(0, len(expected), _FILES_PER_TASK))


def _sizes(expected: Sequence[_Expected]) -> list[int | None]:
    return [_size(one.path) for one in expected]


def _size(path: Path) -> int | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a hundred thousand times
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _size_fault(one: _Expected, size: int | None) -> str | None:
    if size == one.written.bytes:
        return None
    found = "no such file" if size is None else f"{size:,} bytes"
    return f"{one.written.name}: expected {one.written.bytes:,} bytes, found {found}"


def _digest_fault(one: _Expected) -> str | None:
    try:
        digest = sha256_of(one.path)
    except OSError as error:
        return f"{one.written.name}: cannot be read ({error.strerror})"
    if digest == one.written.sha256:
        return None
    return f"{one.written.name}: expected SHA-256 {one.written.sha256[:12]}…, found {digest[:12]}…"


def _message(faults: Sequence[str], manifest: Path) -> str:
    shown = "\n  ".join(faults[:_MOST_EXAMPLES])
    more = f"\n  and {len(faults) - _MOST_EXAMPLES} more" if len(faults) > _MOST_EXAMPLES else ""
    return (
        f"{len(faults)} file(s) are not as {manifest} lists them:\n  {shown}{more}\n"
        "copy or prepare the data set again; verify: off if the rows were edited on purpose"
    )
