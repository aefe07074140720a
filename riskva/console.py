"""What a person at the terminal sees: progress with rate and ETA, notes and warnings.

On a terminal, progress is a bar; in a log file it is a plain line now and then. All of it goes to standard error, so
that standard output holds results alone. Only the main process of a distributed run speaks.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 15.0


def is_main_process() -> bool:
    """Whether this process speaks for the run: rank 0, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def note(text: str) -> None:
    """One line of information."""
    if not is_main_process():
        return
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)  # goes above a progress bar instead of through it
    else:
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """One line that the reader should act upon or know of."""
    note(f"warning: {text}")


def duration(seconds: float) -> str:
    """`seconds` as `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def progress(items: Iterable[T], total: int, what: str, unit: str = "row") -> Iterator[T]:
    """`items`, unchanged, while their progress is shown with rate and ETA."""
    if not is_main_process():
        yield from items
    elif sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=what, unit=unit, dynamic_ncols=True)
    else:
        yield from _progress_lines(items, total, what, unit)


def _progress_lines(items: Iterable[T], total: int, what: str, unit: str) -> Iterator[T]:
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and done < total:
            last = now
            rate = done / (now - start)
            note(f"{what}: {done}/{total} {unit}s, {_pace(rate)}, ETA {duration((total - done) / rate)}")
    elapsed = time.monotonic() - start
    note(f"{what}: {done} {unit}s in {duration(elapsed)}" + (f", {_pace(done / elapsed)}" if elapsed > 0.05 else ""))


def _pace(rate: float) -> str:
    """`rate` items a second as a person says it: fast ones by the second, slow ones by their duration."""
    return f"{rate:.1f}/s" if rate >= 0.1 or rate == 0 else f"{1 / rate:.0f} s each"
