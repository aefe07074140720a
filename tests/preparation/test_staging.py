import json
from pathlib import Path

import pytest

from riskva.data.manifest import Manifest, SourceTable, WrittenFile, read_manifest
from riskva.data.registry import LENGTHS_FOLDER
from riskva.errors import DataError, OutputFolderError
from riskva.parts import Part
from riskva.preparation.staging import WORK_FOLDER, Staging
from riskva.report import DEFAULT_FORMAT


def manifest(*names: str) -> Manifest:
    files = tuple(WrittenFile(name, 1, "0" * 64, 1) for name in names if "/" not in name)
    photos = tuple(WrittenFile(name, 1, "0" * 64) for name in names if "/" in name)
    table = SourceTable("table.csv", "1" * 64, "UTF-8", 1, 0)
    return Manifest("0", (table,), {"seed": 1}, DEFAULT_FORMAT, "系统", "<image>问", files, photos)


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


DESCRIPTIONS = ("quarantine.jsonl", "audit.json", "audit.html")


def build(staging: Staging, *names: str) -> None:
    """The files of a data set in the staging folder, ready to be published."""
    staging.begin("-".join(names))
    fill(staging.folder, *names, *DESCRIPTIONS)


def publish(out: Path, *names: str, overwrite: bool = False) -> None:
    staging = Staging(out, overwrite, names)
    with staging.locked("set"):
        build(staging, *names)
        staging.publish(manifest(*names), {"set": {"file_name": names[0]}})


def content(folder: Path) -> list[str]:
    """The files in `folder` but for those that describe the data set or that a run works with."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in paths if path.parts[0] not in (*DESCRIPTIONS, WORK_FOLDER))


def test_published_files_stand_beside_manifest_and_registry(tmp_path: Path) -> None:
    publish(tmp_path / "out", "train.jsonl", "images/a.jpg")
    assert content(tmp_path / "out") == ["dataset_info.json", "images/a.jpg", "manifest.json", "train.jsonl"]


def test_lengths_that_training_kept_are_in_nobodys_way(tmp_path: Path) -> None:
    fill(tmp_path, f"{LENGTHS_FOLDER}/a.lengths")
    publish(tmp_path, "train.jsonl")
    publish(tmp_path, "other.jsonl", overwrite=True)
    expected = [f"{LENGTHS_FOLDER}/a.lengths", "dataset_info.json", "manifest.json", "other.jsonl"]
    assert content(tmp_path) == expected


def test_manifest_reads_back_as_written(tmp_path: Path) -> None:
    publish(tmp_path, "train.jsonl", "images/a.jpg")
    assert read_manifest(tmp_path) == manifest("train.jsonl", "images/a.jpg")


def test_fingerprint_follows_contents_and_not_their_order() -> None:
    one, two = (WrittenFile(name, 1, name * 64) for name in "ab")
    base = manifest()
    pair = [Manifest(**{**vars(base), "files": files}).fingerprint for files in ((one, two), (two, one), (one,))]
    assert pair[0] == pair[1] != pair[2]


def test_no_manifest_is_none_and_a_broken_one_an_error(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    whole = json.dumps(manifest("train.jsonl").to_json())
    for broken in ('{"files": 3}', whole.replace('"train.jsonl"', "5"), "[" * 3000):
        (tmp_path / "manifest.json").write_text(broken)
        with pytest.raises(DataError, match=r"manifest.json: not a manifest"):
            read_manifest(tmp_path)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with Staging(tmp_path, False).locked("set"):
        with (
            pytest.raises(OutputFolderError, match="another run is writing into"),
            Staging(tmp_path, False).locked("set"),
        ):
            pass
        with Staging(tmp_path, False).locked("part-00000-of-00002"):
            pass  # parts do not bar each other


def test_only_the_parts_that_were_merged_go(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "out", False)
    ours, others = Part(0, 2), Part(0, 4)
    with staging.locked(ours.name), staging.locked("set"):
        build(staging, "train.jsonl")
        fill(staging.part_folder(ours), "key")
        fill(staging.part_folder(others), "key")
        staging.publish(manifest("train.jsonl"), {})
        staging.clear([ours])
    assert [path.name for path in staging.work.iterdir()] == [others.name]


def test_a_run_that_came_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    with Staging(tmp_path / "out", False).locked("set"):
        assert (tmp_path / "out").exists()
    assert not (tmp_path / "out").exists()


def test_files_of_the_same_data_set_are_kept_and_others_cleared(tmp_path: Path) -> None:
    staging = Staging(tmp_path, False)
    build(staging, "train.jsonl")
    staging.begin("train.jsonl")
    assert (staging.folder / "train.jsonl").exists()
    staging.begin("another")
    assert not (staging.folder / "train.jsonl").exists()


def test_a_failed_run_describes_itself_beside_a_standing_data_set(tmp_path: Path) -> None:
    assert Staging(tmp_path, False).failure_path("audit.html") == tmp_path / "audit.html"
    publish(tmp_path, "train.jsonl")
    assert Staging(tmp_path, True).failure_path("audit.html") == tmp_path / "audit.failed.html"


def test_a_folder_with_content_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "thesis.txt")
    with pytest.raises(OutputFolderError, match=r"not empty \(thesis.txt\).*overwrite_output_dir"):
        Staging(tmp_path, overwrite=False)


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "out")
    with pytest.raises(OutputFolderError, match="is a file"):
        Staging(tmp_path / "out", overwrite=True)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file/out", "lies below .*file, which is a file"),
        ("x" * 300, "cannot be made"),
        ("circle", "output_dir"),
        ("nowhere", "is a link to nothing"),
        ("taken", "something else bears this name"),
        ("linked", "something else bears this name"),
    ],
)
def test_places_where_no_folder_can_be_are_refused(tmp_path: Path, place: str, message: str) -> None:
    fill(tmp_path, "file", f"taken/{WORK_FOLDER}", "linked/x")
    (tmp_path / "linked" / "x").unlink()
    (tmp_path / "linked" / WORK_FOLDER).symlink_to(tmp_path)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(OutputFolderError, match=message):
        Staging(tmp_path / place, overwrite=True)


def test_a_failed_runs_quarantine_does_not_bar_the_next(tmp_path: Path) -> None:
    fill(tmp_path, "quarantine.jsonl")
    publish(tmp_path, "train.jsonl")
    assert "train.jsonl" in content(tmp_path)


def test_overwriting_takes_away_the_former_files_and_no_others(tmp_path: Path) -> None:
    publish(tmp_path, "train.jsonl", "images/a.jpg", "images/deep/b.jpg")
    fill(tmp_path, "thesis.txt", "images/mine.jpg")
    publish(tmp_path, "train-00000-of-00001.parquet", overwrite=True)
    assert content(tmp_path) == [
        "dataset_info.json",
        "images/mine.jpg",
        "manifest.json",
        "thesis.txt",
        "train-00000-of-00001.parquet",
    ]
    assert not (tmp_path / "images" / "deep").exists()


@pytest.mark.parametrize("name", ["train.jsonl", "images/a.jpg", "dataset_info.json"])
def test_overwriting_never_replaces_what_prepare_did_not_write(tmp_path: Path, name: str) -> None:
    fill(tmp_path, name)
    with pytest.raises(OutputFolderError, match="did not write"):
        Staging(tmp_path, overwrite=True, expected=["train.jsonl", "images/a.jpg", "dataset_info.json"])
    assert (tmp_path / name).read_text() == name


def kill_during_publish(out: Path, monkeypatch: pytest.MonkeyPatch, after: int, overwrite: bool = False) -> None:
    """Stops at the `after`-th file being put in place, without any clean-up, as SIGKILL does."""
    calls = 0
    replace = Path.replace

    def replace_or_die(self: Path, target: Path) -> Path:
        nonlocal calls
        if WORK_FOLDER in self.parts and WORK_FOLDER not in Path(target).parts:
            calls += 1
            if calls > after:
                raise SystemExit
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_or_die)
        with pytest.raises(SystemExit):
            publish(out, "train.jsonl", "val.jsonl", overwrite=overwrite)


@pytest.mark.parametrize("after", range(7))
def test_a_run_killed_while_publishing_is_cleared_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    kill_during_publish(tmp_path, monkeypatch, after)
    assert "dataset_info.json" not in content(tmp_path)
    publish(tmp_path, "train-00000-of-00001.parquet")
    assert content(tmp_path) == ["dataset_info.json", "manifest.json", "train-00000-of-00001.parquet"]


@pytest.mark.parametrize("after", range(7))
def test_an_overwriting_run_killed_while_publishing_is_cleared_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    publish(tmp_path, "old.jsonl")
    kill_during_publish(tmp_path, monkeypatch, after, overwrite=True)
    assert "dataset_info.json" not in content(tmp_path)
    publish(tmp_path, "train-00000-of-00001.parquet", overwrite=True)
    assert content(tmp_path) == ["dataset_info.json", "manifest.json", "train-00000-of-00001.parquet"]


@pytest.mark.parametrize("after", range(7))
def test_the_same_run_goes_on_with_what_was_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    kill_during_publish(tmp_path, monkeypatch, after)
    staging = Staging(tmp_path, False, ["train.jsonl", "val.jsonl"])
    staging.begin("train.jsonl-val.jsonl")
    assert [(staging.folder / name).read_text() for name in ("train.jsonl", "val.jsonl")] == [
        "train.jsonl",
        "val.jsonl",
    ]
    fill(staging.folder, *DESCRIPTIONS)
    staging.publish(manifest("train.jsonl", "val.jsonl"), {})
    staging.clear([])
    assert content(tmp_path) == ["dataset_info.json", "manifest.json", "train.jsonl", "val.jsonl"]
    assert not staging.folder.exists()


@pytest.mark.parametrize(
    "name", ["../precious.txt", "images/../../precious.txt", "linked/precious.txt", "ABSOLUTE", "sub"]
)
def test_a_manifest_cannot_have_files_outside_the_folder_deleted(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "precious.txt", "elsewhere/precious.txt")
    out = tmp_path / "out"
    publish(out, "train.jsonl", "images/a.jpg")
    (out / "sub").mkdir()
    (out / "linked").symlink_to(tmp_path / "elsewhere")
    text = (out / "manifest.json").read_text().replace("images/a.jpg", name)
    (out / "manifest.json").write_text(text.replace("ABSOLUTE", str(tmp_path / "precious.txt")))
    before = content(tmp_path)
    with pytest.raises(OutputFolderError, match="no file inside the folder"):
        publish(out, "train.jsonl", overwrite=True)
    assert content(tmp_path) == before


def test_a_linked_photo_is_taken_away_and_its_original_is_not(tmp_path: Path) -> None:
    fill(tmp_path, "original.jpg")
    staging = Staging(tmp_path / "out", False)
    build(staging, "train.jsonl")
    (staging.folder / "images").mkdir()
    (staging.folder / "images" / "a.jpg").symlink_to(tmp_path / "original.jpg")
    staging.publish(manifest("train.jsonl", "images/a.jpg"), {})
    publish(tmp_path / "out", "train.jsonl", overwrite=True)
    assert not (tmp_path / "out" / "images").exists()
    assert (tmp_path / "original.jpg").read_text() == "original.jpg"
