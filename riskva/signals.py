"""SIGTERM, as schedulers send it, as an exception: what is open is closed, and what must go goes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_raises(error: BaseException) -> Iterator[None]:
    """Within the block, SIGTERM raises `error` in the main thread, from which this must be called."""

    def stop(*_: object) -> None:
        raise error

    former = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
