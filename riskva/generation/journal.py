"""Answers on disk as they come: one line a row, in a file for each process, in the order in which they were written.

A line is whole or it does not count, so that a run may be killed at any moment: what is written stands, and the rest
is answered when the same command runs again, with as many processes as it then has.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

from riskva.console import warn
from riskva.errors import DataError
from riskva.files import held_alone

LOCK_SUFFIX = ".lock"

Line = dict[str, Any]
Append = Callable[[Sequence[Line]], None]


class Journal:
    """The answers in `folder`, of one run or of all that went on with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lines(self) -> dict[str, str]:
        """Every row's line as it was written, by the row's id.

        A last line that was torn is passed over, and with a warning one that is damaged: their rows are answered
        again. Raises `DataError` where two lines answer one row.
        """
        found: dict[str, str] = {}
        for path in sorted(self.folder.glob("process-*.jsonl")):
            for number, data in _whole_lines(path):
                one, line = _id_of(data), data.decode(errors="replace")
                if one is None:
                    warn(f"{path}:{number}: damaged; the row is answered again")
                elif found.get(one, line) != line:
                    raise DataError(f"{path}:{number}: the row {one!r} is answered a second time; delete that line")
                else:
                    found[one] = line
        return found

    def require_idle(self) -> None:
        """Raise `OutputFolderError` while a process is appending: one may have outlived a run that was killed."""
        for path in self.folder.glob(f"*{LOCK_SUFFIX}"):
            with _locked(path):
                pass

    @contextmanager
    def appending(self, rank: int) -> Iterator[Append]:
        """What appends lines to this process's file; they are on disk when it returns.

        Raises `OutputFolderError` while another process is at it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"process-{rank:05d}.jsonl"
        with (
            _locked(path.with_suffix(LOCK_SUFFIX)),
            path.open("a+b") as lines,
            path.open("a", encoding="utf-8") as stream,
        ):
            _cut_off_torn_line(lines)

            def append(lines: Sequence[Line]) -> None:
                stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
                stream.flush()
                os.fsync(stream.fileno())

            yield append


def _whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.endswith(b"\n"):
                yield number, line


def _id_of(line: bytes) -> str | None:
    """The id of the row that the line is of; None for a damaged one, which a byte that is no UTF-8 makes it, too."""
    try:
        row = json.loads(line.decode())
        return row["id"] if isinstance(row["id"], str) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _locked(path: Path) -> AbstractContextManager[None]:
    return held_alone(path, f"a process of an earlier run still writes into {path.parent}; end it first")


def _cut_off_torn_line(stream: IO[bytes]) -> None:
    stream.seek(0)
    stream.truncate(stream.read().rfind(b"\n") + 1)
