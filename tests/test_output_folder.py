from collections.abc import Callable
from pathlib import Path

import pytest

from riskva.errors import OutputFolderError
from riskva.output_folder import MARK, OutputFolder

MakeFolder = Callable[..., OutputFolder]


@pytest.fixture
def folder(tmp_path: Path) -> MakeFolder:
    def make(recipe: str = "a: 1\n", overwrite: bool = False) -> OutputFolder:
        return OutputFolder(tmp_path / "run", recipe, "done.json", (r"checkpoint-\d+", r"model\.bin"), overwrite)

    return make


def test_empty_folder_is_taken_and_an_unfinished_run_goes_on(folder: MakeFolder) -> None:
    run = folder()
    assert run.check() is False
    assert not run.path.exists()
    run.take(goes_on=False)
    assert (run.path / "recipe.yaml").read_text() == MARK + "a: 1\n"
    assert run.check() is True
    assert folder(overwrite=True).check() is True  # the same command resumes, whatever else it says


def test_a_folder_is_free_whose_run_was_killed_as_it_marked_it(folder: MakeFolder) -> None:
    output = folder("recipe: a\n")
    output.path.mkdir(parents=True)
    for name in (".lock", "recipe.yaml.partial"):
        (output.path / name).write_text("recipe", encoding="utf-8")
    assert output.check() is False
    output.take(False)
    assert output.holds_this_run_unfinished()
    assert not (output.path / "recipe.yaml.partial").exists()


def test_other_contents_are_refused(folder: MakeFolder) -> None:
    folder().take(goes_on=False)
    with pytest.raises(OutputFolderError, match=r"unfinished run of another recipe.*overwrite_output_dir: true"):
        folder("a: 2\n").check()
    (folder().path / "done.json").touch()
    with pytest.raises(OutputFolderError, match="holds a finished run"):
        folder().check()
    assert folder(overwrite=True).check() is False


def test_a_file_is_no_folder(folder: MakeFolder) -> None:
    folder().path.write_text("")
    with pytest.raises(OutputFolderError, match="is a file"):
        folder().check()


def test_overwriting_deletes_only_what_such_a_run_writes(folder: MakeFolder) -> None:
    run = folder(overwrite=True)
    run.take(goes_on=False)
    for name in ("thesis.docx", "checkpoint-best", "model.bin.txt", "done.json", "model.bin"):
        (run.path / name).touch()
    (run.path / "checkpoint-3").mkdir()
    run.take(goes_on=run.check())
    left = sorted(path.name for path in run.path.iterdir() if path.name != ".lock")
    assert left == ["checkpoint-best", "model.bin.txt", "recipe.yaml", "thesis.docx"]


def test_unmarked_folders_are_not_overwritten(folder: MakeFolder) -> None:
    run = folder(overwrite=True)
    run.path.mkdir()
    (run.path / "notes.txt").touch()
    assert run.check() is False  # nothing that would be deleted
    (run.path / "recipe.yaml").write_text("my: own recipe\n")
    with pytest.raises(OutputFolderError, match=r"recipe\.yaml, which no run of RisKVA has marked"):
        run.check()


def test_inputs_are_never_overwritten(folder: MakeFolder) -> None:
    run = folder(overwrite=True)
    run.take(goes_on=False)
    (run.path / "done.json").touch()
    (run.path / "model.bin").touch()
    with pytest.raises(OutputFolderError, match="lies in the output folder"):
        run.check([None, run.path / "model.bin"])
    with pytest.raises(OutputFolderError, match="lies in the output folder"):
        run.check([str(run.path)])
    assert run.check(["Qwen/Qwen2.5-VL-7B-Instruct"]) is False


def test_two_runs_never_write_into_one_folder(folder: MakeFolder) -> None:
    first = folder()
    first.take(goes_on=False)
    second = folder()
    assert second.check() is True
    with pytest.raises(OutputFolderError, match="another run is writing into"):
        second.take(goes_on=True)
    del first
    second.take(goes_on=True)


def test_a_folder_that_another_run_took_meanwhile_is_not_taken(tmp_path: Path) -> None:
    """Between the check and the taking lie minutes in which a model is loaded."""
    mine, other = (OutputFolder(tmp_path / "out", text, "done", (), overwrite=False) for text in ("mine\n", "other\n"))
    assert not mine.check()
    other.take(goes_on=False)
    del other  # it has let go of the folder: it ended, or was killed
    with pytest.raises(OutputFolderError, match=r"another run has taken .* meanwhile"):
        mine.take(goes_on=False)
