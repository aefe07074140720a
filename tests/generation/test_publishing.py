"""Where reports may be written: never over what a run reads, nor over what it writes itself."""

from pathlib import Path

import pytest

from riskva.errors import OutputFolderError
from riskva.generation.publishing import CLAIM_FILE, check_records_path
from riskva.recipe.key_groups import RecordKeys


def check(path: Path, folder: Path | None = None, *inputs: Path, overwrite: bool = False) -> None:
    check_records_path(RecordKeys(output_file=path, overwrite_output_dir=overwrite), folder, inputs)


@pytest.mark.parametrize("name", ["generated_predictions.jsonl", "review.jsonl", "riskva.json", "recipe.yaml"])
def test_not_over_the_runs_own_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(OutputFolderError, match="can only be called"):
        check(tmp_path / name, tmp_path, overwrite=True)
    check(tmp_path / "reports.csv", tmp_path)


@pytest.mark.parametrize("is_folder", [True, False])
def test_not_over_what_is_read(is_folder: bool, tmp_path: Path) -> None:
    file = tmp_path / "adapter" / "riskva.json"
    file.parent.mkdir()
    file.write_text("{}")
    with pytest.raises(OutputFolderError, match="which this run reads"):
        check(file, tmp_path / "out", file.parent if is_folder else file, overwrite=True)
    check(file.with_name("new.csv"), tmp_path / "out", file.parent)


def test_an_existing_file_is_replaced_only_when_asked_or_by_the_run_that_began_it(tmp_path: Path) -> None:
    file, out = tmp_path / "reports.csv", tmp_path / "out"
    file.write_text("mine")
    out.mkdir()
    with pytest.raises(OutputFolderError, match="exists; name another"):
        check(file, out)
    check(file, out, overwrite=True)
    (out / CLAIM_FILE).write_text(str(file.resolve()), encoding="utf-8")
    check(file, out)


def test_a_place_where_nothing_can_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFolderError, match="no such folder can be made"):
        check(tmp_path / "file" / "x.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OutputFolderError, match="cannot be written"):
        check(tmp_path / "folder.csv", overwrite=True)
