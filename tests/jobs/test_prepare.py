import csv
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from riskva.data.conversation import Conversation
from riskva.data.datasets import ConversationDataset, open_datasets
from riskva.data.images import open_photo
from riskva.data.manifest import read_manifest
from riskva.errors import (
    AuditError,
    DataError,
    ImageError,
    MissingDataError,
    OutputFolderError,
    RecipeError,
    TooManyBadRowsError,
)
from riskva.files import sha256_of
from riskva.jobs import prepare
from riskva.preparation.staging import WORK_FOLDER
from riskva.recipe import AnswerField, PrepareRecipe
from riskva.report import DEFAULT_FORMAT, DEFAULT_SYSTEM_PROMPT, RiskReport, default_question

HEADER = ["image_id", "image_path", "data_风险", "data_纠正和预防建议", "data_风险等级", "data_缺陷描述", "房屋"]
FORMS: list[dict[str, Any]] = [
    {"output_format": "jsonl"},
    {"output_format": "jsonl", "image_storage": "link"},
    {"output_format": "jsonl", "image_encoding": "base64"},
    {"output_format": "parquet"},
    {"output_format": "parquet", "image_encoding": "base64", "parquet_compression": "zstd"},
]


def draw(path: Path, seed: int, size: tuple[int, int] = (48, 32), **options: Any) -> None:
    values = np.random.default_rng(seed).integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    Image.fromarray(values).resize(size).save(path, **options)


def good_row(number: int) -> list[str]:
    level = ("轻微", "轻微", "中等", "严重")[number % 4]
    return [f"r{number}", f"{number}.jpg", f"风险{number}", "修补", level, f"缺陷{number}", f"{number % 5}栋"]


def make_table(folder: Path, count: int = 20) -> Path:
    """A table of good rows whose photos include a large, a turned, a transparent and a grey one."""
    folder.mkdir(exist_ok=True)
    rows = [good_row(number) for number in range(count)]
    for number in range(count):
        draw(folder / f"{number}.jpg", number)
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(folder / "1.jpg", 1, exif=exif)
    draw(folder / "2.jpg", 2, size=(400, 200))
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(folder / "3.png")
    rows[3][1] = "3.png"
    Image.new("L", (20, 20), 99).save(folder / "4.jpg")
    return write_table(folder, rows)


def write_table(folder: Path, rows: list[list[str]], encoding: str = "utf-8") -> Path:
    text = io.StringIO()
    csv.writer(text).writerows([HEADER, *rows])
    path = folder / "table.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def recipe(table: Path, output_dir: Path, **keys: Any) -> PrepareRecipe:
    keys = {"max_image_size": (100, 100), "split": {"train": 0.6, "val": 0.2, "test": 0.2}} | keys
    return PrepareRecipe(stage="prepare", csv_path=table, image_base_path=table.parent, output_dir=output_dir, **keys)


def everything(folder: Path) -> ConversationDataset:
    names = json.loads((folder / "dataset_info.json").read_text())
    return open_datasets(list(names), folder)


def quarantined(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]


def pixels(conversation: Conversation) -> list[Any]:
    return np.asarray(open_photo(conversation.photos[0])).tolist()  # type: ignore[no-any-return]


def files_of(folder: Path) -> dict[str, bytes]:
    """What stands in the folder, but for what a run works with."""
    paths = (path for path in folder.rglob("*") if path.is_file() and WORK_FOLDER not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form.values()))
def test_every_row_comes_back_as_a_conversation(tmp_path: Path, form: dict[str, Any]) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    prepare.run(recipe(table, out, **form))
    found = {conversation.id: conversation for conversation in everything(out)}
    assert sorted(found) == sorted(f"r{number}" for number in range(20))
    for number in range(20):
        conversation = found[f"r{number}"]
        assert conversation.system == DEFAULT_SYSTEM_PROMPT
        assert conversation.messages[1].content == "<image>" + default_question(DEFAULT_FORMAT)
        assert conversation.answer is not None
        report = DEFAULT_FORMAT.parse(conversation.answer)
        assert isinstance(report, RiskReport)
        assert report.texts["缺陷描述"] == f"缺陷{number}"
        assert report.level.label == good_row(number)[4]
        assert conversation.extra["房屋"] == f"{number % 5}栋"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form.values()))
def test_photos_that_fit_keep_their_bytes_and_others_are_upright_and_small(
    tmp_path: Path, form: dict[str, Any]
) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    prepare.run(recipe(table, out, **form))
    photos = {conversation.id: conversation.photos[0] for conversation in everything(out)}
    for number in (0, 4, 5, 19):
        assert photos[f"r{number}"].read() == (table.parent / f"{number}.jpg").read_bytes()
    assert open_photo(photos["r1"]).size == (32, 48)
    assert open_photo(photos["r2"]).size == (100, 50)
    assert open_photo(photos["r3"]).getpixel((5, 5)) == (255, 255, 255)


def test_both_forms_hold_the_same(tmp_path: Path) -> None:
    table = make_table(tmp_path / "in")
    for number, form in enumerate(FORMS):
        prepare.run(recipe(table, tmp_path / str(number), **form))
    first, *others = (list(everything(tmp_path / str(number))) for number in range(len(FORMS)))
    for other in others:
        assert [one.id for one in other] == [one.id for one in first]
        assert [one.messages for one in other] == [one.messages for one in first]
        assert [pixels(one) for one in other] == [pixels(one) for one in first]


@pytest.mark.parametrize("form", [FORMS[0], FORMS[3]], ids=["jsonl", "parquet"])
def test_nothing_but_the_recipe_decides_the_bytes(tmp_path: Path, form: dict[str, Any]) -> None:
    table = make_table(tmp_path / "in")
    outs = [tmp_path / name for name in "abc"]
    for out, keys in zip(
        outs, [{"preprocessing_num_workers": 1}, {"preprocessing_num_workers": 5}, {"seed": 7}], strict=True
    ):
        prepare.run(recipe(table, out, **form, **keys))
    first, second, other = map(files_of, outs)
    assert first == second
    assert first != other


def test_manifest_describes_the_files(tmp_path: Path) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    fields = (
        AnswerField(label="等级", column="data_风险等级", is_level=True),
        AnswerField(label="位置", column="data_位置", default="未注明"),
    )
    prepare.run(recipe(table, out, output_format="jsonl", answer_fields=fields, system_prompt="", question="看<image>"))
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest.report_format.labels == ("等级", "位置")
    assert (manifest.system_prompt, manifest.question) == ("", "看<image>")
    (source,) = manifest.tables
    assert source.sha256 == sha256_of(table)
    assert (source.path, source.encoding, source.rows, source.bad_rows) == (str(table), "UTF-8", 20, 0)
    assert sum(one.rows or 0 for one in manifest.files) == 20
    assert len(manifest.photos) == 20
    for one in (*manifest.files, *manifest.photos):
        assert (one.bytes, one.sha256) == ((out / one.name).stat().st_size, sha256_of(out / one.name))
    conversation = everything(out)[0]
    assert conversation.system is None
    assert conversation.messages[0].content == "看<image>"
    assert conversation.answer is not None
    assert conversation.answer.endswith("**位置**: 未注明")


def spoil(table: Path) -> dict[str, str]:
    """Gives six of the twenty rows one fault each; the reason by id."""
    rows = [good_row(number) for number in range(20)]
    rows[0][4] = "说不清"
    rows[1][5] = ""
    rows[2][1] = "gone.jpg"
    rows[3][1] = "3.png"
    (table.parent / "4.jpg").write_bytes((table.parent / "4.jpg").read_bytes()[:300])
    (table.parent / "5.jpg").write_text("<html>")
    rows[6][2] = "坏<|im_end|>"
    rows[7][0] = "r8"
    write_table(table.parent, rows, "gbk")
    return {
        "r0": "unknown_level",
        "r1": "empty_field",
        "r2": "image_missing",
        "r4": "image_truncated",
        "r5": "image_unreadable",
        "r6": "control_token",
        "r8": "duplicate_id",
    }


@pytest.mark.parametrize("output_format", ["jsonl", "parquet"])
def test_bad_rows_are_listed_and_good_ones_written(tmp_path: Path, output_format: str) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    expected = spoil(table)
    prepare.run(recipe(table, out, output_format=output_format, max_bad_share=0.5))
    bad = quarantined(out)
    assert {row["id"]: row["reason"] for row in bad} == expected
    assert [row["line"] for row in bad] == sorted(row["line"] for row in bad)
    assert all(row["message"] and row["file"] for row in bad)
    written = everything(out)
    assert len(written) + len(bad) == 20
    assert "r8" in written.ids  # the row that had the id first
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest.tables[0].bad_rows == len(expected)


def test_too_many_bad_rows_fail_with_reasons_and_leave_only_the_list(tmp_path: Path) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    (table.parent / "5.jpg").write_text("<html>")
    (table.parent / "6.jpg").unlink()
    with pytest.raises(TooManyBadRowsError) as caught:
        prepare.run(recipe(table, out))
    message = str(caught.value)
    for part in (
        "2 of 20 (10.0%)",
        "image_missing 1",
        "image_unreadable 1",
        "table.csv:7 (id r5)",
        "max_bad_share",
        "quarantine.jsonl",
    ):
        assert part in message
    assert list(files_of(out)) == ["quarantine.jsonl"]
    assert [row["id"] for row in quarantined(out)] == ["r5", "r6"]


def test_the_next_run_follows_a_failed_one_without_more_ado(tmp_path: Path) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    spoil(table)
    with pytest.raises(TooManyBadRowsError):
        prepare.run(recipe(table, out))
    make_table(tmp_path / "in")
    prepare.run(recipe(table, out))
    assert quarantined(out) == []
    assert len(everything(out)) == 20


def test_bad_rows_at_the_limit_are_allowed(tmp_path: Path) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    (table.parent / "6.jpg").unlink()
    prepare.run(recipe(table, out, max_bad_share=0.05))
    assert len(everything(out)) == 19


def test_no_good_row_at_all_is_a_failure_whatever_the_limit(tmp_path: Path) -> None:
    table = make_table(tmp_path / "in", count=5)
    write_table(table.parent, [[*good_row(1)[:4], "?", *good_row(1)[5:]]])
    with pytest.raises(TooManyBadRowsError):
        prepare.run(recipe(table, tmp_path / "out", max_bad_share=1))


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("", DataError, "the file is empty"),
        (",".join(HEADER) + "\n", DataError, "a header and no rows"),
        ("image_id,image_path\n1,a.jpg\n", DataError, "columns missing: data_风险"),
        (None, MissingDataError, "no such file"),
    ],
)
def test_a_table_that_is_none_fails_before_anything_is_written(
    tmp_path: Path, content: str | None, error: type[Exception], message: str
) -> None:
    table = make_table(tmp_path / "in", count=5)
    table.unlink() if content is None else table.write_text(content, encoding="utf-8")
    for job in (prepare.run, prepare.plan):
        with pytest.raises(error, match=message):
            job(recipe(table, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_table_columns_that_rows_need_for_themselves_are_refused(tmp_path: Path) -> None:
    table = make_table(tmp_path / "in", count=5)
    table.write_text(table.read_text(encoding="utf-8").replace("房屋", "messages"), encoding="utf-8")
    with pytest.raises(DataError, match="columns messages of their own"):
        prepare.run(recipe(table, tmp_path / "out"))


def test_an_id_column_called_id_is_no_clash(tmp_path: Path) -> None:
    table = make_table(tmp_path / "in", count=5)
    table.write_text(table.read_text(encoding="utf-8").replace("image_id", "id"), encoding="utf-8")
    prepare.run(recipe(table, tmp_path / "out", column_names={"id": "image_id"}))
    assert len(everything(tmp_path / "out")) == 5


@pytest.mark.parametrize("keys", [{"question": "<image>和<image>"}, {"system_prompt": "见<image>"}])
def test_one_photo_has_one_mark(tmp_path: Path, keys: dict[str, str]) -> None:
    table = make_table(tmp_path / "in", count=5)
    with pytest.raises(RecipeError, match="question and system_prompt"):
        prepare.run(recipe(table, tmp_path / "out", **keys))


def test_no_house_is_in_two_splits(tmp_path: Path) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    prepare.run(recipe(table, out, group_by="房屋"))
    homes = {}
    for split in ("train", "val", "test"):
        for conversation in open_datasets([f"building_defect_{split}"], out):
            assert homes.setdefault(conversation.extra["房屋"], split) == split
    assert set(homes.values()) == {"train", "val", "test"}


def test_private_prefixes_stand_in_no_file_that_is_written(tmp_path: Path) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    rows = [good_row(number) for number in range(20)]
    for number, row in enumerate(rows):
        row[5] = f"7-{number % 4}-{301 + number % 4} {row[5]}"
    write_table(table.parent, rows)
    keys: dict[str, Any] = {
        "output_format": "jsonl",
        "group_by": "data_缺陷描述",
        "group_pattern": r"^\d+-\d+-\d+",
        "strip_patterns": {"data_缺陷描述": r"\d+-\d+-\d+"},
    }
    prepare.run(recipe(table, out, **keys))
    for name, data in files_of(out).items():
        if name != "manifest.json":  # which records the patterns
            assert b"7-0-301" not in data, name
    assert {one.answer.splitlines()[-1] for one in everything(out) if one.answer} == {
        f"**缺陷描述**: 缺陷{number}" for number in range(20)
    }


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"strip_patterns": {"data_缺陷描述": "d+-d+"}}, r"strip_patterns: 'd\+-d\+' begins no cell of data_缺陷描述"),
        ({"group_by": "房屋", "group_pattern": "d+"}, r"group_pattern: 'd\+' is in no cell of 房屋"),
    ],
)
def test_a_pattern_that_finds_nothing_is_a_slip(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    table = make_table(tmp_path / "in")
    for job in (prepare.run, prepare.plan):
        with pytest.raises(DataError, match=message):
            job(recipe(table, tmp_path / "out", **keys))


def test_what_was_amiss_elsewhere_than_in_a_photos_file_can_be_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"

    def fail(*_: object) -> None:
        raise ImageError("pip install pillow-heif", "image_unreadable")

    with monkeypatch.context() as patch:
        patch.setattr("riskva.preparation.photo_work.reencode", fail)
        with pytest.raises(TooManyBadRowsError):
            prepare.run(recipe(table, out))
    prepare.run(recipe(table, out))
    assert len(everything(out)) == 20


def test_the_plan_splits_as_the_job_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    rows = [good_row(number) for number in range(20)]
    for number, row in enumerate(rows):
        row[2:4], row[5] = ["渗水", "修补"], f"缺陷{number % 3}"
    write_table(table.parent, rows)
    asked = recipe(table, out, identical_texts="together", group_by="房屋")
    planned = [line for line in prepare.plan(asked) if line.startswith(("train", "val", "test"))]
    prepare.run(asked)
    assert planned == [line for line in capsys.readouterr().out.splitlines() if line in planned]
    assert len(planned) == 3


def test_a_split_whose_name_begins_as_anothers_is_not_read_with_it(tmp_path: Path) -> None:
    table, out = make_table(tmp_path / "in", count=30), tmp_path / "out"
    prepare.run(recipe(table, out, split={"train": 0.4, "test": 0.3, "test-hard": 0.3}, max_shard_size="3KB"))
    manifest = read_manifest(out)
    assert manifest is not None
    for split in ("train", "test", "test-hard"):
        rows = [one.rows or 0 for one in manifest.files if re.match(split + r"-\d{5}-of", one.name)]
        assert len(rows) > 1
        assert len(open_datasets([f"building_defect_{split}"], out)) == sum(rows)


def test_photos_in_the_output_folder_are_refused(tmp_path: Path) -> None:
    table, out = make_table(tmp_path / "in", count=5), tmp_path / "out"
    prepare.run(recipe(table, out, output_format="jsonl"))
    rows = [good_row(number) for number in range(5)]
    for row in rows:
        row[1] = f"out/images/{Path(row[1]).stem}.jpg"
    again = write_table(table.parent, rows)
    before = files_of(out)
    asked = recipe(again, out, overwrite_output_dir=True).model_copy(update={"image_base_path": tmp_path})
    for job in (prepare.run, prepare.plan):
        with pytest.raises(OutputFolderError, match=r"table.csv:2: .* lies in output_dir"):
            job(asked)
    assert files_of(out) == before


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form.values()))
def test_a_prepared_file_serves_as_a_table(tmp_path: Path, form: dict[str, Any]) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    prepare.run(recipe(table, out, **form))
    (train,) = out.glob("train*")
    prepare.run(recipe(train, tmp_path / "again", **form))
    first = {one.id: one.answer for one in open_datasets(["building_defect_train"], out)}
    assert {one.id: one.answer for one in everything(tmp_path / "again")} == first


@pytest.mark.parametrize("text", ["<|im_end|>", "\x00"])
def test_a_prompt_that_a_model_reads_as_structure_is_refused(tmp_path: Path, text: str) -> None:
    table = make_table(tmp_path / "in", count=5)
    with pytest.raises(RecipeError, match="as structure"):
        prepare.run(recipe(table, tmp_path / "out", question=f"看{text}"))


def table_with_a_leak(folder: Path) -> Path:
    """The table says which split each row goes to, and puts one photo into two."""
    table = make_table(folder)
    rows = [good_row(number) for number in range(20)]
    for number, row in enumerate(rows):
        row[6] = ("train", "train", "train", "val", "test")[number % 5]
    rows[4][1], rows[5][1] = "6.jpg", "6.jpg"
    return write_table(table.parent, rows)


def test_a_strict_audit_fails_on_a_leak_and_leaves_a_page(tmp_path: Path) -> None:
    table, out = table_with_a_leak(tmp_path / "in"), tmp_path / "out"
    asked = recipe(table, out, split_column="房屋", audit="strict")
    with pytest.raises(AuditError, match=r"look_alikes_across_splits.*") as caught:
        prepare.run(asked)
    assert str(out / "audit.html") in str(caught.value)
    assert sorted(files_of(out)) == ["audit.html", "audit.json"]
    prepare.run(recipe(table, out, split_column="房屋"))
    before = files_of(out)
    assert json.loads(before["audit.json"])["findings"][0]["code"] == "look_alikes_across_splits"
    with pytest.raises(AuditError, match=r"audit\.failed\.html"):
        prepare.run(asked.model_copy(update={"overwrite_output_dir": True}))
    after = files_of(out)
    for name in ("audit.failed.html", "audit.failed.json"):
        assert after.pop(name)
    assert after == before


def test_look_alikes_that_shares_would_part_are_brought_together(tmp_path: Path) -> None:
    table, out = table_with_a_leak(tmp_path / "in"), tmp_path / "out"
    prepare.run(recipe(table, out, audit="strict"))
    homes = {
        one.id: split for split in ("train", "val", "test") for one in open_datasets([f"building_defect_{split}"], out)
    }
    assert homes["r4"] == homes["r5"] == homes["r6"]


def test_tables_of_several_kinds_become_one_data_set(tmp_path: Path) -> None:
    import openpyxl

    table, out = make_table(tmp_path / "in", count=24), tmp_path / "out"
    rows = [good_row(number) for number in range(24)]
    rows[3][1] = "3.png"
    folder = table.parent
    (folder / "table.csv").write_text("\n".join(map(",".join, [HEADER, *rows[:6]])), encoding="gb18030")
    renamed = ["编号", "照片", *HEADER[2:]]
    (folder / "b.tsv").write_text("\n".join(map("\t".join, [renamed, *rows[6:12]])), encoding="utf-16")
    book = openpyxl.Workbook()
    for row in [list(reversed(HEADER)), *(list(reversed(row)) for row in rows[12:18])]:
        book.active.append(row)
    book.save(folder / "c.xlsx")
    with (folder / "d.jsonl").open("w", encoding="utf-8") as stream:
        for row in rows[18:]:
            answer = (
                f"**风险描述**: {row[2]}\n**风险等级**: {row[4]}\n**纠正和预防建议**: {row[3]}\n**缺陷描述**: {row[5]}"
            )
            turns = [{"from": "human", "value": "<image>看"}, {"from": "gpt", "value": answer}]
            stream.write(json.dumps({"id": row[0], "conversations": turns, "images": [row[1]], "房屋": row[6]}) + "\n")
    names = ("table.csv", "b.tsv", "c.xlsx", "d.jsonl")
    keys: dict[str, Any] = {"column_names": {"编号": "image_id", "照片": "image_path"}, "group_by": "房屋"}
    prepare.run(recipe(table, out, **keys).model_copy(update={"csv_path": tuple(folder / name for name in names)}))
    assert quarantined(out) == []
    answers = {one.id: one.answer for one in everything(out)}
    assert len(answers) == 24
    assert all(f"缺陷{number}" in (answers[f"r{number}"] or "") for number in range(24))
    manifest = read_manifest(out)
    assert manifest is not None
    assert [(Path(one.path).name, one.rows) for one in manifest.tables] == [(name, 6) for name in names]
    assert manifest.tables[0].encoding.startswith("GBK/GB18030")


def test_level_wordings_are_translated_and_listed(tmp_path: Path) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    rows = [good_row(number) for number in range(20)]
    for number, wording in enumerate(["B-轻微", "一般", "较严重", " 严重 ", "警告"]):
        rows[number][4] = wording
    write_table(table.parent, rows)
    prepare.run(recipe(table, out, level_names={"警告": "中等"}, near_duplicates="report"))
    answers = {one.id: one.answer or "" for one in everything(out)}
    for number, level in enumerate(["轻微", "中等", "严重", "严重", "中等"]):
        assert f"**风险等级**: {level}\n" in answers[f"r{number}"]
    audit = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    listed = {one["written"]: one["level"] for one in audit["levels"]["wordings"]}
    assert listed == {"B-轻微": "轻微", "一般": "中等", "较严重": "严重", "警告": "中等"}


def test_levels_keep_their_proportions_in_every_split(tmp_path: Path) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    prepare.run(recipe(table, out))
    levels = [one.extra["data_风险等级"] for one in open_datasets(["building_defect_train"], out)]
    assert Counter(levels) == {"轻微": 6, "中等": 3, "严重": 3}


def test_an_output_folder_in_use_is_refused_until_overwriting_is_asked_for(tmp_path: Path) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    prepare.run(recipe(table, out, output_format="jsonl"))
    (out / "thesis.txt").write_text("mine")
    before = files_of(out)
    for job in (prepare.run, prepare.plan):
        with pytest.raises(OutputFolderError, match="overwrite_output_dir"):
            job(recipe(table, out))
    assert files_of(out) == before
    prepare.run(recipe(table, out, output_format="parquet", overwrite_output_dir=True))
    assert (out / "thesis.txt").read_text() == "mine"
    assert not (out / "images").exists()
    assert not (out / "train.jsonl").exists()
    assert len(everything(out)) == 20


def test_plan_tells_and_writes_nothing(tmp_path: Path) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    spoil(table)
    text = "\n".join(prepare.plan(recipe(table, out, max_bad_share=0.5)))
    for part in (
        "GBK/GB18030",
        "20 rows",
        "train: ",
        "unknown_level 1",
        "image_missing 1",
        f"would write into {out}",
    ):
        assert part in text
    assert not out.exists()


def test_summary_tells_levels_floor_files_and_the_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    prepare.run(recipe(table, out))
    text = capsys.readouterr().out
    assert "train: 12 rows (轻微 6, 中等 3, 严重 3); always 轻微 would be right in 50.0%" in text
    assert f"{out / 'test-00000-of-00001.parquet'}  4 rows" in text
    assert f"next: riskva-run recipes/sft_lora.yaml dataset_dir={out}\n" in text
    prepare.run(recipe(table, tmp_path / "named", dataset_name="roof", split={"train": 0.5, "val": 0.5}))
    assert "dataset=roof_train eval_dataset=roof_val\n" in capsys.readouterr().out
    prepare.run(recipe(table, tmp_path / "two", split={"train": 0.5, "test": 0.5}))
    assert "dataset=building_defect_train eval_dataset=null eval_strategy=no\n" in capsys.readouterr().out


def test_a_split_whose_photos_are_all_bad_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = make_table(tmp_path / "in", count=6), tmp_path / "out"
    rows = [good_row(number) for number in range(6)]
    for row in rows:
        row[6] = "测试" if row[0] == "r5" else "训练"
    write_table(table.parent, rows)
    (table.parent / "5.jpg").write_text("<html>")
    prepare.run(recipe(table, out, split_column="房屋", max_bad_share=0.5))
    assert "test: no rows" in capsys.readouterr().out
    assert list(json.loads((out / "dataset_info.json").read_text())) == ["building_defect_train"]
    assert json.loads((out / "audit.json").read_text(encoding="utf-8"))["rows"]


def test_two_rows_may_show_one_photo(tmp_path: Path) -> None:
    table, out = make_table(tmp_path / "in", count=5), tmp_path / "out"
    rows = [good_row(number) for number in range(5)]
    rows[4][1] = rows[0][1]
    write_table(table.parent, rows)
    prepare.run(recipe(table, out, output_format="jsonl"))
    photos = {one.id: one.photos[0].path for one in everything(out)}
    assert photos["r4"] == photos["r0"]
    assert len(photos) == 5


def test_preview_prints_and_does_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    prepare.run(recipe(table, out))
    before, _ = files_of(out), capsys.readouterr()
    prepare.run(PrepareRecipe(stage="prepare", preview=out / "val-00000-of-00001.parquet", preview_rows=2))
    text = capsys.readouterr().out
    assert text.count("── row") == 2
    assert "**风险等级**: " in text
    assert files_of(out) == before


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form.values()))
def test_real_photos(real_photos: Path, tmp_path: Path, form: dict[str, Any]) -> None:
    prepare.run(recipe(real_photos / "metadata.csv", tmp_path / "out", max_image_size=(1024, 1024), **form))
    dataset = everything(tmp_path / "out")
    assert len(dataset) == 59
    assert {open_photo(one.photos[0]).mode for one in dataset} == {"RGB"}


def test_sources_inside_the_output_folder_are_refused(tmp_path: Path) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    prepare.run(recipe(table, out, output_format="jsonl"))
    inside = out / "table.csv"
    inside.write_bytes(table.read_bytes())
    before = files_of(out)
    keys = {"overwrite_output_dir": True, "output_format": "jsonl"}
    wrong = [
        (recipe(table, out, **keys).model_copy(update={"image_base_path": out / "images"}), "image_base_path"),
        (recipe(table, out, **keys).model_copy(update={"image_base_path": out}), "image_base_path"),
        (recipe(inside, out, **keys).model_copy(update={"image_base_path": table.parent}), "csv_path"),
    ]
    for one, key in wrong:
        for job in (prepare.run, prepare.plan):
            with pytest.raises(OutputFolderError, match=f"output_dir holds {key}"):
                job(one)
    assert files_of(out) == before


def test_strangers_photos_are_found_before_any_photo_is_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    (out / "images").mkdir(parents=True)
    (out / "images" / "7.jpg").write_text("mine")

    def never(*_: object) -> None:
        raise AssertionError("a photo was worked on")

    monkeypatch.setattr("riskva.preparation.photo_work.reencode", never)
    for job in (prepare.run, prepare.plan):
        with pytest.raises(OutputFolderError, match=r"7\.jpg: prepare would write this file"):
            job(recipe(table, out, output_format="jsonl", overwrite_output_dir=True))
    assert files_of(out) == {"images/7.jpg": b"mine"}


@pytest.mark.parametrize("fault", ["gone", "undecodable"])
def test_a_failing_overwrite_leaves_the_data_set_and_its_list(tmp_path: Path, fault: str) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    (table.parent / "6.jpg").unlink()
    prepare.run(recipe(table, out, max_bad_share=0.05))
    before = files_of(out)
    for number in (7, 8, 9):
        path = table.parent / f"{number}.jpg"
        path.unlink() if fault == "gone" else path.write_text("<html>")
    with pytest.raises(TooManyBadRowsError, match=r"listed in .*quarantine\.failed\.jsonl"):
        prepare.run(recipe(table, out, max_bad_share=0.05, overwrite_output_dir=True))
    after = files_of(out)
    failed = after.pop("quarantine.failed.jsonl").decode().splitlines()
    assert [json.loads(line)["id"] for line in failed] == ["r6", "r7", "r8", "r9"]
    assert after == before
    prepare.run(recipe(table, out, max_bad_share=0.5, overwrite_output_dir=True))
    assert "quarantine.failed.jsonl" not in files_of(out)
    assert [row["id"] for row in quarantined(out)] == ["r6", "r7", "r8", "r9"]


def test_plan_fails_as_the_job_would_when_the_photos_are_missing(tmp_path: Path) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    for path in [*table.parent.glob("*.jpg"), *table.parent.glob("*.png")]:
        path.unlink()
    with pytest.raises(TooManyBadRowsError, match="image_missing 20") as caught:
        prepare.plan(recipe(table, out))
    assert "max_bad_share allows 5.0%" in str(caught.value)
    assert not out.exists()


@pytest.mark.parametrize("form", [FORMS[0], FORMS[3]], ids=["jsonl", "parquet"])
def test_nameless_columns_of_a_spreadsheet_stay_out_of_the_data_set(tmp_path: Path, form: dict[str, Any]) -> None:
    table, out = make_table(tmp_path / "in"), tmp_path / "out"
    lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join(f"{line},," for line in lines), encoding="utf-8")
    prepare.run(recipe(table, out, **form))
    assert quarantined(out) == []
    assert set(everything(out)[0].extra) == set(HEADER)
