"""Prepare in parts, stopped and killed: whatever happens on the way, the same bytes come out."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from drawn_defects.table import Drawing, draw_table
from running import REPOSITORY, riskva_run, start

from riskva.preparation import pieces

NUM_ROWS = 90
ROWS_PER_PIECE = 8


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 rows of drawn photos, one of which is shown by two rows, one missing and one cut off."""
    path = draw_table(tmp_path_factory.mktemp("photos"), NUM_ROWS, Drawing(seed=5, houses=12))
    photos = sorted((path.parent / "images").iterdir())
    photos[1].write_bytes(photos[0].read_bytes())
    photos[2].unlink()
    photos[3].write_bytes(photos[3].read_bytes()[:200])
    return path


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "ROWS_PER_PIECE", ROWS_PER_PIECE)


def keys(table: Path, out: Path, *more: str) -> tuple[str, ...]:
    return (
        f"csv_path={table}",
        f"image_base_path={table.parent}",
        f"output_dir={out}",
        "group_by=房屋",
        "max_image_size=[64, 64]",
        "max_shard_size=50KB",
        *more,
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", params=["parquet", "jsonl"])
def whole(request: pytest.FixtureRequest, table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The data set as one process makes it, with the recipe that it was made by."""
    recipe = f"prepare_{request.param}.yaml"
    out = tmp_path_factory.mktemp("whole") / "out"
    assert riskva_run(recipe, *keys(table, out)) == 0
    assert not (out / ".prepare.partial").exists()
    return recipe, out


def test_parts_in_any_order_merge_to_the_same_bytes(table: Path, whole: tuple[str, Path], tmp_path: Path) -> None:
    recipe, expected = whole
    out = tmp_path / "out"
    for index in (2, 0, 3, 1):
        assert riskva_run(recipe, *keys(table, out, f"shard={index}/4")) == 0
        assert {path.name for path in out.iterdir()} == {".prepare.partial"}
    assert riskva_run("merge.yaml", f"output_dir={out}") == 0
    assert files_of(out) == files_of(expected)


def test_merge_names_the_part_that_is_missing(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert riskva_run("merge.yaml", f"output_dir={out}") == 1
    assert "no parts to merge" in capsys.readouterr().err
    for index in (0, 2):
        assert riskva_run("prepare_parquet.yaml", *keys(table, out, f"shard={index}/3")) == 0
    for flags in ((), ("--dry-run",)):
        assert riskva_run("merge.yaml", f"output_dir={out}", *flags) == 1
        assert "parts are missing: 1/3" in capsys.readouterr().err


def test_a_scheduler_names_the_part(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "1")  # as of an array of which one task is submitted again
    assert riskva_run("prepare_parquet.yaml", *keys(table, tmp_path / "out", "shard=auto/2")) == 0
    assert "part 1 of 2 is done" in capsys.readouterr().out


def killed_run(recipe: str, stop_signal: int, *overrides: str) -> int:
    """Starts a run, ends it once its first piece stands, and gives its exit status."""
    process = start(recipe, *overrides)
    work = Path(overrides[2].removeprefix("output_dir=")) / ".prepare.partial"
    deadline = time.monotonic() + 120
    while not list(work.glob("part-*/piece-*.jsonl")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(stop_signal)
    process.communicate()
    return process.returncode


@pytest.mark.slow
@pytest.mark.parametrize("stop_signal", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_a_part_that_is_stopped_goes_on_with_what_it_has(
    stop_signal: int,
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    big = draw_table(tmp_path / "photos", 1200, Drawing(seed=6, houses=12))
    out, expected = tmp_path / "out", tmp_path / "expected"
    monkeypatch.undo()  # the process that is killed has pieces of the usual size, so this one must have them too
    monkeypatch.chdir(REPOSITORY)
    options = ("image_quality=95", "max_image_size=[111, 111]", "preprocessing_num_workers=1")
    assert riskva_run("prepare_parquet.yaml", *keys(big, expected, *options)) == 0
    status = killed_run("prepare_parquet.yaml", stop_signal, *keys(big, out, *options, "shard=0/2"))
    assert status == (75 if stop_signal == signal.SIGTERM else -signal.SIGKILL)
    assert [path.name for path in out.iterdir()] == [".prepare.partial"]
    assert riskva_run("merge.yaml", f"output_dir={out}") == 1
    capfd.readouterr()
    for index in (1, 0):
        assert riskva_run("prepare_parquet.yaml", *keys(big, out, *options, f"shard={index}/2")) == 0
    assert "going on: " in capfd.readouterr().err
    assert riskva_run("merge.yaml", f"output_dir={out}") == 0
    assert files_of(out) == files_of(expected)


DYING = """
import hashlib, os, shutil, signal, sys
from pathlib import Path
import datasets, imagehash, riskva.jobs.prepare  # once, and not in every child
from riskva.cli import main
from riskva.preparation import pieces

pieces.ROWS_PER_PIECE = int(sys.argv[1])
expected, out, command = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]

def files(folder):
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}

def in_a_child(work):
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(work())
    return os.waitpid(child, 0)[1]

def dying(left):
    def counted(change):
        def change_or_die(*arguments, **keys):
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **keys)
        return change_or_die
    for name in ("replace", "unlink", "rename", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))
    return main(command)

def check(ran):
    whole = files(expected)
    published = {name: data for name, data in files(out).items() if not name.startswith(".prepare.partial")}
    assert all(whole[name] == data for name, data in published.items()), (ran, "a half-written file")
    if "dataset_info.json" not in published:
        assert in_a_child(lambda: main(command)) == 0, (ran, "does not go on")
    else:
        assert set(published) == set(whole), (ran, "a registry before all files")
        assert in_a_child(lambda: main([*command, "overwrite_output_dir=true"])) == 0, (ran, "cannot be overwritten")
    assert files(out) == whole, (ran, "other bytes")
    shutil.rmtree(out)

def survives(left):
    return not os.WIFSIGNALED(in_a_child(lambda: dying(left)))

# How many changes there are, then as many kills as time allows, evenly among them.
first, last = 0, 1 << 12
while last - first > 1:
    middle = (first + last) // 2
    first, last = (first, middle) if survives(middle) else (middle, last)
    shutil.rmtree(out)
kills = range(0, last, max(1, last // 24))
for left in kills:
    assert not survives(left)
    check(left)
print(len(kills))
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_run_killed_before_a_change_to_a_file_leaves_no_half_file_and_goes_on(form: str, tmp_path: Path) -> None:
    table = draw_table(tmp_path / "photos", 24, Drawing(seed=8, houses=6))
    recipe, expected, out = f"prepare_{form}.yaml", tmp_path / "expected", tmp_path / "out"
    more = ("max_shard_size=10KB",)
    assert riskva_run(recipe, *keys(table, expected, *more)) == 0
    command = [str(ROWS_PER_PIECE), str(expected), str(out), f"recipes/{recipe}", *keys(table, out, *more)]
    died = subprocess.run([sys.executable, "-c", DYING, *command], check=False, cwd=REPOSITORY, capture_output=True)
    assert died.returncode == 0, died.stderr.decode()
    assert int(died.stdout.split()[-1]) >= 24
