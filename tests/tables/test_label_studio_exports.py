import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from riskva.errors import DataError
from riskva.report import DEFAULT_FORMAT, RiskLevel
from riskva.tables.records import BadRow, DefectRecord
from riskva.tables.table import TableLayout, Tables, open_tables

LAYOUT = TableLayout(DEFAULT_FORMAT)
SAID = {"data_风险": "渗水", "data_风险等级": "中等", "data_纠正和预防建议": "修补", "data_缺陷描述": "裂缝"}
FIELDS = tuple(SAID)


def result(name: str, *texts: str) -> dict[str, Any]:
    """What Label Studio writes for one control."""
    key, kind = ("choices", "choices") if name == "data_风险等级" else ("text", "textarea")
    return {
        "id": "Yd_BW-pLht", "from_name": name, "to_name": "riskva_photo", "type": kind, "origin": "manual",
        "value": {key: list(texts)},
    }  # fmt: skip


def annotation(updated_at: str = "2026-05-06T07:08:09.123456Z", **texts: str) -> dict[str, Any]:
    said = {**SAID, **texts}
    return {
        "id": 9, "completed_by": 1, "was_cancelled": False, "ground_truth": False, "lead_time": 12.5,
        "created_at": "2026-05-06T07:00:00.000000Z", "updated_at": updated_at, "draft_created_at": None,
        "result": [result(name, said[name]) for name in said], "prediction": {}, "result_count": 0,
    }  # fmt: skip


def task(number: int = 1, *annotations: Any, **data: Any) -> dict[str, Any]:
    return {
        "id": 100 + number,
        "annotations": list(annotations or [annotation()]),
        "file_upload": "a1b2-tasks.json",
        "drafts": [],
        "predictions": [12],
        "data": {"image_id": f"r{number}", "image_path": "photos/a.jpg", **data},
        "meta": {},
        "created_at": "2026-05-06T07:00:00.000000Z",
        "inner_id": number,
        "total_annotations": 1,
        "project": 4,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.jpg")
    return tmp_path


def export(folder: Path, *tasks: Any) -> Path:
    path = folder / "project-4-at-2026-05-06-07-08-ab12.json"
    path.write_text(json.dumps(list(tasks), ensure_ascii=False), encoding="utf-8")
    return path


def tables(folder: Path, *tasks: Any, layout: TableLayout = LAYOUT) -> Tables:
    return open_tables([export(folder, *tasks)], layout)


def only(tables: Tables) -> DefectRecord:
    (record,) = tables.rows()
    assert isinstance(record, DefectRecord), record
    return record


def first_bad(folder: Path, *tasks: Any) -> BadRow:
    """The first row, when a good one stands behind it."""
    bad, good = tables(folder, *tasks, task(99)).rows()
    assert isinstance(good, DefectRecord)
    assert isinstance(bad, BadRow)
    return bad


def test_an_annotated_task_is_a_row(folder: Path) -> None:
    shown = {"riskva_photo": "/data/local-files/?d=photos/a.jpg", "riskva_answer": "答", "riskva_group": "g0001"}
    found = tables(folder, task(1, 房屋="3栋", 面积=7.0, 框=[1, 2], **shown))
    assert found.files[0].label == "JSON, tasks of Label Studio, left out as no text: 框"
    assert found.columns == ("image_id", "image_path", "房屋", "面积", *FIELDS)
    record = only(found)
    assert (record.id, record.line, record.photo.name) == ("r1", 1, "photos/a.jpg")
    assert record.report.level is RiskLevel.MODERATE
    assert record.report.texts == {"风险描述": "渗水", "纠正和预防建议": "修补", "缺陷描述": "裂缝"}
    assert record.cells == {"image_id": "r1", "image_path": "photos/a.jpg", "房屋": "3栋", "面积": "7", **SAID}


@pytest.mark.parametrize(
    ("times", "newest"),
    [
        (["2026-05-06T07:08:09Z", "2026-05-06T07:08:09.5Z", "2026-05-06T07:08:08.999999Z"], 1),
        (["2026-05-07T00:00:00+08:00", "2026-05-06T15:00:00Z", "2026-05-06"], 0),
        (["2026-05-06T07:08:09Z"] * 3, 2),
        ([None, "yesterday", 5], 2),
    ],
)
def test_the_newest_annotation_counts(folder: Path, times: list[Any], newest: int) -> None:
    annotations = [annotation(data_风险=str(number)) for number in range(3)]
    for one, time in zip(annotations, times, strict=True):
        one["updated_at"] = time
        one["created_at"] = None
    assert only(tables(folder, task(1, *annotations))).report.texts["风险描述"] == str(newest)


def test_cancelled_annotations_do_not_count(folder: Path) -> None:
    skipped = annotation("2027-01-01T00:00:00Z", data_风险="x") | {"was_cancelled": True}
    assert only(tables(folder, task(1, annotation(), skipped))).report.texts["风险描述"] == "渗水"
    bad = first_bad(folder, task(1, skipped))
    assert (bad.id, bad.line, bad.file, bad.reason) == ("r1", 1, "photos/a.jpg", "annotation_cancelled")
    assert "skipped it" in bad.message


@pytest.mark.parametrize("change", [{"annotations": []}, {"annotations": None}, {}])
def test_a_task_that_nobody_annotated_is_kept_out(folder: Path, change: dict[str, Any]) -> None:
    changed = task() | change
    if not change:
        del changed["annotations"]
    bad = first_bad(folder, changed)
    assert (bad.id, bad.reason) == ("r1", "not_annotated")
    assert "submit it in Label Studio and export again" in bad.message


def test_a_file_without_any_annotation_is_none_to_prepare(folder: Path) -> None:
    to_import = {"data": task()["data"], "predictions": [{"model_version": "riskva", "result": annotation()["result"]}]}
    with pytest.raises(DataError, match=r"none of its 2 tasks can be used; the first:\n.*json:1: nobody has annotated"):
        tables(folder, to_import, to_import)


def test_a_text_that_was_deleted_is_not_the_one_in_the_data(folder: Path) -> None:
    emptied = annotation()
    emptied["result"] = [one for one in emptied["result"] if one["from_name"] != "data_风险"]
    bad = first_bad(folder, task(1, emptied, data_风险="旧"))
    assert (bad.reason, bad.message) == ("empty_field", "data_风险 is empty")


def test_what_no_control_says_the_data_says(folder: Path) -> None:
    level_only = annotation()
    level_only["result"] = [result("data_风险等级", "严重")]
    texts = {name: text for name, text in SAID.items() if name != "data_风险等级"}
    assert only(tables(folder, task(1, level_only, **texts))).report.level is RiskLevel.SEVERE


def test_several_texts_are_joined_and_several_levels_refused(folder: Path) -> None:
    spoken = annotation()
    spoken["result"][0] = result("data_风险", "渗水", "发霉")
    assert only(tables(folder, task(1, spoken))).report.texts["风险描述"] == "渗水 发霉"
    spoken["result"][1] = result("data_风险等级", "轻微", "严重")
    bad = first_bad(folder, task(1, spoken))
    assert bad.reason == "unknown_level"
    assert "'轻微\\n严重'" in bad.message


def test_regions_and_other_controls_are_left_alone(folder: Path) -> None:
    drawn = annotation()
    drawn["result"] += [
        {"type": "rectanglelabels", "from_name": "框", "value": {"x": 1, "rectanglelabels": ["裂缝"]}},
        {"type": "relation", "from_id": "a", "to_id": "b"},
        {"type": "textarea", "from_name": "备注", "value": {"text": "一句"}},
    ]
    record = only(tables(folder, task(1, drawn)))
    assert set(record.cells) == {"image_id", "image_path", "备注", *FIELDS}
    assert record.cells["备注"] == "一句"


def test_names_are_renamed(folder: Path) -> None:
    renamed = json.loads(
        json.dumps(task(1, riskva_group="g0007"), ensure_ascii=False).replace("data_风险等级", "level")
    )
    names = {"level": "data_风险等级", "riskva_group": "组"}
    layout = TableLayout(DEFAULT_FORMAT, column_names=names, group_by="组")
    record = only(tables(folder, renamed, layout=layout))
    assert (record.report.level, record.group) == (RiskLevel.MODERATE, "g0007")


def test_an_id_stands_for_ours(folder: Path) -> None:
    nameless = task(1, id="x1")
    del nameless["data"]["image_id"]
    found = tables(folder, nameless)
    assert found.columns[:2] == ("image_path", "image_id")
    assert only(found).id == "x1"
    assert "id" not in tables(folder, task(1, id="x1")).columns


def changed(**keys: Any) -> dict[str, Any]:
    return task() | keys


def with_result(*results: Any) -> dict[str, Any]:
    return task(1, annotation() | {"result": list(results)})


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ("text", "expected an object with columns, found str"),
        (changed(data=None), "data holds nothing; expected an object"),
        (changed(data=["x"]), "data holds a list; expected an object"),
        (changed(annotations={}), "annotations holds an object; expected a list"),
        (changed(annotations=[7]), "an annotation holds int; expected an object"),
        (task(1, annotation() | {"result": None}), "an annotation's result holds nothing; expected a list"),
        (with_result("x"), "a result holds text; expected an object"),
        (with_result({"type": "textarea", "value": {"text": ["x"]}}), "a result's from_name holds nothing"),
        (with_result({"type": "textarea", "from_name": "a"}), "a: the value holds nothing; expected an object"),
        (with_result({"type": "textarea", "from_name": "a", "value": {}}), "a: text holds nothing; expected a list"),
        (with_result(result("data_风险", 3)), "data_风险: text holds a list; expected a list of texts"),  # type: ignore[arg-type]
        (with_result(result("data_风险", "\ud800")), "half a character"),
        (task(1, image_id=["x"]), "image_id holds a list; expected text or a number"),
    ],
)
def test_other_shapes_are_located_faults(folder: Path, spoilt: Any, message: str) -> None:
    path = folder / "export.json"
    path.write_text(json.dumps([task(99), spoilt]), encoding="utf-8")
    good, bad = open_tables([path], LAYOUT).rows()
    assert isinstance(good, DefectRecord)
    assert isinstance(bad, BadRow)
    assert (bad.line, bad.reason) == (2, "malformed_row")
    assert message in bad.message


def test_photos_lie_in_the_folder_given_or_beside_the_export(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (record,) = open_tables([export(folder, task())], LAYOUT, tmp_path / "other").rows()
    assert isinstance(record, DefectRecord)
    assert record.photo.path == folder / "photos" / "a.jpg"


# Flat exports


def flat(number: int = 1, **changes: Any) -> dict[str, Any]:
    """One annotation as JSON-MIN has it; CSV has the same columns, sorted."""
    return {
        "image_id": f"r{number}", "image_path": "photos/a.jpg", "房屋": "3栋", "riskva_photo": "/data/local-files/?d=x",
        "riskva_group": "g0001", "riskva_confidence": 0.5, "id": 100 + number, **SAID, "annotator": 1,
        "annotation_id": 9, "created_at": "2026-05-06T07:00:00.000000Z", "updated_at": "2026-05-06T07:08:09.123456Z",
        "lead_time": 12.5, **changes,
    }  # fmt: skip


def as_json(folder: Path, *rows: dict[str, Any]) -> Path:
    return export(folder, *rows)


def as_csv(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "project-4.csv"
    names = sorted({name for row in rows for name in row})
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, names, quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("write", [as_json, as_csv])
def test_flat_exports_are_tables_without_label_studios_own_columns(folder: Path, write: Any) -> None:
    found = open_tables([write(folder, flat(), flat(2, annotator="a@b.cn"))], LAYOUT)
    assert found.files[0].label.endswith(", of Label Studio")
    assert set(found.columns) == {"image_id", "image_path", "房屋", *FIELDS}
    first, second = found.rows()
    assert isinstance(first, DefectRecord)
    assert isinstance(second, DefectRecord)
    assert (first.id, first.report.level, first.cells["房屋"]) == ("r1", RiskLevel.MODERATE, "3栋")
    assert not any("a@b.cn" in cell for cell in second.cells.values())


@pytest.mark.parametrize("write", [as_json, as_csv])
def test_a_cancelled_row_and_a_second_annotation_are_kept_out(folder: Path, write: Any) -> None:
    rows = [flat(was_cancelled=False), flat(2, was_cancelled=True), flat(was_cancelled=False)]
    reasons = [getattr(row, "reason", "good") for row in open_tables([write(folder, *rows)], LAYOUT).rows()]
    assert reasons == ["good", "annotation_cancelled", "duplicate_id"]


def test_several_texts_in_a_cell_of_csv(folder: Path) -> None:
    both = json.dumps({"text": ["渗水", "发霉"]}, ensure_ascii=False)
    twice = json.dumps([{"text": ["渗水"]}, {"text": ["发霉"]}], ensure_ascii=False)
    rows = [flat(number, data_风险=text) for number, text in enumerate([both, twice, "{渗水}", '{"a": 1}'])]
    found = [row.report.texts["风险描述"] for row in open_tables([as_csv(folder, *rows)], LAYOUT).rows()]  # type: ignore[union-attr]
    assert found == ["渗水 发霉", "渗水 发霉", "{渗水}", '{"a": 1}']
