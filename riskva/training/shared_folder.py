"""Folders that a run fills and takes away with it, in memory or on disk, and the room that there is for them.

Memory as files is /dev/shm. What a killed run has left there would stay until the machine starts anew, so each run
holds a lock as long as it lives, and later runs delete the folders whose lock nobody holds.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from riskva.errors import RecipeError

Place = Literal["memory", "disk"]

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux has memory as files."""

SECONDS_TO_WAIT = 30.0
"""The workers of a killed run hold its lock for some seconds more."""


@contextmanager
def own_folder(folder: Path | None, all_runs: Path, seconds_to_wait: float = SECONDS_TO_WAIT) -> Iterator[None]:
    """`folder`, empty and this run's alone; deleted at the end, also on an exception.

    `all_runs` holds the folders of all of this user's runs that keep the like in memory, `folder` too if it is to be
    in memory. What killed runs have left there is deleted first, also without a folder. Raises `RecipeError` while
    another run has the folder.
    """
    own = folder if folder is not None and folder.parent == all_runs else None
    with ExitStack() as stack:
        if own is not None or all_runs.is_dir():
            stack.enter_context(_place_in_memory(all_runs, own, seconds_to_wait))
        if folder is not None:
            _delete(folder)  # what a killed run has left on disk
            folder.mkdir(parents=True)
            stack.callback(_delete, folder)
        yield


def memory_folder(all_runs: Path, output_dir: Path) -> Path:
    """The folder in `all_runs` of the run with this output folder; one name on every machine."""
    return all_runs / hashlib.sha256(os.fsencode(output_dir.resolve())).hexdigest()[:16]


def nearest_folder(path: Path) -> Path:
    """`path`, or the lowest folder above it that exists."""
    return next(one for one in (path, *path.absolute().parents) if one.is_dir())


def free_bytes(path: Path) -> int:
    """What is free where `path` lies or is going to lie."""
    return shutil.disk_usage(nearest_folder(path)).free


def is_full(error: OSError) -> bool:
    """Whether it says that no room is left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def _place_in_memory(all_runs: Path, folder: Path | None, seconds_to_wait: float) -> Iterator[None]:
    """The right to `folder`, for as long as this process lives; folders that no living process has are deleted.

    One lock is held while others are taken or deleted, so that none is deleted that another run has just opened.
    """
    all_runs.mkdir(mode=0o700, exist_ok=True)
    with FileLock(all_runs / ".lock"):
        for abandoned in [path for path in all_runs.iterdir() if path.is_dir() and path != folder]:
            _delete_abandoned(abandoned)
        own = _claimed(folder, seconds_to_wait) if folder is not None else None
    try:
        yield
    finally:
        if own is not None:
            with FileLock(all_runs / ".lock"):
                own.release()
                Path(own.lock_file).unlink(missing_ok=True)


def _claimed(folder: Path, seconds_to_wait: float) -> FileLock:
    lock = _lock_of(folder)
    try:
        lock.acquire(timeout=seconds_to_wait)
    except Timeout as error:
        raise RecipeError(f"{folder} belongs to another run with the same output_dir; let it end, or end it") from error
    return lock


def _delete_abandoned(folder: Path) -> None:
    lock = _lock_of(folder)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return  # its run lives
    _delete(folder)
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)


def _lock_of(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f"{folder.name}.lock"))


def _delete(folder: Path) -> None:
    if not folder.is_dir():
        return
    # Under another name first, so that a worker that is still busy can add nothing while it is emptied.
    leaving = folder.with_name(f"{folder.name}.{os.getpid()}.leaving")
    folder.replace(leaving)
    shutil.rmtree(leaving)
