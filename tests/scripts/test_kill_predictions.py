"""Whether kill_predictions.py kills, goes on and compares; and that it sees what may not be."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import kill_predictions
import pytest
from kill_predictions import Alone, DifferenceError, Ended, Place, Tally, check_lines, check_results, phase, summary

SCRIPT = Path(kill_predictions.__file__)


@pytest.mark.slow
def test_a_prediction_ends_as_one_that_was_left_alone_however_often_it_is_killed() -> None:
    # In a process of its own: this one has computed with torch and may not be forked
    command = [sys.executable, str(SCRIPT), "--kills", "6", "--rows", "24"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"6 kills of a prediction of 24 rows \(.*\), [1-7] runs came to their end, all equal", done.stdout)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "out/answers").mkdir(parents=True)
    return Place(tmp_path / "photos", tmp_path / "out", tmp_path / "log", 1)


def line(number: int, text: str = "report") -> bytes:
    return json.dumps({"id": f"row {number}", "predict": text}).encode()


def write(place: Place, *lines: bytes, torn: bytes = b"", process: int = 0) -> None:
    path = place.output / f"answers/process-{process:05d}.jsonl"
    path.write_bytes(b"".join(one + b"\n" for one in lines) + torn)


@pytest.fixture
def alone(place: Place) -> Alone:
    write(place, line(0), line(1), line(2))
    (place.output / "reports.json").write_text("[\n1,\n2\n]\n")
    (place.output / "recipe.yaml").write_text("output_dir: out\n")
    return Alone(Ended(3, 1.0, 9), place.journal(), place.journal_size(), place.results())


def test_a_torn_line_is_none_and_order_is_free(place: Place, alone: Alone) -> None:
    write(place, line(1), torn=line(0)[:9])
    first = check_lines(place, {}, alone)
    assert [*first] == ["row 1"]
    write(place, line(1), line(2), process=0)
    write(place, line(0), process=1)
    assert len(check_lines(place, first, alone)) == 3
    (place.output / "recipe.yaml").write_text("output_dir: other\n")
    check_results(place, alone)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ((0, 1, 1), "row 1 is answered twice"),
        ((1,), "the answer of row 0 is lost"),
        ((0, 5), "row 5: "),
    ],
)
def test_what_may_not_be_in_a_journal_is_told(place: Place, alone: Alone, lines: tuple[int, ...], told: str) -> None:
    write(place, line(0))
    before = check_lines(place, {}, alone)
    write(place, *map(line, lines))
    with pytest.raises(DifferenceError, match=told):
        check_lines(place, before, alone)


def test_another_answer_is_told(place: Place, alone: Alone) -> None:
    write(place, line(0, "another"))
    with pytest.raises(DifferenceError, match=r"row 0: .*another.* instead of .*report"):
        check_lines(place, {}, alone)


def test_other_results_are_told(place: Place, alone: Alone) -> None:
    path = place.output / "reports.json"
    path.write_text("[\n1,\n3\n]\n")
    with pytest.raises(DifferenceError, match=r"reports\.json:3: b'3' instead of b'2'"):
        check_results(place, alone)
    path.rename(path.with_suffix(".json.partial"))
    with pytest.raises(DifferenceError, match=r"holds \['reports\.json\.partial'\] instead of \['reports\.json'\]"):
        check_results(place, alone)
    path.with_suffix(".json.partial").unlink()
    write(place, line(0), line(1))
    with pytest.raises(DifferenceError, match="the answer of row 2 is lost"):
        check_results(place, alone)


def test_phases_and_the_summary() -> None:
    assert [phase(0, 0, 9), phase(4, 4, 9), phase(0, 4, 9), phase(4, 9, 9), phase(9, 9, 9)] == [
        *("start", "start", "answers", "end", "end")
    ]
    tally = Tally(Counter(start=2, answers=3, end=1), completed=2, refused=1)
    assert summary(tally, 24) == (
        "6 kills of a prediction of 24 rows (2 in its start, 3 in its answers, 1 in its end), 2 runs came to their "
        "end, all equal to the run that was left alone; 1 starts refused while the killed one's processes lived"
    )
