"""What a journal holds after all that kills and bad disks leave behind."""

import json
from pathlib import Path

import pytest

from riskva.errors import DataError, OutputFolderError
from riskva.generation.journal import Journal


def write(folder: Path, rank: int, ids: str) -> None:
    with Journal(folder).appending(rank) as append:
        append([{"id": one, "predict": f"裂缝 {one}"} for one in ids])


def held(folder: Path) -> dict[str, str]:
    return {one: json.loads(line)["predict"] for one, line in Journal(folder).lines().items()}


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert Journal(tmp_path / "answers").lines() == {}


def test_what_was_appended_is_on_disk_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "answers").appending(0) as append:
        append([{"id": "a", "predict": "裂缝\n渗水"}, {"id": "b", "predict": ""}])
        assert list(Journal(tmp_path / "answers").lines()) == ["a", "b"]
        append([])
        append([{"id": "c", "predict": "x"}])
    text = (tmp_path / "answers/process-00000.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["id"] for line in text.splitlines()] == ["a", "b", "c"]
    assert "裂缝" in text


@pytest.mark.parametrize("torn", [b"", b"{", '{"id": "c", "predict": "裂'.encode()[:-1], b'{"id": "c"}', b"\x00" * 40])
def test_a_torn_last_line_is_no_row_and_is_cut_off_before_the_next(
    torn: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, 0, "ab")
    path = tmp_path / "process-00000.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert list(held(tmp_path)) == ["a", "b"]
    write(tmp_path, 0, "c")
    assert held(tmp_path) == {one: f"裂缝 {one}" for one in "abc"}
    assert path.read_bytes().startswith(whole)
    assert path.read_bytes().count(b"\n") == 3
    assert capsys.readouterr().err == ""


def test_a_file_that_is_one_torn_line_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "process-00000.jsonl").write_bytes(b'{"id": "a", "pre')
    assert held(tmp_path) == {}
    write(tmp_path, 0, "a")
    assert list(held(tmp_path)) == ["a"]


@pytest.mark.parametrize(
    "damage",
    [
        b"\x00" * 40,
        b'{"id": "b", "predict"',
        b'["b"]',
        b"7",
        b'{"predict": "x"}',
        b'{"id": 2}',
        b'{"id": "b", "predict": "\xe8\xa3"}',
        b"[" * 20_000,
        b"",
    ],
)
def test_a_damaged_line_is_named_and_its_row_answered_again(
    damage: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, 0, "abc")
    path = tmp_path / "process-00000.jsonl"
    first, _, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + damage + b"\n" + last)
    assert list(held(tmp_path)) == ["a", "c"]
    assert f"{path}:2: damaged; the row is answered again" in capsys.readouterr().err
    write(tmp_path, 0, "b")
    assert held(tmp_path) == {one: f"裂缝 {one}" for one in "acb"}


def test_files_of_several_processes_are_one_journal(tmp_path: Path) -> None:
    for rank, ids in enumerate(("ad", "b", "c")):
        write(tmp_path, rank, ids)
    with (tmp_path / "process-00001.jsonl").open("ab") as stream:
        stream.write(b'{"id": "to')  # a process killed as it wrote; the next run has fewer
    write(tmp_path, 0, "e")
    assert set(held(tmp_path)) == set("abcde")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_row_answered_twice_is_refused(rank: int, tmp_path: Path) -> None:
    write(tmp_path, 0, "ab")
    write(tmp_path, rank, "b")
    assert set(Journal(tmp_path).lines()) == {"a", "b"}  # the same line again does no harm
    with Journal(tmp_path).appending(rank) as append:
        append([{"id": "b", "predict": "another"}])
    with pytest.raises(DataError, match=rf"process-0000{rank}.jsonl:\d: the row 'b' is answered a second time; delete"):
        Journal(tmp_path).lines()


def test_other_files_in_the_folder_are_nobodys_answers(tmp_path: Path) -> None:
    write(tmp_path, 0, "a")
    (tmp_path / "notes.jsonl").write_text('{"id": "z"}\n')
    assert list(held(tmp_path)) == ["a"]


def test_a_process_that_outlived_its_run_is_noticed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with journal.appending(1), pytest.raises(OutputFolderError, match="still writes into"):
        journal.require_idle()
    with journal.appending(0) as append:
        append([{"id": "a"}])
        with pytest.raises(OutputFolderError, match="still writes into"):
            Journal(tmp_path).appending(0).__enter__()
    journal.require_idle()
    assert set(journal.lines()) == {"a"}
