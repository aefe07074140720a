"""One command, several processes: `riskva-run` starts itself once a GPU when no launcher is around it.

torchrun's agent is not used for this: it kills the workers 30 seconds after a SIGTERM and as soon as one of them has
ended, in the middle of saving a large model, and it hides their exit status. Under torchrun, accelerate launch or
deepspeed, `riskva-run` just runs.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from riskva.errors import StoppedBySignal

GRACE_SECONDS = 20.0
"""How long the other processes may take to end by themselves once one has failed."""


LAUNCHER = "RISKVA_LAUNCHER"
"""The environment variable that tells a process of a run who started it."""


def is_launched() -> bool:
    """Whether a launcher has set this process's place among others."""
    return "LOCAL_RANK" in os.environ or "RANK" in os.environ


def launch(arguments: Sequence[str], count: int) -> int:
    """Run `riskva-run` with these arguments in `count` processes; the exit status of the run.

    Once a process has failed, the others get `GRACE_SECONDS` and are ended. SIGTERM and SIGINT are passed on to all,
    and none is ended early: at SIGTERM each saves and stops by itself, at SIGINT each ends at once.
    """
    port = _free_port()
    workers = [_start(arguments, rank, count, port) for rank in range(count)]
    previous = {number: signal.signal(number, _pass_on(workers)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return _wait(workers)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _start(arguments: Sequence[str], rank: int, count: int, port: int) -> subprocess.Popen[bytes]:
    threads = str(max(1, (os.cpu_count() or 1) // count))
    place = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        LAUNCHER: str(os.getpid()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
    }
    return subprocess.Popen(_command(arguments), env=os.environ | place)


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "riskva.cli", *arguments]


def end_with_the_launcher() -> None:
    """End this process when the launcher that started it is killed: two runs would share the folder otherwise."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is not None:
        threading.Thread(target=_watch, args=(int(launcher),), daemon=True).start()


def leave(status: int) -> NoReturn:
    """End this process with `status`, whatever its libraries do in their last moments.

    Threads of gloo and DeepSpeed that outlive the interpreter abort the process now and then, after all is saved.
    """
    if LAUNCHER not in os.environ:
        sys.exit(status)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(0.5)
    os._exit(1)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _pass_on(workers: Sequence[subprocess.Popen[bytes]]) -> Callable[[int, FrameType | None], None]:
    def handler(number: int, frame: FrameType | None) -> None:
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(number)

    return handler


def _wait(workers: Sequence[subprocess.Popen[bytes]]) -> int:
    deadline = float("inf")
    while any(worker.poll() is None for worker in workers):
        has_failed = any(worker.poll() not in (None, 0, StoppedBySignal.exit_code) for worker in workers)
        if has_failed and deadline == float("inf"):
            deadline = time.monotonic() + GRACE_SECONDS
        if time.monotonic() > deadline:
            for worker in workers:
                worker.kill()
        time.sleep(0.1)
    return _status([worker.returncode for worker in workers])


def _status(codes: Sequence[int]) -> int:
    """A process's own exit status says more than the signals (negative codes) that its end brings on the others."""
    own = [code for code in codes if code > 0]
    return own[0] if own else int(any(codes))
