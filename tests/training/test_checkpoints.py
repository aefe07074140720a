from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from riskva.errors import OutputFolderError
from riskva.training.checkpoints import checkpoints_in, missing_parts, newest_whole_checkpoint, require_whole

PARTS = (
    "trainer_state.json",
    "training_args.bin",
    "scheduler.pt",
    "optimizer.pt",
    "rng_state.pth",
    "model.safetensors",
    "config.json",
)


def make(folder: Path, step: int, without: str = "") -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    for name in PARTS:
        if name.endswith(".json"):
            (checkpoint / name).write_text("{}")
        elif name.endswith(".safetensors"):
            save_file({"weight": torch.zeros(9)}, checkpoint / name)
        else:
            torch.save({"step": step}, checkpoint / name)
    if without:
        (checkpoint / without).unlink()
    return checkpoint


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (90, 100, 9):
        make(tmp_path, step)
    (tmp_path / "checkpoint-x").mkdir()
    assert [path.name for path in checkpoints_in(tmp_path)] == ["checkpoint-100", "checkpoint-90", "checkpoint-9"]


@pytest.mark.parametrize("part", PARTS)
def test_a_checkpoint_without_a_part_is_passed_over(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older, newer = make(tmp_path, 10), make(tmp_path, 20, without=part)
    assert newest_whole_checkpoint(tmp_path) == older
    assert str(newer) in capsys.readouterr().err
    with pytest.raises(OutputFolderError, match=r"checkpoint-20 lacks"):
        require_whole(newer)


@pytest.mark.parametrize("part", PARTS)
def test_a_torn_file_is_found_without_reading_it(part: str, tmp_path: Path) -> None:
    checkpoint = make(tmp_path, 10)
    assert missing_parts(checkpoint) == []
    data = (checkpoint / part).read_bytes()
    (checkpoint / part).write_bytes(data[: len(data) // 2])
    assert missing_parts(checkpoint) == [f"whole {part}"]


def test_deepspeed_keeps_its_optimizer_in_a_folder(tmp_path: Path) -> None:
    checkpoint = make(tmp_path, 5, without="optimizer.pt")
    assert missing_parts(checkpoint) == ["optimizer state"]
    (checkpoint / "global_step5").mkdir()
    assert missing_parts(checkpoint) == []


def test_nothing_to_resume(tmp_path: Path) -> None:
    assert newest_whole_checkpoint(tmp_path) is None
    (tmp_path / "checkpoint-3").mkdir()
    assert newest_whole_checkpoint(tmp_path) is None
