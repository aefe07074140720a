"""Features on their way from the device to the files of a `FeatureStore`, while training goes on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor

from riskva.console import note, warn
from riskva.errors import DataError
from riskva.training.feature_store import FeatureStore
from riskva.training.shared_folder import is_full

_MOST_WAITING = 8
"""Batches that wait to be written: a burst does not hold up the step, a slow disk does before memory is used up."""

_SECONDS_TO_END = 10.0
"""How long an exception waits for the file that is just being written."""

_GO_THROUGH = "photos that are not kept go through the vision tower in every epoch"


class FeatureWriter:
    """Keeps features in the background, up to `room` bytes; a context manager that ends the writing.

    What goes wrong in the background is raised by the next call, or at the end: `DataError` when no room is left on the
    disk, with the `remedy`, if it `must_find_room`; without, it stops with a warning. What still waits is written at
    the end unless the store `ends_with_the_run`, and dropped when the block ends by an exception.
    """

    def __init__(
        self, store: FeatureStore, room: int, *, remedy: str, must_find_room: bool, ends_with_the_run: bool
    ) -> None:
        self._store = store
        self._room = room
        self._remedy = remedy
        self._must_find_room = must_find_room
        self._ends_with_the_run = ends_with_the_run
        self._batches: queue.Queue[_Batch | None] = queue.Queue(_MOST_WAITING)
        self._failure: Exception | None = None
        self._has_stopped = False
        self._thread = threading.Thread(target=self._write_all, name="feature_writer", daemon=True)
        self._thread.start()

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None and not self._ends_with_the_run:
            self.close()
            return
        self._has_stopped = True
        with suppress(queue.Full):
            self._batches.put(None, timeout=_SECONDS_TO_END)
        self._thread.join(_SECONDS_TO_END)
        if error is None:
            self._raise_failure()

    def keep(self, keys: Sequence[str], features: Sequence[Tensor]) -> None:
        """Keep each photo's features, (tokens, hidden size) on any device, under its key; returns before they are.

        Those that are there already are passed over, and all once the room is used up.
        """
        self._raise_failure()
        if self._has_stopped:
            return
        new = [(key, one) for key, one in zip(keys, features, strict=True) if not self._holds(key, one)]
        if new:
            self._batches.put(_Batch.copied(new))

    def flush(self) -> None:
        """Wait until all that was given is written."""
        self._batches.join()
        self._raise_failure()

    def close(self) -> None:
        """Write what waits, and end: what is given afterwards is passed over."""
        if self._thread.is_alive():
            self._batches.put(None)
            self._thread.join()
        self._has_stopped = True
        self._raise_failure()

    def _holds(self, key: str, features: Tensor) -> bool:
        store = self._store
        if features.dtype != store.dtype or features.shape[1:] != (store.hidden_size,):
            found = f"{features.dtype} {tuple(features.shape)}"
            raise ValueError(f"features must be {store.dtype} (tokens, {store.hidden_size}), found {found}")
        return store.holds(key, len(features))

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _write_all(self) -> None:
        """The thread: once it has stopped it takes batches and drops them, so that nobody waits for it in vain."""
        is_last = False
        while not is_last:
            batch = self._batches.get()
            is_last = batch is None
            try:
                if batch is not None:
                    self._write(batch)
            except Exception as error:  # noqa: BLE001  (whatever it is, the training process raises it)
                self._failure = error
                self._has_stopped = True
            finally:
                self._batches.task_done()

    def _write(self, batch: _Batch) -> None:
        for key, features in batch.arrived():
            if self._has_stopped:
                return
            if self._store.holds(key, len(features)):
                continue  # the same photo twice in a batch, or another process was faster
            size = self._store.num_bytes(len(features))
            if size > self._room:
                self._stop_with(f"vision_cache: vision_cache_gb is used up; {_GO_THROUGH}")
                return
            try:
                self._store.write(key, features)
            except OSError as error:
                self._explain(error)
                return
            self._room -= size

    def _explain(self, error: OSError) -> None:
        """Raise `DataError` for a file that could not be written, or stop where the run can do without."""
        folder = self._store.folder
        if isinstance(error, FileNotFoundError) and not folder.is_dir():
            self._stop_with(f"vision_cache: {folder} is gone; {_GO_THROUGH}")  # deleted by hand, or the run is ending
        elif not is_full(error):
            raise DataError(
                f"vision_cache: cannot write into {folder} ({error.strerror}); see vision_cache_dir"
            ) from error
        elif self._must_find_room:
            raise DataError(f"vision_cache: no room is left in {folder}; {self._remedy}") from error
        else:
            self._has_stopped = True
            warn(f"vision_cache: no room is left in {folder}; {_GO_THROUGH}")

    def _stop_with(self, text: str) -> None:
        self._has_stopped = True
        note(text)


@dataclass(frozen=True)
class _Batch:
    """Keys and features, these perhaps still on their way into memory until the event `arrival`."""

    rows: Sequence[tuple[str, Tensor]]
    arrival: torch.Event | None

    @classmethod
    def copied(cls, rows: Sequence[tuple[str, Tensor]]) -> _Batch:
        """Copies, begun but perhaps not ended: nobody waits for the device here."""
        copies = [(key, one.detach().to("cpu", copy=True, non_blocking=True)) for key, one in rows]
        device = rows[0][1].device
        if device.type == "cpu":
            return cls(copies, None)
        arrival = torch.Event(device)
        arrival.record()
        return cls(copies, arrival)

    def arrived(self) -> Iterator[tuple[str, Tensor]]:
        """The rows once all features are in memory."""
        if self.arrival is not None:
            self.arrival.synchronize()
        return iter(self.rows)
