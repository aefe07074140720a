from pathlib import Path

import pytest

from riskva.errors import OutputFolderError
from riskva.output_folder import claim


def test_empty_folder_is_taken_and_an_unfinished_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert claim(folder, "a: 1\n", "done.json", [], overwrite=False) is False
    assert (folder / "recipe.yaml").read_text() == "a: 1\n"
    assert claim(folder, "a: 2\n", "done.json", [], overwrite=False) is False  # that run had not begun
    (folder / "log").touch()
    assert claim(folder, "a: 2\n", "done.json", [], overwrite=False) is True


def test_other_contents_are_refused(tmp_path: Path) -> None:
    claim(tmp_path, "a: 1\n", "done.json", [], overwrite=False)
    (tmp_path / "log").touch()
    with pytest.raises(OutputFolderError, match="unfinished run of another recipe"):
        claim(tmp_path, "a: 2\n", "done.json", [], overwrite=False)
    (tmp_path / "done.json").touch()
    with pytest.raises(OutputFolderError, match="holds a finished run"):
        claim(tmp_path, "a: 1\n", "done.json", [], overwrite=False)
    (tmp_path / "file").touch()
    with pytest.raises(OutputFolderError, match="is a file"):
        claim(tmp_path / "file", "a: 1\n", "done.json", [], overwrite=False)


def test_overwriting_deletes_only_what_a_run_writes(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").touch()
    (tmp_path / "checkpoint-3").mkdir()
    with pytest.raises(OutputFolderError, match="is not empty"):
        claim(tmp_path, "a: 1\n", "done.json", ["checkpoint-*"], overwrite=False)
    assert claim(tmp_path, "a: 1\n", "done.json", ["checkpoint-*"], overwrite=True) is False
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml", "thesis.docx"]
