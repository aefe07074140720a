"""The learning curve's table, picture and bookkeeping, on made-up scores; tests/e2e trains for real."""

from pathlib import Path

import learning_curve
import pytest
from drawn_defects.seeds import BASE_SEEDS, DEMO_SEED, MEASURED_SEED
from learning_curve import (
    LEVEL_NAMES,
    NAMES,
    SEEDS,
    WITHOUT_FLOOR,
    Cell,
    FineTuneError,
    Score,
    fingerprint,
    measure,
    plot,
    table,
)
from PIL import Image


def scores(level: float, text: float) -> dict[str, Score]:
    """What `scores_of` returns for a run, with equal values for all levels and for all texts."""
    floors = {name: None if name in WITHOUT_FLOOR else 0.2 if name in LEVEL_NAMES else 0.3 for name in NAMES}
    return {name: Score(level if name in LEVEL_NAMES else text, floor) for name, floor in floors.items()}


SCORES = [scores(0.4, 0.5), scores(0.6, 0.6), scores(0.8, 0.7), scores(0.9, 0.9)]


def cells(folder: Path) -> list[Cell]:
    return [Cell(rows, seed, folder / f"{rows}-{seed}") for rows in (60, 120) for seed in (1, 2)]


def test_the_table_gives_mean_lowest_highest_and_floor(tmp_path: Path) -> None:
    columns = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table(cells(tmp_path), SCORES).splitlines()
    ]
    assert [line[0] for line in columns] == ["rows", "---", "60", "120", "floor"]
    assert columns[2][:2] == ["60", "0.500 (0.400–0.600)"]
    assert columns[3][:2] == ["120", "0.850 (0.800–0.900)"]
    assert columns[3][5] == "0.800 (0.700–0.900)"
    assert columns[4][1:] == ["0.200", "–", "0.200", "–", "0.300", "0.300", "0.300"]


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    plot(tmp_path / "curve.png", cells(tmp_path), SCORES)
    with Image.open(tmp_path / "curve.png") as picture:
        assert min(picture.size) > 400
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 50


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def run(log: Path, recipe: str, *overrides: str) -> None:
        called.append(recipe)

    def finish(name: str) -> None:
        path = tmp_path / "cell" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")

    monkeypatch.setattr(learning_curve, "run", run)
    arguments = (Cell(12, 1, tmp_path / "cell"), tmp_path / "test", 10, tmp_path / "log")
    measure(*arguments)
    assert called == ["prepare.yaml", "sft.yaml", "eval.yaml"]
    finish("sft/train_results.json")
    measure(*arguments)
    assert called[3:] == ["eval.yaml"]
    finish("eval/metrics.json")
    measure(*arguments)
    assert len(called) == 4


def test_other_steps_are_other_runs() -> None:
    assert fingerprint(10) == fingerprint(10)
    assert fingerprint(10) != fingerprint(11)


def test_a_job_that_fails_names_its_log(tmp_path: Path) -> None:
    with pytest.raises(FineTuneError, match=r"ended with status 2; see .*log"):
        learning_curve.run(tmp_path / "log", "prepare.yaml", "no_such_key=1")
    assert "no_such_key" in (tmp_path / "log").read_text(encoding="utf-8")


def test_nothing_is_measured_on_what_was_trained_on() -> None:
    seeds = [*SEEDS, DEMO_SEED, MEASURED_SEED, *BASE_SEEDS]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("seed", [MEASURED_SEED, *BASE_SEEDS])
def test_reserved_seeds_are_refused(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["learning_curve.py", str(tmp_path / "out"), "--seeds", "1", str(seed)])
    with pytest.raises(SystemExit):
        learning_curve.main()
    assert f"--seeds: {seed} draws photos that are measured on" in capsys.readouterr().err
