"""Answers on disk as they come: one line a row, in a file for each process, in the order in which they were written.

A line is whole or it does not count, so that a run may be killed at any moment: what is written stands, and the rest
is answered when the same command runs again, with as many processes as it then has.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from riskva.console import warn
from riskva.errors import DataError

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
                elif one in found:
                    raise DataError(f"{path}:{number}: the row {one!r} is answered twice; delete {self.folder}")
                else:
                    found[one] = line
        return found

    @contextmanager
    def appending(self, rank: int) -> Iterator[Append]:
        """What appends lines to this process's file; they are on disk when it returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"process-{rank:05d}.jsonl"
        _cut_off_torn_line(path)
        with path.open("a", encoding="utf-8") as stream:

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


def _cut_off_torn_line(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("r+b") as stream:
        content = stream.read()
        stream.truncate(content.rfind(b"\n") + 1)
