"""Kills a prediction again and again (SIGKILL) and goes on with it: it must end as one that was left alone.

    python scripts/kill_predictions.py [--kills 300] [--rows 200] [--seed 0]
    python scripts/kill_predictions.py --kills 20 --processes 2       # under the launcher: slower starts

The rows are drawn photos of mixed sizes, some twice, and one file that is no picture; the shipped tiny model answers
them under `constrain: report`. One run is left alone. Then the same command runs in other folders and is killed: after
a random time, at a random length of its journal, or just before a random operation on a file of its folder; half the
time the main process alone, half the time with its readers. After every kill no row may be in the journal twice,
no line may be lost, and every line must be the one of the run that was left alone. Once a run has come to its end, its
files must be the same byte for byte, and the next folder begins, until there have been as many kills as asked for.

Exit status 1 with the first difference that was found.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

from command_line import count
from mixed_photos import draw_mixed_photos

from riskva.files import write_json

TINY_BASE = Path(__file__).resolve().parents[1] / "riskva/assets/tiny-qwen2.5-vl"
SIDES = range(56, 169, 28)
TWICE_EVERY = 8
"""Each of so many photos comes again under another name."""

ANSWERS = "answers"
"""The journal's folder."""
FINISHED = "generated_predictions.jsonl"
"""What a run writes last: the same command does not go on then."""
OWN_WORDS = (ANSWERS, ".lock", "recipe.yaml")
"""What may differ between equal runs: the order of the journal, and the output folder's name in the recipe."""

RULES = {
    "stage": "predict",
    "model_name_or_path": str(TINY_BASE),
    "constrain": "report",
    "max_field_chars": 4,  # the untuned model would go on
    "max_new_tokens": 64,
    "per_device_eval_batch_size": 4,
    "preprocessing_num_workers": 2,
    "review_below": 0.7,
}

FILE_OPERATIONS = frozenset({"open", "os.rename", "os.remove", "os.mkdir"})
SET_CHILD_SUBREAPER = 36
OTHERS_RUN = "another run is writing into"


class DifferenceError(Exception):
    """A run that was killed is not as the one that was left alone."""


@dataclass(frozen=True)
class Place:
    """Where a run reads and writes."""

    photos: Path
    output: Path
    log: Path
    processes: int

    @property
    def command(self) -> list[str]:
        """The arguments of riskva-run; writes the recipe."""
        recipe = self.log.with_suffix(".json")  # JSON is YAML
        where = {"images": str(self.photos), "output_dir": str(self.output), "nproc_per_node": self.processes}
        write_json(recipe, RULES | where)
        return [str(recipe)]

    def journal(self) -> dict[str, bytes]:
        """The journal's whole lines by their ids. Raises `DifferenceError` where an id is there twice."""
        found: dict[str, bytes] = {}
        for path in sorted((self.output / ANSWERS).glob("*.jsonl")):
            for line in path.read_bytes().split(b"\n")[:-1]:
                one = json.loads(line)["id"]
                if one in found:
                    raise DifferenceError(f"{self.output}: {one} is answered twice: {found[one]!r} and {line!r}")
                found[one] = line
        return found

    def journal_size(self) -> int:
        """Bytes of the journal."""
        return sum(path.stat().st_size for path in (self.output / ANSWERS).glob("*.jsonl"))

    def results(self) -> dict[str, bytes]:
        """The files that equal runs have alike."""
        paths = (path for path in self.output.iterdir() if path.name not in OWN_WORDS)
        return {path.name: path.read_bytes() for path in sorted(paths)}


@dataclass(frozen=True)
class Moment:
    """When a run is killed: at the first of these that is not None."""

    seconds: float | None = None
    """After its start."""
    journal_size: int | None = None
    """Once its journal is so long."""
    operation: int | None = None
    """Just before it does its n-th operation on files of its folder."""
    with_group: bool = True
    """Its readers, or the processes that it has launched, too."""


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    status: int
    """Its exit status, or -9."""
    seconds: float
    operations: int
    """On files of its folder; 0 where nobody counted."""


class Run:
    """One start of the command, in a process group of its own."""

    def __init__(self, place: Place, moment: Moment) -> None:
        self._place, self._moment = place, moment
        self._operations = mmap.mmap(-1, struct.calcsize("q"))  # shared with the child
        self._started = time.monotonic()
        self.pid = self._fork(place.command) if place.processes == 1 else self._spawn(place.command)

    def _fork(self, command: list[str]) -> int:
        """A child that has all its imports already: this process never computes with torch, so that it may fork."""
        sys.stdout.flush()
        if pid := os.fork():
            return pid
        status = 70
        try:
            os.setsid()
            with self._place.log.open("ab") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            sys.addaudithook(self._count_operations)
            from riskva.cli import main as riskva_run

            status = riskva_run(command)
            sys.stdout.flush()
        finally:
            os._exit(status)

    def _count_operations(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in FILE_OPERATIONS or not str(arguments[0]).startswith(str(self._place.output)):
            return
        if os.getpid() != os.getpgrp():  # a reader of photos
            return
        number = struct.unpack("q", self._operations[:])[0]
        if number == self._moment.operation:
            self.kill()
        self._operations[:] = struct.pack("q", number + 1)

    def _spawn(self, command: list[str]) -> int:
        python, log = sys.executable, str(self._place.log)
        opened = (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        actions = [opened, (os.POSIX_SPAWN_DUP2, 1, 2)]
        arguments = [python, "-m", "riskva.cli", *command]
        return os.posix_spawn(python, arguments, os.environ, file_actions=actions, setsid=True)

    def kill(self) -> None:
        """Kill as the moment says."""
        pid = getattr(self, "pid", os.getpid())
        (os.killpg if self._moment.with_group else os.kill)(pid, signal.SIGKILL)

    def wait(self) -> Ended:
        """Kill it when the moment has come, or wait for its end."""
        # Not reaped before it is `gone`: as long as that, no other process gets its number
        while (ended := os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is None:
            if self._has_come():
                self.kill()
            time.sleep(0.001)
        seconds = time.monotonic() - self._started
        status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        return Ended(status, seconds, struct.unpack("q", self._operations[:])[0])

    def _has_come(self) -> bool:
        moment = self._moment
        if moment.seconds is not None:
            return time.monotonic() - self._started >= moment.seconds
        return moment.journal_size is not None and self._place.journal_size() >= moment.journal_size

    def gone(self, by_themselves: bool = False) -> None:
        """End what it has left, or wait for its end `by_themselves`; this process inherits those that it leaves."""
        if not by_themselves:
            os.killpg(self.pid, signal.SIGKILL)
        while True:
            try:
                os.waitpid(-self.pid, 0)
            except ChildProcessError:
                return


@dataclass(frozen=True)
class Alone:
    """The run that was left alone."""

    ended: Ended
    journal: dict[str, bytes]
    journal_size: int
    results: dict[str, bytes]


@dataclass
class Tally:
    """What has happened."""

    kills: Counter[str] = field(default_factory=Counter)
    """By phase."""
    completed: int = 0
    refused: int = 0
    """Starts that met processes which a killed launcher had left."""


def run_alone(place: Place) -> Alone:
    """The run that all others must equal. Raises `DifferenceError` where it fails."""
    run = Run(place, Moment())
    ended = run.wait()
    run.gone()
    if ended.status != 3:  # one row is no picture
        raise DifferenceError(f"the run that was left alone ended with status {ended.status}:\n{place.log.read_text()}")
    return Alone(ended, place.journal(), place.journal_size(), place.results())


def draw_moment(draw: random.Random, alone: Alone, journal_size: int, processes: int) -> Moment:
    """When to kill next a run whose journal has that size."""
    group = draw.random() < 0.5
    kinds = ["time", "journal" if journal_size < alone.journal_size else "time"]
    kind = draw.choice([*kinds, "operation"] if processes == 1 else kinds)
    if kind == "operation":
        return Moment(operation=draw.randrange(alone.ended.operations), with_group=group)
    if kind == "journal":
        return Moment(journal_size=draw.randint(journal_size + 1, alone.journal_size), with_group=group)
    return Moment(seconds=draw.uniform(0, alone.ended.seconds), with_group=group)


def phase(before: int, after: int, full: int) -> str:
    """In which phase a run was killed, by the sizes of its journal, at its start, at its end, and a whole one's."""
    if after >= full:
        return "end"
    return "start" if after == before else "answers"


def check_lines(place: Place, before: dict[str, bytes], alone: Alone) -> dict[str, bytes]:
    """The journal now. Raises `DifferenceError` for lost, changed and unknown lines."""
    now = place.journal()
    if lost := before.keys() - now.keys():
        raise DifferenceError(f"{place.output}: the answer of {min(lost)} is lost")
    for one, line in now.items():
        if alone.journal.get(one) != line:
            raise DifferenceError(f"{place.output}: {one}: {line!r} instead of {alone.journal.get(one)!r}")
    return now


def check_results(place: Place, alone: Alone) -> None:
    """Raises `DifferenceError` where a finished run's files are not those of the run that was left alone."""
    check_lines(place, alone.journal, alone)
    found = place.results()
    if found.keys() != alone.results.keys():
        raise DifferenceError(f"{place.output} holds {sorted(found)} instead of {sorted(alone.results)}")
    for name, content in found.items():
        for number, (line, other) in enumerate(
            zip(content.split(b"\n"), alone.results[name].split(b"\n"), strict=False), start=1
        ):
            if line != other:
                raise DifferenceError(f"{place.output / name}:{number}: {line!r} instead of {other!r}")
        if content != alone.results[name]:
            raise DifferenceError(f"{place.output / name}: {len(content)} bytes, not {len(alone.results[name])}")


def run_until_done(place: Place, alone: Alone, kills: int, draw: random.Random, tally: Tally) -> None:
    """Kill and go on until a run comes to its end, or there have been so many kills; then it is left to its end."""
    lines: dict[str, bytes] = {}
    left: list[Run] = []
    while True:
        size, may_kill = place.journal_size(), tally.kills.total() < kills
        run = Run(place, draw_moment(draw, alone, size, place.processes) if may_kill else Moment())
        status = run.wait().status
        left.append(run)
        lines = check_lines(place, lines, alone)
        if status == -signal.SIGKILL:
            tally.kills[phase(size, place.journal_size(), alone.journal_size)] += 1
            show(tally, kills)
            if draw.random() < 0.5:  # or else the readers of the killed run live on for a while beside the next
                left.pop().gone()
            if (place.output / FINISHED).exists():  # it was killed after its end
                break
        elif status == 1 and place.processes > 1 and OTHERS_RUN in place.log.read_text().splitlines()[-1]:
            tally.refused += 1
            while left:
                left.pop().gone(by_themselves=True)
        elif status == alone.ended.status:
            break
        else:
            raise DifferenceError(f"{place.output}: status {status}, not {alone.ended.status}:\n{tail(place.log)}")
    for run in left:
        run.gone()
    check_results(place, alone)
    tally.completed += 1


def show(tally: Tally, kills: int) -> None:
    """A line that is written anew on a terminal, one in ten elsewhere."""
    total = tally.kills.total()
    line = f"{total} of {kills} kills, {tally.completed} runs came to their end"
    if sys.stderr.isatty():
        print(f"\r{line}", end="\n" if total == kills else "", file=sys.stderr, flush=True)
    elif total % 10 == 0:
        print(line, file=sys.stderr, flush=True)


def tail(log: Path) -> str:
    """The last that a run said."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])


def summary(tally: Tally, rows: int) -> str:
    """All of it in a line."""
    phases = ", ".join(f"{tally.kills[name]} in its {name}" for name in ("start", "answers", "end"))
    refused = f"; {tally.refused} starts refused while the killed one's processes lived" if tally.refused else ""
    return (
        f"{tally.kills.total()} kills of a prediction of {rows} rows ({phases}), {tally.completed} runs came to their "
        f"end, all equal to the run that was left alone{refused}"
    )


@contextmanager
def photos(rows: int) -> Iterator[Path]:
    """A folder of that many photos in a temporary one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        drawn = draw_mixed_photos(folder, rows, SIDES)
        for place in range(TWICE_EVERY, rows, TWICE_EVERY):
            shutil.copyfile(drawn[place - 1], drawn[place])
        drawn[rows // 2].write_text("no picture")
        yield folder


def import_all() -> None:
    """What a run imports, so that its processes are there at once; nothing here computes."""
    import llguidance.hf  # noqa: F401

    import riskva.jobs.predict  # noqa: F401


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=count, default=300)
    parser.add_argument("--rows", type=count, default=200)
    parser.add_argument("--seed", type=int, default=0, help="other seeds kill at other moments")
    parser.add_argument("--processes", type=count, default=1, help="2: as two processes under RisKVA's launcher")
    return parser.parse_args()


def kill_and_compare(asked: argparse.Namespace, folder: Path) -> Tally:
    """All runs. Raises `DifferenceError`."""
    work, tally, draw = folder.parent, Tally(), random.Random(asked.seed)
    alone = run_alone(Place(folder, work / "alone", work / "alone.log", asked.processes))
    operations = f", {alone.ended.operations} operations on its files" if alone.ended.operations else ""
    print(f"left alone, it takes {alone.ended.seconds:.1f} s{operations}", file=sys.stderr, flush=True)
    while tally.kills.total() < asked.kills:
        name = f"run_{tally.completed:03d}"
        run_until_done(
            Place(folder, work / name, work / f"{name}.log", asked.processes), alone, asked.kills, draw, tally
        )
        shutil.rmtree(work / name)
    return tally


def main() -> int:
    """Draw, run, kill, compare."""
    asked = options()
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    import_all()
    with photos(asked.rows) as folder:
        try:
            print(summary(kill_and_compare(asked, folder), asked.rows))
        except DifferenceError as error:
            print(error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
